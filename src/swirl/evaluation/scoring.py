"""From the trajectories of an evaluation to predictions and scores (the paper's tables)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from swirl.core.grading import exact_match, f1, grade, is_number
from swirl.core.types import (
    ActionKind,
    JudgeRole,
    Prediction,
    Question,
    Score,
    Stop,
    Trajectory,
    Verdict,
)
from swirl.evaluation.statistics import by_question, wilson


def predict(
    model: str,
    trajectories: Sequence[Trajectory],
    questions: Mapping[str, Question],
    oracles: Mapping[str, Callable[[Trajectory], Sequence[bool]]],
    verdicts: Sequence[Verdict],
    with_tools: bool,
    graded: Mapping[str, bool] = MappingProxyType({}),
) -> list[Prediction]:
    """One prediction per trajectory; its process labels are the shares of its steps that judge and oracle call GOOD.

    `oracles` label the steps of a trajectory, by question id. `verdicts` are the judge's, on all steps; those whose
    `good` is None do not count. `graded` maps trajectory id to a grader's decision on the answer; an answer without one
    is compared as text or number.
    """
    labels: dict[str, list[bool]] = {}
    for verdict in verdicts:
        if verdict.good is not None:
            labels.setdefault(verdict.trajectory_id, []).append(verdict.good)
    made = []
    for t in trajectories:
        oracle = oracles.get(t.question_id) if with_tools else None
        made.append(_prediction(model, t, questions[t.question_id], oracle, labels.get(t.id, []), with_tools))
    return [dataclasses.replace(row, correct=graded.get(row.trajectory_id, row.correct)) for row in made]


def _prediction(
    model: str,
    trajectory: Trajectory,
    question: Question,
    oracle: Callable[[Trajectory], Sequence[bool]] | None,
    judged: Sequence[bool],
    with_tools: bool,
) -> Prediction:
    answer, actions = trajectory.answer, [step.action for step in trajectory.steps]
    correct = grade(answer, question.answers)
    f1_score, precision, recall = f1(answer, question.answers)
    exact = exact_match(answer, question.answers)
    if _of_number(question):  # whose sign and point `normalize` would take away
        f1_score = precision = recall = float(correct)
        exact = correct
    return Prediction(
        question_id=question.id,
        benchmark=question.benchmark,
        model=model,
        with_tools=with_tools,
        answer=answer,
        correct=correct,
        em=float(trajectory.stop is Stop.ANSWERED and exact),
        f1=f1_score,
        precision=precision,
        recall=recall,
        process_label_judge=mean(judged),
        process_label_oracle=mean(oracle(trajectory)) if oracle else None,
        steps=len(actions),
        malformed=sum(action.kind == ActionKind.MALFORMED for action in actions),
        stop=trajectory.stop,
        trajectory_id=trajectory.id,
    )


def _of_number(question: Question) -> bool:
    """Whether the question asks for a number that is calculated, as GSM8K does: right or wrong, without overlap."""
    return "search" not in question.tools and all(is_number(answer) for answer in question.answers)


def mean(values: Sequence[float]) -> float | None:
    """The mean; None when there are no values."""
    return sum(values) / len(values) if values else None


def score(predictions: Sequence[Prediction], judge: str, judge_role: JudgeRole) -> Score:
    """One cell of the tables: one model on one benchmark, without the paired test (the report adds it).

    `judge` names who gave the predictions' `process_label_judge`.

    `n`, the accuracy (the mean over questions of the share of their samples that are right) and its interval are over
    questions; the other measures are means over trajectories, and the process labels macro-averaged: within each
    trajectory, then across trajectories (paper, Table 3).
    """
    first, right = predictions[0], by_question(predictions)
    n, correct = len(right), math.fsum(right.values())
    low, high = wilson(correct, n)

    def average(name: str) -> float:
        return float(sum(getattr(prediction, name) for prediction in predictions)) / len(predictions)

    def average_known(name: str) -> float | None:
        return mean([value for p in predictions if (value := getattr(p, name)) is not None])

    return Score(
        benchmark=first.benchmark,
        model=first.model,
        with_tools=first.with_tools,
        n=n,
        accuracy=correct / n,
        ci_low=low,
        ci_high=high,
        p_vs_base=None,
        em=average("em"),
        f1=average("f1"),
        precision=average("precision"),
        recall=average("recall"),
        process_label_judge=average_known("process_label_judge"),
        process_label_oracle=average_known("process_label_oracle"),
        steps=average("steps"),
        malformed=average("malformed"),
        judge=judge,
        judge_role=judge_role,
    )
