"""judge: exactly one verdict for every step and every outcome."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import OUTCOME, HeldOutStep, Question, Stop, Trajectory, Verdict
from swirl.judging.calibrate import as_text
from swirl.judging.rationale import step_prompt
from swirl.judging.reward import RewardModel
from swirl.models.loading import load_chat
from swirl.stages import judge
from swirl.wiring.calibration import measure
from swirl.wiring.judges import load_reward_model
from swirl.wiring.verdict_blocks import outcome_verdict


def test_every_step_and_outcome_is_judged_once(project: Layout) -> None:
    trajectories, verdicts = load(Trajectory, project.trajectories), load(Verdict, project.verdicts)
    expected = [(t.id, step) for t in trajectories for step in (*range(len(t.steps)), OUTCOME)]
    assert sorted((v.trajectory_id, v.step) for v in verdicts) == sorted(expected)
    for verdict in verdicts:
        assert verdict.score is not None
        assert 0.0 <= verdict.score <= 1.0


def test_step_verdicts_are_the_reward_models(params: Params, project: Layout) -> None:
    trajectories, verdicts = load(Trajectory, project.trajectories), load(Verdict, project.verdicts)
    scores = load_reward_model(params, project).trajectory_scores(trajectories)
    expected = {(t.id, k): score for t, row in zip(trajectories, scores, strict=True) for k, score in enumerate(row)}
    found = {(v.trajectory_id, v.step): v for v in verdicts if v.step != OUTCOME}
    assert {key: v.score for key, v in found.items()} == pytest.approx(expected, abs=1e-5)
    assert {v.judge for v in found.values()} == {"reward"}
    clear = {key: v.good for key, v in found.items() if abs(expected[key] - 0.5) > 1e-5}
    assert clear == {key: expected[key] >= 0.5 for key in clear}


def test_the_judge_reads_no_more_than_it_was_made_for(params: Params, project: Layout) -> None:
    """Whatever `runtime.context` says of conversations, which the judge's question follows."""
    short = validate(laid_over(params.model_dump(), {"runtime": {"context": 300}}), "tests")
    for one in (params, short):
        judge = load_reward_model(one, project)
        assert isinstance(judge, RewardModel)
        assert judge.context == 512


def test_outcomes_are_graded_by_the_answers(params: Params, copy: Layout) -> None:
    """The tiny base answers 7: the outcome is GOOD where 7 is right, and BAD elsewhere or without an answer."""
    questions = load(Question, copy.questions)
    trajectories = load(Trajectory, copy.trajectories)
    answered = {t.question_id for t in trajectories if t.answer == "7"}
    lucky = set(sorted(answered)[:3])
    answers = {q.id: ("7",) if q.id in lucky else ("Oslo",) for q in questions}
    for trajectory in trajectories:
        verdict = outcome_verdict(trajectory, answers[trajectory.question_id])
        right = trajectory.question_id in lucky and trajectory.stop is Stop.ANSWERED and trajectory.answer == "7"
        assert (verdict.good, verdict.score, verdict.step) == (right, float(right), OUTCOME)
    assert len(lucky) == 3


def test_metrics_count_the_verdicts(project: Layout) -> None:
    verdicts = load(Verdict, project.verdicts)
    steps = [v for v in verdicts if v.step != OUTCOME]
    metrics = {name: value for name, value in load_json(project.metrics("judge")).items() if "heldout" not in name}
    assert set(metrics) == {"steps", "steps_good", "steps_null", "outcomes", "outcomes_good", "outcomes_null"}
    assert metrics["steps"] == len(steps) > 100
    assert metrics["outcomes"] == len(verdicts) - len(steps) == 72
    assert metrics["steps_good"] == pytest.approx(sum(v.good is True for v in steps) / len(steps))
    assert (metrics["steps_null"], metrics["outcomes_null"]) == (0.0, 0.0)


