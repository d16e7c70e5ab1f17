"""Scores of a model in the states of logged conversations: each conversation counts once, whatever its length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swirl.core.errors import DataError
from swirl.core.seeds import derive
from swirl.core.types import ActionKind, JudgeRole, StateAction
from swirl.evaluation.statistics import bootstrap

MEASURES = ("reward", "same_tools", "same_calls", "malformed", "cut")
"""What is measured of every drawn action: what the judge gives it, whether it agrees with the logged one, its form."""


@dataclass(frozen=True, slots=True)
class StateMeasure:
    """One measure of a model over a benchmark's logged conversations, and how it differs from the base's."""

    benchmark: str
    model: str
    measure: str
    """One of `MEASURES`."""
    n: int
    """Conversations in which it is known."""
    mean: float
    """Of the conversations' means, in [0, 1]."""
    ci_low: float
    ci_high: float
    """95% interval of the mean: a bootstrap over conversations."""
    over_base: float | None
    """The mean difference to the base, over the conversations where it is known of both; None for the base itself."""
    over_base_low: float | None
    over_base_high: float | None
    """Its 95% interval: a paired bootstrap over conversations."""
    judge: str
    """Of `reward`: who gave it; empty for other measures."""
    judge_role: JudgeRole


def by_conversation(actions: Iterable[StateAction], measure: str) -> dict[str, float]:
    """Question id -> mean of the measure over its conversation's drawn actions; without those where it is not known."""
    values: dict[str, list[float]] = {}
    for action in actions:
        value = _value(action, measure)
        if value is not None and math.isfinite(value):
            values.setdefault(action.question_id, []).append(value)
    return {question: sum(some) / len(some) for question, some in values.items()}


def state_measures(actions: Mapping[str, Sequence[StateAction]]) -> list[StateMeasure]:
    """Every measure that is known, by benchmark and model; `actions` are by model.

    Raises `DataError` where two judges gave the rewards of a benchmark: they cannot be compared.
    """
    cells: dict[str, dict[str, list[StateAction]]] = {}
    for model, rows in actions.items():
        for row in rows:
            cells.setdefault(row.benchmark, {}).setdefault(model, []).append(row)
    found = []
    for benchmark, by_model in cells.items():
        _require_one_judge(benchmark, by_model)
        for measure in MEASURES:
            base = by_conversation(by_model.get("base", ()), measure)
            for model, rows in by_model.items():
                if values := by_conversation(rows, measure):
                    found.append(_measured(benchmark, model, measure, values, base, rows[0]))
    return found


def _require_one_judge(benchmark: str, by_model: Mapping[str, Sequence[StateAction]]) -> None:
    by: dict[str, tuple[str, JudgeRole]] = {}
    for model, rows in by_model.items():
        if known := [row for row in rows if _value(row, "reward") is not None]:
            by[model] = (known[0].judge, known[0].judge_role)
    for model, judge in by.items():
        first = next(iter(by))
        if judge != by[first]:
            raise DataError(
                f"rewards in the logged states of {benchmark}: the judge of {model} is {judge[0]!r} ({judge[1]}), "
                f"but that of {first} is {by[first][0]!r} ({by[first][1]}); run evaluate again for both, with one "
                "evaluate.judge"
            )


def _measured(
    benchmark: str, model: str, measure: str, values: Mapping[str, float], base: Mapping[str, float], one: StateAction
) -> StateMeasure:
    seed = derive(0, "logged states", benchmark, measure)  # the same conversations are drawn for every model
    over: tuple[float | None, float | None, float | None] = (None, None, None)
    shared = [question for question in base if question in values]
    if model != "base" and shared:
        more = [values[question] - base[question] for question in shared]
        over = (math.fsum(more) / len(more), *bootstrap(more, seed))
    low, high = bootstrap(list(values.values()), seed)
    judged = measure == "reward"
    mean = math.fsum(values.values()) / len(values)
    name, role = (one.judge, one.judge_role) if judged else ("", JudgeRole.NONE)
    return StateMeasure(benchmark, model, measure, len(values), mean, low, high, *over, name, role)


def _value(action: StateAction, measure: str) -> float | None:
    if measure in ("malformed", "cut"):
        return float(action.kind == {"malformed": ActionKind.MALFORMED, "cut": ActionKind.CUT}[measure])
    value: float | bool | None = getattr(action, measure)
    return None if value is None else float(value)
