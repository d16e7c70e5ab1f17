"""Scripts that answer by searching: which pages, in which order, by which query, and what they say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from swirl.benchmarks.official import read
from swirl.core.types import Passage
from swirl.pretraining.search_scripts import NoScript, by_pages, by_questions
from swirl.tools.actions import parse
from swirl.tools.search import Search

DATA = Path(__file__).resolve().parents[3] / "shared/data"
FILM = Passage("p0", "Cold River (film)", "Cold River is a film of 1931 directed by Ada Morn.")
ADA = Passage("p1", "Ada Morn", "Ada Morn was born in Oslo. She made a film called Cold River.")
OTHER = Passage("p2", "Red Crown", "Red Crown is a film of 1915 by an unknown hand.")
OSLO = Passage("p3", "Oslo", "Oslo is the capital of Norway. Its mayor is Bram Lund.")
NOISE = [Passage(f"n{n}", f"Page {n}", f"The film number {n} was born.") for n in range(5)]
SEARCH = Search.over([FILM, ADA, OTHER, OSLO, *NOISE], 1, 300)


def pages(question: str, answer: str, *support: Passage, search: Search = SEARCH, seed: int = 0) -> list[str]:
    made = by_pages(question, answer, support, search, random.Random(seed))
    assert not isinstance(made, NoScript), made
    return made


def payloads(actions: Sequence[str]) -> list[tuple[str, str]]:
    return [(parse(action).kind, parse(action).payload) for action in actions]


@pytest.mark.parametrize("support", [(FILM, ADA), (ADA, FILM)])
def test_a_bridge_goes_from_the_page_that_the_question_names_to_the_one_that_it_names(
    support: tuple[Passage, ...],
) -> None:
    actions = pages("Where was the director of Cold River born?", "Oslo", *support)
    assert payloads(actions) == [("search", "Cold River"), ("search", "Ada Morn"), ("answer", "Oslo")]
    assert "Cold River" in actions[0].partition("<")[0] and "Ada Morn" in actions[1].partition("<")[0]


def test_a_page_that_the_question_does_not_name_is_found_by_the_names_that_it_has() -> None:
    harbour = Passage("p4", "Hidden Harbour", "Hidden Harbour was sung by Cleo Reed in Cairo. Ada Morn wrote it.")
    search = Search.over([FILM, ADA, harbour, *NOISE], 1, 300)
    made = pages("Where was the one born who wrote what Cleo Reed sang?", "Oslo", harbour, ADA, search=search)
    assert payloads(made) == [("search", "Cleo Reed"), ("search", "Ada Morn"), ("answer", "Oslo")]


def test_a_comparison_takes_the_pages_as_the_question_names_them_and_compares_the_years() -> None:
    question = "Which film is older, Red Crown or Cold River?"
    actions = pages(question, "Red Crown", FILM, OTHER)
    assert payloads(actions) == [("search", "Red Crown"), ("search", "Cold River"), ("answer", "Red Crown")]
    assert "1915" in actions[2] and "1931" in actions[2]
    false = pages("Which film is older, Red Crown or Cold River?", "Cold River", FILM, OTHER)
    assert false[2] == "<answer> Cold River </answer>"  # the years do not say so
    yes = pages("Are Red Crown and Cold River films?", "yes", FILM, OTHER)
    assert yes[2] == "<answer> yes </answer>"


def test_a_page_that_is_named_in_part_is_found_by_that_part_and_the_question() -> None:
    vale = Passage("p1", "Ada Morn Vale", "Ada Morn Vale was born in a castle in Oslo.")
    lists = [Passage(f"l{n}", f"Ada Morn {n}", "Ada Morn, Ada Morn") for n in range(3)]
    for others, query in ((NOISE, "Ada Morn"), ([*NOISE, *lists], "Ada Morn castle director Cold River born")):
        search = Search.over([FILM, vale, *others], 2, 300)
        made = pages("In which castle was the director of Cold River born?", "Oslo", FILM, vale, search=search)
        assert payloads(made) == [("search", "Cold River"), ("search", query), ("answer", "Oslo")]


def test_a_second_search_is_left_out_where_the_first_result_shows_its_page() -> None:
    search = Search.over([FILM, ADA], 2, 300)
    actions = pages("Where was the director of Cold River born?", "Oslo", FILM, ADA, search=search)
    assert payloads(actions) == [("search", "Cold River"), ("answer", "Oslo")]


def test_wordings_are_drawn_by_the_seed_and_calls_are_not() -> None:
    question = "Where was the director of Cold River born?"
    made = [pages(question, "Oslo", FILM, ADA, seed=seed) for seed in range(20)]
    assert len({tuple(actions) for actions in made}) > 5
    assert len({tuple(payloads(actions)) for actions in made}) == 1
    assert made[3] == pages(question, "Oslo", FILM, ADA, seed=3)


@pytest.mark.parametrize(
    ("question", "answer", "support", "why"),
    [
        ("Where was the director of Cold River born?", "Oslo", (FILM,), NoScript.OTHER_PAGES),
        ("Where was the director of Cold River born?", "Lima", (FILM, ADA), NoScript.NOT_SHOWN),
        ("Who was mayor when Cold River was made?", "Bram Lund", (FILM, OSLO), NoScript.NO_BRIDGE),
        ("who sings?", "Oslo", (FILM, ADA), NoScript.NOT_FOUND),
    ],
)
def test_what_searching_does_not_show_is_not_demonstrated(
    question: str, answer: str, support: tuple[Passage, ...], why: NoScript
) -> None:
    assert by_pages(question, answer, support, SEARCH, random.Random(0)) is why


def test_sub_questions_are_asked_with_the_results_so_far() -> None:
    steps = ("Cold River >> directed by", "Where was #1 born?", "Who is the mayor of #2?")
    results = ("Ada Morn", "Oslo", "Bram Lund")
    actions = by_questions(steps, results, "Bram Lund", [OSLO, ADA, FILM], SEARCH, random.Random(0))
    assert not isinstance(actions, NoScript)
    assert payloads(actions) == [
        ("search", "Cold River directed by"),
        ("search", "Where was Ada Morn born"),
        ("search", "Who is the mayor of Oslo"),
        ("answer", "Bram Lund"),
    ]
    assert "Ada Morn" in actions[1].partition("<")[0] and "Oslo" in actions[2].partition("<")[0]
    assert by_questions(steps, ("Ada Morn", "Rome", "x"), "x", [OSLO, ADA, FILM], SEARCH, random.Random(0)) is (
        NoScript.NOT_FOUND
    )


@pytest.mark.filterwarnings("ignore:.*the official file of")
@pytest.mark.parametrize(
    ("name", "file", "share"), [("hotpotqa", "train_600.jsonl", 0.75), ("musique", "train_sample.json", 0.25)]
)
def test_most_real_rows_become_a_script(name: str, file: str, share: float) -> None:
    """HotPotQA: bridges and comparisons; each script searches at least once, and ends with the row's answer."""
    path = DATA / name / file
    if not path.exists():
        pytest.skip(f"the real data is not at {path}")
    loaded = read(name, "pretrain", path)
    search = Search.over(loaded.passages, 2, 700)
    known = {passage.id: passage for passage in loaded.passages}
    made = 0
    for question in loaded.questions:
        support = [known[passage] for passage in loaded.support.get(question.id, ())]
        way, rng = loaded.annotations.get(question.id), random.Random(question.id)
        script = (
            by_questions(way.steps, way.results, question.answers[0], support, search, rng)
            if way
            else by_pages(question.text, question.answers[0], support, search, rng)
        )
        if not isinstance(script, NoScript):
            made += 1
            kinds = [kind for kind, _ in payloads(script)]
            assert kinds == ["search"] * (len(script) - 1) + ["answer"] and len(script) > 1
            assert payloads(script)[-1][1] == question.answers[0]
            assert len(set(payloads(script))) == len(script)
    assert made >= share * len(loaded.questions)