def test_errors_are_counted_at_the_threshold_of_the_verdicts(params: Params, project: Layout, copy: Layout) -> None:
    """Between the scores of the held-out steps, so that 0.5 would count other verdicts."""
    steps = load(HeldOutStep, project.heldout)
    threshold = sorted(step.score for step in steps)[len(steps) // 3]
    assert threshold != 0.5
    judge.run(validate(laid_over(params.model_dump(), {"judge": {"threshold": threshold}}), "tests"), copy)
    found, at_half = load_json(copy.metrics("judge")), load_json(project.metrics("judge"))
    bad = [step for step in steps if not step.good]
    assert found["heldout.threshold"] == threshold
    assert found["heldout.n"] == len(steps)
    assert found["heldout.accuracy"] == sum((step.score >= threshold) == step.good for step in steps) / len(steps)
    assert found["heldout.fpr"] == sum(step.score >= threshold for step in bad) / len(bad)
    assert at_half["heldout.threshold"] == 0.5
    assert at_half["heldout.fpr"] != found["heldout.fpr"]


def test_a_journal_that_is_complete_is_finished(project: Layout) -> None:
    assert [path.suffix for path in (project.root / ".swirl/journals/judge").iterdir()] == [".finished"]


def labelled(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_judge_of_one_token_that_is_calibrated_by_its_own_scores_never_errs(params: Params, copy: Layout) -> None:
    """Steps whose text encodes to their tokens, labelled GOOD if the stage's score is above the median."""
    chat, questions = load_chat(copy.model("reward")), {q.id: q for q in load(Question, copy.questions)}
    scores = {(v.trajectory_id, v.step): v.score for v in load(Verdict, copy.verdicts)}
    rows = []
    for t in load(Trajectory, copy.trajectories):
        whole = all(chat.reply(step.action.text) == step.token_ids for step in t.steps)
        for k, step in enumerate(t.steps if whole else ()):
            question = questions[t.question_id]
            row = {"question": question.text, "task": question.task, "action": step.action.text}
            row["conversation"] = step_prompt("{conversation}", "", t, k) if k else ""
            rows.append((scores[t.id, k] or 0.0, row))
    middle = median(score for score, _ in rows)
    far = [(score, row) for score, row in rows if abs(score - middle) > 1e-5]
    labels = [{**row, "label": "GOOD" if score > middle else "BAD"} for score, row in far]
    shutil.rmtree(copy.model("base"))
    at_middle = validate(laid_over(params.model_dump(), {"judge": {"threshold": middle}}), "tests")
    rates = measure(labelled(copy.root / "labels.jsonl", *labels), False, at_middle, copy)
    assert (rates.n, rates.nulls, rates.accuracy.value) == (len(labels), 0, 1.0)
    said = f"{len(labels)} rows, 0 without a verdict; GOOD where P(GOOD) is at least {middle:g} (judge.threshold)"
    assert as_text(rates).splitlines()[0] == said
    assert min(rates.fpr.of, rates.fnr.of) > 20


STEP = {"question": "where", "conversation": "", "action": "<answer> 7 </answer>", "label": "GOOD"}


@pytest.mark.parametrize(
    ("row", "said"), [(STEP, "task is missing"), ({**STEP, "task": "staff"}, "task = 'staff'")], ids=["none", "other"]
)
def test_a_labelled_step_of_no_task_is_named(
    row: dict[str, Any], said: str, params: Params, project: Layout, tmp_path: Path
) -> None:
    path = labelled(tmp_path / "labels.jsonl", {**STEP, "task": "search"}, row)
    expected = f"{path}, line 2: {said}; the judge reads the question in the prompt of its task, which is one of the "
    with pytest.raises(DataError, match=re.escape(f"{expected}tasks of params.yaml: search, calculate")):
        measure(path, False, params, project)


def test_where_nobody_grades_by_reading_there_is_no_grader_to_calibrate(params: Params, project: Layout) -> None:
    with pytest.raises(SwirlError, match="judge.outcome is match: nobody grades by reading"):
        measure(project.root / "none.jsonl", True, params, project)
