"""The embedded worlds: disjoint splits, facts that search can find, golden answers that the real tools reproduce."""

from __future__ import annotations

import re

import pytest

from swirl.benchmarks.embedded.miniatures import EMBEDDED, QA_BENCHMARKS, Built, build, memory_world
from swirl.benchmarks.embedded.names import TYPES, names, split_of
from swirl.benchmarks.embedded.problems import draw_problem
from swirl.benchmarks.embedded.world import RELATIONS, Chain, change_facts, make_world
from swirl.core.errors import DataError
from swirl.core.seeds import generator
from swirl.tools import Calculator, Search

SPLITS = ("pretrain", "memory", "reward", "train", "development", "evaluation")
PASSAGE = re.compile(r"The (\w+) of (\w+ \w+) is (\w+ \w+)\.")


@pytest.fixture(scope="module")
def built() -> dict[str, Built]:
    """The evaluation split of every benchmark, built from three worlds."""
    return {name: build(name, "evaluation", 200, 3, 0.5, 0) for name in EMBEDDED}


@pytest.mark.parametrize("kind", TYPES)
def test_splits_share_tokens_and_no_name(kind: str) -> None:
    owned = {split: set(names(kind, split)) for split in SPLITS}
    every = set().union(*owned.values())
    assert sum(len(some) for some in owned.values()) == len(every)
    known = {word for name in owned["pretrain"] for word in name.split()}
    assert {word for name in every for word in name.split()} == known
    for split in ("train", "evaluation"):
        assert len({word for name in owned[split] for word in name.split()}) >= 0.9 * len(known)


def test_types_share_no_name() -> None:
    everything = [name for kind in TYPES for split in SPLITS for name in names(kind, split)]
    assert len(everything) == len(set(everything))


def test_a_world_states_each_fact_in_one_passage() -> None:
    world = make_world("train", 1.0, generator(0, "test"))
    assert {kind: len(members) for kind, members in world.entities.items()} == {
        "person": 24,
        "film": 10,
        "book": 10,
        "company": 10,
        "city": 14,
        "country": 6,
    }
    passages = world.passages()
    assert len(passages) == len({p.id for p in passages}) == len(world.facts) == 24 * 3 + 10 * 3 + 20 + 20 + 14 * 3 + 12
    for passage in passages:
        match = PASSAGE.fullmatch(passage.text)
        assert match
        relation, subject, value = match.groups()
        assert passage.title == subject
        assert passage.id == f"{relation} of {subject}"
        assert world.facts[subject, relation] == value != subject
        assert (relation, world.types[value]) in RELATIONS[world.types[subject]]


def test_a_chain_reads_as_a_question() -> None:
    chain = Chain("Silent Harbor", ("director", "spouse"), ("Ada Drake", "Bram Falk"))
    assert chain.question == "Who is the spouse of the director of Silent Harbor?"
    assert chain.calls == ("director of Silent Harbor", "spouse of Ada Drake")
    assert chain.derivation("q").results == ("Ada Drake", "Bram Falk")
    assert Chain("Ada Drake", ("birthplace",), ("Port Velda",)).question == "What is the birthplace of Ada Drake?"


@pytest.mark.parametrize("name", QA_BENCHMARKS)
def test_golden_searches_find_golden_results(name: str, built: dict[str, Built]) -> None:
    search = Search.over(built[name].passages, k=1)
    calls = [pair for d in built[name].derivations for pair in zip(d.calls, d.results, strict=True)]
    found = sum(search.run(call) == f"The {call} is {result}." for call, result in calls)
    assert len(calls) > 200
    assert found >= 0.99 * len(calls)


def test_golden_calculations_give_golden_results(built: dict[str, Built]) -> None:
    calculator = Calculator()
    for derivation in built["mini-gsm8k"].derivations:
        assert [calculator.run(call) for call in derivation.calls] == list(derivation.results)
        assert all(re.fullmatch(r"\d+ [-+*/] \d+", call) for call in derivation.calls)
        assert all(1 <= int(result) <= 600 for result in derivation.results)


@pytest.mark.parametrize("steps", range(2, 9))
def test_a_problem_has_exactly_its_steps_and_states_its_numbers(steps: int) -> None:
    rng = generator(0, "test", steps)
    for split in ("train", "evaluation"):
        for _ in range(20):
            problem = draw_problem(steps, split, rng)
            assert len(problem.solve()[0]) == steps
            assert split_of("numbers " + " ".join(map(str, problem.numbers))) == split
            assert [int(number) for number in re.findall(r"\d+", problem.text)] == list(problem.numbers)
            assert all(move.cue.split()[0] in move.text for move in problem.moves)


def test_problems_of_different_splits_never_share_their_numbers() -> None:
    def numbers(split: str) -> set[tuple[str, ...]]:
        questions = build("mini-gsm8k", split, 300, 3, 0.5, 0).questions
        return {tuple(re.findall(r"\d+", question.text)) for question in questions}

    drawn = [numbers(split) for split in ("pretrain", "reward", "train", "development", "evaluation")]
    assert len(set().union(*drawn)) == sum(map(len, drawn))


