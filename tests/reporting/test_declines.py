"""What got worse: by hand, of predictions and trajectories whose every step is written down here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.types import Prediction, Question, Stop
from swirl.reporting import text
from swirl.reporting.declines import Decline, Declines, found, note, sentence
from swirl.reporting.page import summary
from swirl.reporting.results import Results, load, to_json
from swirl.reporting.skills import outcomes
from tests.reporting.test_parts import page_of, results
from tests.reporting.test_skills import made

__all__ = ["results"]  # a fixture

N = 20
QUESTIONS = {
    f"one/{i:02}": Question(f"one/{i:02}", "one", "evaluation", "?", ("x",), 1 if i < N else 2, ())
    for i in range(2 * N)
}
"""Twenty questions of one hop, then twenty of two."""


def answered(model: str, right: set[int], with_tools: bool = True) -> list[Prediction]:
    """One answer a question, right for these numbers."""
    stop = Stop.ANSWERED
    return [
        Prediction(name, "one", model, with_tools, "x", i in right, 0.0, 0.0, 0.0, 0.0, None, None, 1, 0, stop, name)
        for i, name in enumerate(QUESTIONS)
    ]


FIRST, SECOND = set(range(N)), set(range(N, 2 * N))


def test_a_fall_among_questions_of_one_hop_is_found_though_all_together_rise() -> None:
    """One hop: 16 right before, of which 6 are lost; two hops: all 20 are gained. p = 2 / 2^6."""
    base, swirl = answered("base", set(range(16))), answered("swirl", set(range(10)) | SECOND)
    declines = found({"base": base, "swirl": swirl}, QUESTIONS, {})
    assert declines == Declines(3, (Decline("one", 1, "right answers", "count", 20, 0.8, 0.5, 0.03125),))
    assert sentence(declines) == "Worse than the base: 1-hop one, right answers, 80.0% to 50.0% (p = 0.031)."


@pytest.mark.parametrize(("lost", "said"), [(5, False), (6, True)])
def test_a_fall_within_chance_is_none(lost: int, said: bool) -> None:
    """Five lost and none gained: p = 2 / 2^5 = 0.0625; six: 0.03125. There is one number of hops, so one comparison."""
    asked = {name: dataclasses.replace(one, hops=2) for name, one in QUESTIONS.items()}
    base, swirl = answered("base", FIRST), answered("swirl", set(range(lost, N)))
    declines = found({"base": base, "swirl": swirl}, asked, {})
    assert (declines.compared, bool(declines.rows)) == (1, said)
    if not said:
        assert sentence(declines) == "Nothing got worse than the base beyond chance (p < 0.05), in 1 comparison."


def test_what_chance_alone_gives_is_not_rounded_to_none() -> None:
    assert "up to 0.25 such rows are expected by chance" in note(Declines(10, ()))


def test_without_tools_or_without_swirl_nothing_is_compared() -> None:
    base = answered("base", FIRST)
    bare = answered("swirl", set(), with_tools=False)
    for predictions in ({"base": base}, {"base": base, "swirl": bare}):
        declines = found(predictions, QUESTIONS, {})
        assert declines == Declines(0, ())
        assert sentence(declines) == ""


def test_a_skill_is_by_the_oracle_and_a_fault_is_worse_the_more_of_it_there_is() -> None:
    """On two hops every second query was good and is bad; the judge, who sees no change, is not asked."""
    names = [name for name, one in QUESTIONS.items() if one.hops == 2]
    base = [made(name, "search:a search:b answer:x", "+++", "+++") for name in names]
    swirl = [made(name, "search:a search:a answer:x", "+++", "+-+") for name in names]
    declines = found({}, QUESTIONS, outcomes({"base": base, "swirl": swirl}, QUESTIONS))
    p = 2 / 2**20
    assert declines.rows == (
        Decline("one", None, "later query", "oracle", 20, 1.0, 0.0, p),
        Decline("one", None, "repeated queries", "count", 20, 0.0, 0.5, p),
    )
    assert sentence(declines) == (
        "Worse than the base: one, later query by the oracle, 100.0% to 0.0% (p < 0.001); "
        "one, repeated queries, 0.0% to 50.0% (p < 0.001)."
    )
    fewer = found({}, QUESTIONS, outcomes({"base": swirl, "swirl": base}, QUESTIONS))
    assert fewer == Declines(declines.compared, ())


def test_a_rise_is_no_fall_though_more_questions_fell_than_rose() -> None:
    """17 questions fall from one good later query to nine of ten, three rise from a bad one to a good one."""
    asked = [f"one/{i:02}" for i in range(N)]
    many = " ".join(f"search:{letter}" for letter in "abcdefghijk") + " answer:x"
    two, of_ten = "search:a search:b answer:x", "+" * 10 + "-+"
    base = [made(name, two, *["+++" if name in asked[:17] else "+-+"] * 2) for name in asked]
    swirl = [
        made(name, many, of_ten, of_ten) if name in asked[:17] else made(name, two, "+++", "+++") for name in asked
    ]
    assert not found({}, QUESTIONS, outcomes({"base": base, "swirl": swirl}, QUESTIONS)).rows


def test_what_got_worse_is_kept_and_shown(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = Decline("mini-gsm8k", 1, "right answers", "count", 117, 0.8205, 0.6752, 0.0012)
    fell = dataclasses.replace(results, declines=Declines(122, (row, *[dataclasses.replace(row, hops=None)] * 3)))
    layout = Layout(tmp_path)
    save_json(to_json(fell), layout.results)
    assert load(layout.results).declines == fell.declines
    said = "Worse than the base: 1-hop mini-gsm8k, right answers, 82.0% to 67.5% (p = 0.0012); "
    assert summary(fell)[-1].startswith(said)
    assert summary(fell)[-1].endswith("; and 1 more.")
    page = page_of(fell)
    cells = "<td>67.5%</td><td>82.0%</td><td>0.0012</td><td>117</td>"
    assert f'<th scope="row">1-hop mini-gsm8k, right answers</th>{cells}' in page
    assert "of 122 combinations" in page and "up to 3.1 such rows are expected by chance" in note(fell.declines)
    text.show(layout)
    assert said.strip() in " ".join(capsys.readouterr().out.split())
    assert 'id="worse"' not in page_of(results) and "declines" not in to_json(results)
