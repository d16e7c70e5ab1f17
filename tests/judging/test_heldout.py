"""Error rates of the reward model on held-out steps, counted by hand at several thresholds."""

from __future__ import annotations

import pytest

from swirl.core.types import HeldOutStep
from swirl.judging.heldout import error_rates

STEPS = [
    HeldOutStep("search", True, 0.9),
    HeldOutStep("search", True, 0.6),
    HeldOutStep("search", False, 0.7),
    HeldOutStep("calculate", True, 0.3),
    HeldOutStep("calculate", False, 0.2),
    HeldOutStep("annotated", False, 0.5),
]


@pytest.mark.parametrize(
    ("threshold", "accuracy", "tpr", "fpr"),
    [(0.0, 3 / 6, 1.0, 1.0), (0.5, 3 / 6, 2 / 3, 2 / 3), (0.65, 3 / 6, 1 / 3, 1 / 3), (0.9, 4 / 6, 1 / 3, 0.0)],
)
def test_a_verdict_is_good_from_the_threshold_on(threshold: float, accuracy: float, tpr: float, fpr: float) -> None:
    rates = error_rates(STEPS, threshold)
    assert rates["heldout.threshold"] == threshold
    assert rates["heldout.n"] == 6
    assert (rates["heldout.accuracy"], rates["heldout.tpr"], rates["heldout.fpr"]) == (accuracy, tpr, fpr)


def test_rates_by_kind_of_task() -> None:
    assert error_rates(STEPS[:4], 0.65) == {
        "heldout.threshold": 0.65,
        "heldout.n": 4, "heldout.accuracy": 0.25, "heldout.tpr": 1 / 3, "heldout.fpr": 1.0,
        "heldout.search.n": 3, "heldout.search.accuracy": 1 / 3, "heldout.search.tpr": 0.5, "heldout.search.fpr": 1.0,
        "heldout.calculate.n": 1, "heldout.calculate.accuracy": 0.0, "heldout.calculate.tpr": 0.0,
        "heldout.calculate.fpr": 0.0,
    }  # fmt: skip


def test_without_steps_nothing_was_measured() -> None:
    assert error_rates([], 0.5) == {}
