"""Which skill improved: shares by hand, of trajectories whose every step is written down here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.types import Action, Observation, Question, Step, Stop, Trajectory, Verdict
from swirl.reporting import text
from swirl.reporting.labelled import Labelled
from swirl.reporting.results import Arm, Funnel, Results, load, to_json
from swirl.reporting.skills import By, Share, Skill, change, of, outcomes, sentence, shares
from tests.reporting.test_parts import page_of

SIGNS = {"+": True, "-": False, "?": None}


def made(question: str, steps: str, judge: str, oracle: str = "") -> Labelled:
    """A trajectory of `search:two_words`, `calculate:1+1`, `answer:x`; a sign (+ - ?) a step of judge and oracle."""
    written = [one.replace("_", " ").partition(":") for one in steps.split()]
    taken = tuple(
        Step(
            i,
            Action(kind, payload, payload),
            () if kind == "answer" else (Observation("", False, kind, payload),),
            (1,),
            (),
            (),
        )
        for i, (kind, _, payload) in enumerate(written)
    )
    stop = Stop.ANSWERED if written[-1][0] == "answer" else Stop.STEP_LIMIT
    one = Trajectory(f"{question}/0", question, question.partition("/")[0], 0, "m", 0, (1,), taken, stop, "")
    given = {i: Verdict(one.id, i, SIGNS[sign], None, "", "j") for i, sign in enumerate(judge)}
    return Labelled(one, None, given, tuple(sign == "+" for sign in oracle) or None)


QUESTIONS = {
    name: Question(name, name.partition("/")[0], "evaluation", "?", ("x",), hops, ())
    for name, hops in {"two/0": 2, "two/1": 2, "sum/0": 2, "open/0": 0}.items()
}
BASE = [
    made("two/0", "search:a answer:x", "++", "+-"),  # stops early; the judge does not see it
    made("two/1", "search:a search:b answer:x", "+++", "+-+"),
    made("sum/0", "calculate:1+1 answer:2", "+-", "+-"),
    made("open/0", "search:a malformed: answer:x", "+-+"),  # no oracle, hops unknown
]
SWIRL = [
    made("two/0", "search:a search:b answer:x", "+++", "+++"),
    made("two/1", "search:a_b search:b_a answer:y", "++-", "++-"),  # in time, but wrong
    made("sum/0", "calculate:1+1 calculate:2+2 answer:4", "+++", "+++"),
    made("open/0", "search:a answer:x", "?+"),
]


def share(benchmark: str, skill: Skill, by: By, base: tuple[int, int], swirl: tuple[int, int]) -> Share:
    """A row from (good ones, all) of both models."""
    parts = {"base": base, "swirl": swirl}
    n = {model: of_all for model, (_, of_all) in parts.items()}
    return Share(benchmark, skill, by, n, {model: good / of_all for model, (good, of_all) in parts.items() if of_all})


def test_every_action_counts_for_one_skill_by_judge_and_by_oracle() -> None:
    found = shares(outcomes({"base": BASE, "swirl": SWIRL}, QUESTIONS))
    assert [row for row in found if row.benchmark == ""] == [
        share("", Skill.FIRST_QUERY, By.JUDGE, (3, 3), (2, 2)),  # swirl: one has no verdict
        share("", Skill.FIRST_QUERY, By.ORACLE, (2, 2), (2, 2)),
        share("", Skill.LATER_QUERY, By.JUDGE, (1, 1), (2, 2)),
        share("", Skill.LATER_QUERY, By.ORACLE, (0, 1), (2, 2)),
        share("", Skill.CALCULATION, By.JUDGE, (1, 1), (2, 2)),
        share("", Skill.CALCULATION, By.ORACLE, (1, 1), (2, 2)),
        share("", Skill.WHEN_TO_ANSWER, By.JUDGE, (2, 3), (3, 3)),  # base: two/0 counts, being good itself
        share("", Skill.WHEN_TO_ANSWER, By.ORACLE, (0, 2), (3, 3)),  # base: two/1 had a bad call before
        share("", Skill.ANSWER, By.JUDGE, (2, 2), (2, 3)),
        share("", Skill.ANSWER, By.ORACLE, (0, 0), (2, 3)),
        share("", Skill.REPEATED_QUERY, By.COUNT, (0, 4), (1, 5)),
        share("", Skill.EARLY_STOP, By.COUNT, (2, 3), (0, 3)),
    ]
    assert [row.benchmark for row in found[12:]] == ["open"] * 2 + ["sum"] * 7 + ["two"] * 10


def test_a_query_with_the_words_of_an_earlier_one_is_a_repeated_one() -> None:
    one = made("two/0", "search:founder_of_Ada search:Ada_founder_of calculate:1 search:home", "++++")
    again = shares(outcomes({"base": [one]}, QUESTIONS))
    assert of(again, "", Skill.REPEATED_QUERY, By.COUNT) == Share(
        "", Skill.REPEATED_QUERY, By.COUNT, {"base": 3}, {"base": 1 / 3}
    )


def test_a_step_of_two_calls_is_one_step_and_two_calls() -> None:
    two = (Observation("", False, "search", "a"), Observation("", False, "search", "b"))
    steps = (
        Step(0, Action("search", "a b", "a"), two, (1,), (), ()),
        Step(1, Action("answer", "x", "x"), (), (1,), (), ()),
    )
    one = Trajectory("two/0/0", "two/0", "two", 0, "m", 0, (1,), steps, Stop.ANSWERED, "")
    found = shares(outcomes({"base": [Labelled(one, None, {}, (True, True))]}, QUESTIONS))
    assert {(row.skill, row.by): (row.n["base"], row.share["base"]) for row in found if not row.benchmark} == {
        (Skill.FIRST_QUERY, By.ORACLE): (1, 1.0),
        (Skill.WHEN_TO_ANSWER, By.ORACLE): (1, 1.0),
        (Skill.ANSWER, By.ORACLE): (1, 1.0),
        (Skill.REPEATED_QUERY, By.COUNT): (2, 0.0),
        (Skill.EARLY_STOP, By.COUNT): (1, 0.0),
    }


def test_a_tool_of_ones_own_is_another_call() -> None:
    found = shares(outcomes({"base": [made("two/0", "staff:Ada answer:x", "-+", "-+")]}, QUESTIONS))
    assert [(row.skill, row.by, row.share) for row in found if not row.benchmark] == [
        (Skill.OTHER_CALL, By.JUDGE, {"base": 0.0}),
        (Skill.OTHER_CALL, By.ORACLE, {"base": 0.0}),
        (Skill.EARLY_STOP, By.COUNT, {"base": 1.0}),
    ]


def test_what_improved_most_and_least_is_said() -> None:
    found = shares(outcomes({"base": BASE, "swirl": SWIRL}, QUESTIONS))
    assert change(of(found, "", Skill.LATER_QUERY, By.ORACLE)) == 1.0
    assert change(of(found, "", Skill.ANSWER, By.ORACLE)) is None
    assert sentence(found) == (
        "From base to SWiRL, by the oracle, later query (+100.0 points) improved most and calculation (+0.0 points) "
        "least."
    )
    assert sentence([row for row in found if row.by is By.JUDGE]) == (
        "From base to SWiRL, by the judge, when to answer (+33.3 points) improved most and the answer itself "
        "(-33.3 points) least."
    )
    fell = [
        share("", Skill.FIRST_QUERY, By.JUDGE, (9, 10), (8, 10)),
        share("", Skill.LATER_QUERY, By.JUDGE, (9, 10), (7, 10)),
    ]
    assert sentence(fell) == (
        "From base to SWiRL, by the judge, nothing improved: first query (-10.0 points) fell least and later query "
        "(-20.0 points) most."
    )
    assert sentence(()) == ""


@pytest.fixture
def results() -> Results:
    """Results of two models with the shares from above."""
    from tests.reporting.test_parts import score

    arm = Arm(1, 1, 1.0, {"two": 1})
    arms = dict.fromkeys(("none", "process", "outcome", "both"), arm)
    scores = tuple(score(model, 0.5, name) for name in ("open", "sum", "two") for model in ("base", "swirl"))
    return Results(
        scores, Funnel("none", 1, arms, arm), {}, {}, skills=shares(outcomes({"base": BASE, "swirl": SWIRL}, QUESTIONS))
    )


def test_the_shares_are_kept_and_shown(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    save_json(to_json(results), layout.results)
    assert load(layout.results).skills == results.skills
    assert json.loads(layout.results.read_text())["skills"][3] == {
        "benchmark": "", "skill": "later query", "by": "oracle", "n": {"base": 1, "swirl": 2},
        "share": {"base": 0.0, "swirl": 1.0},
    }  # fmt: skip
    text.show(layout)
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    at = lines.index("Which skill improved: good actions of each kind, %")
    assert lines[at + 2] == "kind of action judge: Base SWiRL oracle: Base SWiRL"
    assert lines[at + 4 : at + 9] == [
        "first query 100.0 100.0 100.0 100.0",
        "later query 100.0 100.0 0.0 100.0",
        "calculation 100.0 100.0 100.0 100.0",
        "when to answer 66.7 100.0 0.0 100.0",
        "the answer itself 100.0 66.7 – 66.7",
    ]
    at = lines.index("Counted without labels, %")
    assert lines[at + 2] == "fault Base SWiRL"
    assert lines[at + 4 : at + 6] == ["repeated queries 0.0 20.0", "early stops 66.7 0.0"]
    assert max(len(line) for line in printed.splitlines()) <= 100
    page = page_of(results)
    assert "later query (+100.0 points) improved most" in page
    assert page.partition('id="skills"')[2].partition("</section>")[0].count("<details>") == 3
    assert "later query</th><td>100.0%<small>of 2</small></td><td>100.0%<small>of 1</small></td>" in page
    assert "early stops</th><td>0.0%<small>of 3</small></td><td>66.7%<small>of 3</small></td>" in page


def test_without_stored_trajectories_there_is_no_table(results: Results, tmp_path: Path) -> None:
    import dataclasses

    bare = dataclasses.replace(results, skills=())
    assert "skills" not in to_json(bare)
    assert "Which skill improved" not in page_of(bare)
