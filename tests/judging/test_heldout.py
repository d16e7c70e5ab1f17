"""Error rates of the reward model on held-out steps, counted by hand at several thresholds."""

from __future__ import annotations

import dataclasses
import math

import pytest

from swirl.core.types import HeldOutStep
from swirl.judging.heldout import auc, error_rates

STEPS = [
    HeldOutStep("search", "search", True, 0.9, -0.4),
    HeldOutStep("search", "search", True, 0.6, -0.1),
    HeldOutStep("search", "answer", False, 0.7, -0.3),
    HeldOutStep("calculate", "answer", True, 0.3, -0.2),
    HeldOutStep("calculate", "calculate", False, 0.2, -0.9),
    HeldOutStep("own", "lookup", False, 0.5, -0.5),
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


def test_a_step_that_is_cut_is_bad_even_from_a_threshold_of_0_on() -> None:
    rates = error_rates([*STEPS, HeldOutStep("search", "cut", False, 0.0, -0.6)], 0.0)
    assert (rates["heldout.accuracy"], rates["heldout.fpr"], rates["heldout.search.cut.accuracy"]) == (4 / 7, 3 / 4, 1)


def test_rows_are_tasks_and_what_is_done_in_them() -> None:
    rates = error_rates(STEPS[:4], 0.65)
    assert {key.rpartition(".")[0] for key in rates} == {
        "heldout", "heldout.search", "heldout.calculate", "heldout.search.search", "heldout.search.answer",
        "heldout.calculate.answer",
    }  # fmt: skip
    assert {key: value for key, value in rates.items() if key.startswith("heldout.search.search.")} == {
        "heldout.search.search.n": 2, "heldout.search.search.good": 1.0, "heldout.search.search.accuracy": 0.5,
        "heldout.search.search.tpr": 0.5, "heldout.search.search.fpr": 0.0, "heldout.search.search.auc": 0.5,
        "heldout.search.search.logprob_accuracy": 0.5, "heldout.search.search.logprob_auc": 0.5,
        "heldout.search.search.chance_accuracy": 0.5,
    }  # fmt: skip
    search = {key: rates[f"heldout.search.{key}"] for key in ("n", "accuracy", "tpr", "fpr")}
    assert search == {"n": 3, "accuracy": 1 / 3, "tpr": 0.5, "fpr": 1.0}


def test_beside_it_stand_the_policys_log_probability_and_chance() -> None:
    rates = error_rates(STEPS, 0.65)  # GOOD: the first and the third step; most probable: the second and the fourth
    assert rates["heldout.accuracy"] == 3 / 6
    assert rates["heldout.logprob_accuracy"] == 5 / 6
    assert rates["heldout.auc"] == 6 / 9  # over 0.7, 0.5, 0.2: 0.9 wins three, 0.6 two, 0.3 one
    assert rates["heldout.logprob_auc"] == 8 / 9  # -0.4 loses against -0.3 alone
    assert rates["heldout.chance_accuracy"] == pytest.approx(1 / 3 * 1 / 2 + 2 / 3 * 1 / 2)


def test_a_log_probability_that_is_not_known_counts_nowhere() -> None:
    """A chat server gives none."""
    unknown = [dataclasses.replace(step, logprob=math.nan) for step in STEPS[:2]]
    rates = error_rates([*unknown, *STEPS[2:]], 0.65)  # of the others, the third is GOOD, and the fourth most probable
    assert (rates["heldout.n"], rates["heldout.accuracy"]) == (6, 3 / 6)
    assert (rates["heldout.logprob_accuracy"], rates["heldout.logprob_auc"]) == (1.0, 1.0)
    assert not any("logprob" in name for name in error_rates(unknown, 0.65))
    assert not any(name.startswith("heldout.search.search.logprob") for name in rates)


def test_auc_counts_ties_half_and_says_one_half_without_a_pair() -> None:
    assert auc([0.5, 0.9], [0.5, 0.1]) == 3.5 / 4
    assert auc([0.5], []) == auc([], [0.5]) == 0.5


def test_without_steps_nothing_was_measured() -> None:
    assert error_rates([], 0.5) == {}
