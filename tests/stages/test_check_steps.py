"""The gate on steps: each violation, put into otherwise sound files, stops it with a message that says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swirl.config.params import Params, load
from swirl.config.trajectories import CheckSteps
from swirl.core.errors import DataError, GateError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save
from swirl.core.types import (
    OUTCOME,
    Action,
    Question,
    Step,
    Stop,
    SubTrajectory,
    Trajectory,
    Verdict,
)
from swirl.stages import check_steps

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
LIMITS = CheckSteps(max_null_rate=0.3, min_good_share=0.25, max_good_share=0.75, min_rows=3)


def params(**limits: float) -> Params:
    return PARAMS.model_copy(update={"check_steps": LIMITS.model_copy(update=limits)})


def attempt(identifier: str, question: str) -> Trajectory:
    steps = (
        Step(0, Action("search", "", ""), (), (11, 12), (-0.5, -0.5), (13,)),
        Step(1, Action("answer", "", ""), (), (14,), (-0.5,), ()),
    )
    return Trajectory(identifier, question, "mini-hotpotqa", 0, "base", 1, (1, 2, 3), steps, Stop.ANSWERED, "")


def kept(trajectory: str, step: int, score: float | None) -> SubTrajectory:
    state = (1, 2, 3) if step == 0 else (1, 2, 3, 11, 12, 13)
    return SubTrajectory(trajectory, "q-0", "mini-hotpotqa", step, state, (11, 12) if step == 0 else (14,), score)


def verdict(trajectory: str, step: int, score: float | None) -> Verdict:
    return Verdict(trajectory, step, None if score is None else score >= 0.5, score, "", "reward")


QUESTIONS = [
    Question("q-0", "mini-hotpotqa", "train", "Where?", ("Oslo",), 1, ("search",)),
    Question("q-1", "mini-hotpotqa", "evaluation", "Where now?", ("Oslo",), 1, ("search",)),
]
TRAJECTORIES = [attempt("t-0", "q-0"), attempt("t-1", "q-0")]
STEPS = [kept("t-0", 0, 0.5), kept("t-0", 1, 0.25), kept("t-1", 0, None), kept("t-1", 1, 1.0)]
VERDICTS = [verdict(row.trajectory_id, row.step, row.score) for row in STEPS] + [verdict("t-0", OUTCOME, 0.0)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    save(QUESTIONS, Question, layout.questions)
    save(TRAJECTORIES, Trajectory, layout.trajectories)
    save(VERDICTS, Verdict, layout.verdicts)
    save(STEPS, SubTrajectory, layout.steps)
    return layout


def stopped(layout: Layout, **limits: float) -> str:
    """The message with which the gate stops."""
    with pytest.raises(GateError) as caught:
        check_steps.run(params(**limits), layout)
    assert not layout.quality("steps").exists()
    return str(caught.value)


def test_sound_files_pass_and_the_report_holds_their_rates(layout: Layout) -> None:
    check_steps.run(params(), layout)
    report = load_json(layout.quality("steps"))
    assert report["success"] is True
    assert report["rows"] == {"steps": 4, "verdicts": 5, "trajectories": 2, "tokens": 4, "questions": 2}
    assert report["statistics"] == {
        "steps/mini-hotpotqa": 4.0,
        "null_rate/steps": 0.25,
        "null_rate/verdicts": 0.2,
        "good_share": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (3, {"trajectory_id": "t-0"}, "expect_compound_columns_to_be_unique on steps.trajectory_id, step: 2 of 4 rows "
         "violate that no step is kept twice: row 1, trajectory_id t-0, step 2; row 3"),
        (3, {"trajectory_id": None}, "expect_column_values_to_not_be_null on steps.trajectory_id: 1 of 4 rows violate "
         "that trajectory_id is never null: row 3, trajectory_id None, step 2"),
        (3, {"step": None}, "steps.step: 1 of 4 rows violate that step is never null: row 3, trajectory_id t-1"),
        (3, {"action_ids": (14, None)}, "steps.action_ids: 1 of 4 rows violate that action_ids is never null: row 3"),
        (3, {"trajectory_id": "t-9"}, "steps.state_ids_problem: 1 of 4 rows violate that a state has exactly its "
         "trajectory's tokens up to the step: row 3, trajectory_id t-9, step 2, value trajectory t-9 has no step 2"),
        (3, {"step": 2}, "row 3, trajectory_id t-1, step 3, value trajectory t-1 has no step 3"),
        (3, {"step": -1}, "row 3, trajectory_id t-1, step -1, value trajectory t-1 has no step of the number -1"),
        (3, {"state_ids": (1, 2, 3, 11, 99, 13)}, "row 3, trajectory_id t-1, step 2, value token 4 is 99, the "
         "trajectory has 12"),
        (3, {"state_ids": (1, 2, 3)}, "row 3, trajectory_id t-1, step 2, value 3 tokens, the trajectory has 6"),
        (3, {"action_ids": (15,)}, "steps.action_ids_problem: 1 of 4 rows violate that an action has exactly its "
         "trajectory's tokens of the step: row 3, trajectory_id t-1, step 2, value token 0 is 15, the trajectory has "
         "14"),
        (3, {"question_id": "q-1"}, "steps.question_id_problem: 1 of 4 rows violate that every step is of its "
         "trajectory's question, from the train split: row 3, trajectory_id t-1, step 2, value q-1, but its "
         "trajectory tries q-0"),
        (3, {"score": 1.5}, "steps.score: 1 of 3 rows violate that a score lies in [0, 1]: row 3, trajectory_id t-1, "
         "step 2, value 1.5"),
        (3, {"score": None}, "steps.score: 2 of 4 rows violate that at most 30.0% of the scores are null: row 2, "
         "trajectory_id t-1, step 1, value None; row 3, trajectory_id t-1, step 2, value None"),
    ],
)  # fmt: skip
def test_a_broken_step_stops_the_gate(layout: Layout, row: int, change: dict[str, Any], message: str) -> None:
    steps = list(STEPS)
    steps[row] = replace(steps[row], **change)
    save(steps, SubTrajectory, layout.steps)
    assert message in stopped(layout)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (4, {"step": 0}, "expect_compound_columns_to_be_unique on verdicts.trajectory_id, step: 2 of 5 rows violate "
         "that no step and no outcome is judged twice: row 0, trajectory_id t-0, step 1"),
        (4, {"trajectory_id": None}, "verdicts.trajectory_id: 1 of 5 rows violate that trajectory_id is never null"),
        (4, {"step": 2}, "verdicts.step_problem: 1 of 5 rows violate that every verdict is about a step, or the "
         "outcome, of a trajectory: row 4, trajectory_id t-0, step 3, value t-0 has no step 3"),
        (4, {"trajectory_id": "t-9"}, "row 4, trajectory_id t-9, the outcome, value there is no trajectory t-9"),
        (4, {"score": None}, "verdicts.good_problem: 1 of 5 rows violate that a verdict and its score are given or "
         "missing together: row 4, trajectory_id t-0, the outcome"),
        (4, {"score": -0.5}, "verdicts.score: 1 of 4 rows violate that a score lies in [0, 1]: row 4, trajectory_id "
         "t-0, the outcome, value -0.5"),
        (4, {"score": None, "good": None}, "verdicts.score: 2 of 5 rows violate that at most 30.0% of the scores are "
         "null: row 2, trajectory_id t-1, step 1"),
    ],
)  # fmt: skip
def test_a_broken_verdict_stops_the_gate(layout: Layout, row: int, change: dict[str, Any], message: str) -> None:
    verdicts = list(VERDICTS)
    verdicts[row] = replace(verdicts[row], **change)
    save(verdicts, Verdict, layout.verdicts)
    assert message in stopped(layout)


def test_a_trajectory_of_an_evaluation_question_stops_the_gate(layout: Layout) -> None:
    save([attempt("t-0", "q-0"), attempt("t-1", "q-1")], Trajectory, layout.trajectories)
    save([*STEPS[:2], *(replace(row, question_id="q-1") for row in STEPS[2:])], SubTrajectory, layout.steps)
    message = stopped(layout)
    assert "steps.question_id_problem: 2 of 4 rows" in message
    assert "row 2, trajectory_id t-1, step 1, value q-1 is of the evaluation split" in message


def test_too_few_steps_stop_the_gate(layout: Layout) -> None:
    assert (
        "expect_table_row_count_to_be_between on steps: observed 4, but there are at least 5 steps to train on"
    ) in stopped(layout, min_rows=5)


def test_a_benchmark_that_the_filter_emptied_stops_the_gate(layout: Layout) -> None:
    other = replace(attempt("t-2", "q-0"), benchmark="mini-gsm8k")
    save([*TRAJECTORIES, other], Trajectory, layout.trajectories)
    assert ("mix.rows: 1 of 2 rows violate that every benchmark keeps steps: benchmark mini-gsm8k, value 0") in stopped(
        layout
    )


def test_unbalanced_verdicts_stop_the_gate(layout: Layout) -> None:
    save([*VERDICTS[:1], replace(VERDICTS[1], good=True), *VERDICTS[2:]], Verdict, layout.verdicts)
    assert (
        "expect_column_mean_to_be_between on verdicts.good_step: observed 1.0, but between 25.0% and 75.0% of the "
        "judged steps are good"
    ) in stopped(layout)


def test_a_judge_that_never_answers_stops_the_gate(layout: Layout) -> None:
    save([verdict("t-0", 0, None), verdict("t-0", 1, None)], Verdict, layout.verdicts)
    message = stopped(layout)
    assert "verdicts.score: 2 of 2 rows violate that at most 30.0% of the scores are null" in message
    assert "verdicts.good_step: observed None" in message


def test_a_filter_may_keep_good_steps_only(layout: Layout) -> None:
    save([STEPS[0], STEPS[3], replace(STEPS[1], score=0.75)], SubTrajectory, layout.steps)
    check_steps.run(params(), layout)
    assert load_json(layout.quality("steps"))["rows"]["steps"] == 3


def test_a_corrupted_file_is_named(layout: Layout) -> None:
    layout.steps.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"steps\.parquet is not a readable Parquet file"):
        check_steps.run(params(), layout)
