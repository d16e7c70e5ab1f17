"""judge: a verdict for every step and every outcome, once."""

from __future__ import annotations

import pytest

from swirl.judges import load_reward_model
from swirl.layout import Layout
from swirl.params import Params
from swirl.records import load, load_json
from swirl.stages import judge
from swirl.types import OUTCOME, Question, Stop, Trajectory, Verdict


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


def test_outcomes_are_graded_by_the_answers(params: Params, copy: Layout) -> None:
    """The tiny base answers 7: where 7 is right the outcome is GOOD, elsewhere and without an answer BAD."""
    questions = load(Question, copy.questions)
    trajectories = load(Trajectory, copy.trajectories)
    answered = {t.question_id for t in trajectories if t.answer == "7"}
    lucky = set(sorted(answered)[:3])
    answers = {q.id: ("7",) if q.id in lucky else ("Oslo",) for q in questions}
    for trajectory in trajectories:
        verdict = judge.outcome_verdict(trajectory, answers[trajectory.question_id])
        right = trajectory.question_id in lucky and trajectory.stop is Stop.ANSWERED and trajectory.answer == "7"
        assert (verdict.good, verdict.score, verdict.step) == (right, float(right), OUTCOME)
    assert len(lucky) == 3


def test_metrics_count_the_verdicts(project: Layout) -> None:
    verdicts = load(Verdict, project.verdicts)
    steps = [v for v in verdicts if v.step != OUTCOME]
    metrics = load_json(project.metrics("judge"))
    assert set(metrics) == {"steps", "steps_good", "steps_null", "outcomes", "outcomes_good", "outcomes_null"}
    assert metrics["steps"] == len(steps) > 100
    assert metrics["outcomes"] == len(verdicts) - len(steps) == 72
    assert metrics["steps_good"] == pytest.approx(sum(v.good is True for v in steps) / len(steps))
    assert (metrics["steps_null"], metrics["outcomes_null"]) == (0.0, 0.0)


def test_a_journal_that_is_complete_is_cleared(params: Params, project: Layout) -> None:
    assert not (project.root / ".swirl/journals/judge").exists()