@pytest.mark.parametrize("name", EMBEDDED)
def test_questions_are_different_and_fit_their_derivations(name: str, built: dict[str, Built]) -> None:
    questions, derivations = built[name].questions, built[name].derivations
    assert len({q.text for q in questions}) == len({q.id for q in questions}) == len(questions) == 200
    for question, derivation in zip(questions, derivations, strict=True):
        assert derivation.question_id == question.id
        assert question.answers == derivation.results[-1:]
        assert question.hops == len(derivation.calls) == len(derivation.results)
        assert (question.benchmark, question.split) == (name, "evaluation")


def test_each_benchmark_has_its_hops(built: dict[str, Built]) -> None:
    assert {name: sorted({q.hops for q in built[name].questions}) for name in EMBEDDED} == {
        "mini-hotpotqa": [2],
        "mini-musique": [3, 4],
        "mini-cofca": [2, 3, 4],
        "mini-beerqa": [1, 2, 3],
        "mini-gsm8k": [2, 3, 4, 5, 6, 7, 8],
    }


@pytest.mark.parametrize("name", ["mini-hotpotqa", "mini-musique", "mini-beerqa"])
def test_questions_come_from_several_worlds_of_one_corpus(name: str, built: dict[str, Built]) -> None:
    subjects = [p.title for p in built[name].passages]
    assert len(subjects) == 3 * 196
    assert len({p.id for p in built[name].passages}) == len(subjects)
    world = {subject: position // 196 for position, subject in enumerate(subjects)}
    asked = [world[d.calls[0].split(" of ")[1]] for d in built[name].derivations]
    assert min(asked.count(number) for number in range(3)) >= 40


def test_evaluation_names_were_never_seen_in_training(built: dict[str, Built]) -> None:
    seen = {p.title for p in build("mini-hotpotqa", "train", 50, 3, 0.5, 0).passages}
    seen |= {name for kind in TYPES for name in names(kind, "pretrain")}
    for name in ("mini-hotpotqa", "mini-musique", "mini-beerqa"):
        assert not seen & {p.title for p in built[name].passages}


def test_changed_facts_contradict_memory(built: dict[str, Built]) -> None:
    before = memory_world(0)
    cofca = built["mini-cofca"]
    for question, memory in zip(cofca.questions, cofca.memory, strict=True):
        assert memory.question_id == question.id
        assert memory.results[-1] != question.answers[0]
        relation, subject = memory.calls[-1].split(" of ")
        assert before.facts[subject, relation] == memory.results[-1]
    texts = {p.text for p in before.passages()}
    assert sum(p.text not in texts for p in cofca.passages) == 98
    assert all(not other.memory for name, other in built.items() if name != "mini-cofca")


def test_a_changed_fact_keeps_its_type() -> None:
    world = make_world("train", 0.5, generator(0, "test"))
    after = change_facts(world, 1.0, generator(1, "test"))
    assert all(after.facts[key] not in (key[0], value) for key, value in world.facts.items())
    assert all(world.types[after.facts[key]] == world.types[value] for key, value in world.facts.items())
    assert change_facts(world, 0.0, generator(1, "test")).facts == world.facts


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_seed_decides(name: str, built: dict[str, Built]) -> None:
    again, other = (build(name, "evaluation", 200, 3, 0.5, seed) for seed in (0, 1))
    assert again == built[name]
    assert other.questions != again.questions
    assert len({q.text for q in other.questions} & {q.text for q in again.questions}) < 20


def test_a_split_is_as_large_as_it_was_asked_for_and_has_its_corpus() -> None:
    built = build("mini-beerqa", "development", 7, 1, 0.5, 0)
    assert [q.id for q in built.questions] == [f"mini-beerqa/development/{i}" for i in range(7)]
    assert len(built.passages) == 196
    assert build("mini-gsm8k", "train", 2, 3, 0.5, 0).passages == []


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(DataError, match="mini-beerqa, train: 5000 different questions are asked for, and only"):
        build("mini-beerqa", "train", 5000, 1, 0.5, 0)
    with pytest.raises(DataError, match="0 of the facts changed: 1 different questions are asked for, and only 0"):
        build("mini-cofca", "evaluation", 1, 1, 0.0, 0)
    with pytest.raises(DataError, match=r"the next world needs \d+ \w+ names, and split 'memory' has \d+ left of its"):
        build("mini-hotpotqa", "memory", 10, 9, 0.5, 0)


def test_a_chain_never_visits_an_entity_twice() -> None:
    world = make_world("train", 0.5, generator(0, "test"))
    rng = generator(1, "test")
    for _ in range(300):
        chain = world.draw_chain(4, rng)
        assert len({chain.start, *chain.values}) == 5
