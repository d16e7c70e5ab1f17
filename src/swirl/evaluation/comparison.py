"""Models side by side on the same questions: shares with their intervals, and a paired test against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swirl.core.types import Prediction, Stop, Trajectory
from swirl.evaluation.statistics import bootstrap, by_question, paired_p, wilson


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions in [0, 1], and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One model's results on some questions."""

    model: str
    accuracy: Estimate
    """Mean over questions of the share of their samples that are right; Wilson's interval."""
    em: Estimate
    """The same of exact matches."""
    f1: Estimate
    """Mean word overlap; a bootstrap's interval over questions."""
    answered: float
    """Share of the trajectories that end with an answer."""
    malformed: float
    """Share of the actions that do nothing: malformed or cut."""
    p_vs_first: float | None
    """Of `paired_p` of accuracy against the first model: with one sample a question, McNemar's; None for the first."""


def compare(
    model: str,
    predictions: Sequence[Prediction],
    trajectories: Sequence[Trajectory],
    first: Mapping[str, float] | None,
    seed: int,
) -> Compared:
    """The results of a model, from its predictions and the trajectories behind them.

    `first` is the first model's `by_question`, None for the first itself; `seed` is the bootstrap's. Raises
    `ValueError` when the first model was asked other questions.
    """
    right, overlap = by_question(predictions), list(by_question(predictions, "f1").values())
    actions = [step.action for trajectory in trajectories for step in trajectory.steps]
    return Compared(
        model=model,
        accuracy=_share(list(right.values())),
        em=_share(list(by_question(predictions, "em").values())),
        f1=Estimate(sum(overlap) / len(overlap), *bootstrap(overlap, seed)),
        answered=sum(trajectory.stop is Stop.ANSWERED for trajectory in trajectories) / len(trajectories),
        malformed=sum(action.faulty for action in actions) / max(1, len(actions)),
        p_vs_first=None if first is None else paired_p(first, right),
    )


def _share(values: Sequence[float]) -> Estimate:
    total, n = sum(values), len(values)
    return Estimate(total / n, *wilson(min(total, n), n))
