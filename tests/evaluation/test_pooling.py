"""Pooling over seeds: a bootstrap whose answer is known, Holm's correction, and what is counted of what."""

from __future__ import annotations

import numpy as np
import pytest

from swirl.core.types import Action, Observation, Passage, Prediction, Step, Stop, Trajectory
from swirl.evaluation.pooling import Pooled, Tally, corrected, crossed, holm, interval, pool, tallies, two_sided


def shares(*rows: dict[str, float]) -> list[Tally]:
    """A tally a run, each question counted once."""
    return [{question: (value, 1.0) for question, value in row.items()} for row in rows]


def test_seeds_and_questions_are_drawn_crossed() -> None:
    """Of [[1, 0], [0, 1]] a draw is 0 (or 1) if one seed is drawn twice and one question twice: 1/8; else one half."""
    drawn, even = crossed(np.array([[[1.0, 0.0], [0.0, 1.0]]]), seed=0, draws=20_000)
    assert drawn.shape == even.shape == (20_000, 1)
    values, counts = np.unique(drawn[:, 0].round(9), return_counts=True)
    assert list(values) == [0.0, 0.5, 1.0]
    assert counts / 20_000 == pytest.approx([0.125, 0.75, 0.125], abs=0.01)
    assert (even == 0.5).all(), "both seeds together are right on one question of any two"


def test_one_seed_is_a_bootstrap_over_questions_and_one_question_one_over_seeds() -> None:
    """Of a coin and three values of 1, 0.25 and -0.5: (1/4, 1/2, 1/4)."""
    for values, together in (([[[1.0, -0.5]]], 3), ([[[1.0], [-0.5]]], 1)):
        drawn, even = crossed(np.array(values), seed=1, draws=20_000)
        found, counts = np.unique(drawn.round(9), return_counts=True)
        assert list(found) == [-0.5, 0.25, 1.0]
        assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.01)
        assert len(np.unique(even.round(9))) == together


def test_all_measures_are_drawn_alike_from_the_seed() -> None:
    values = np.random.default_rng(0).random((1, 3, 40))
    both, _ = crossed(np.concatenate([values, 1 - values]), seed=5, draws=700)
    assert both.sum(axis=1) == pytest.approx(np.ones(700))
    assert (both == crossed(np.concatenate([values, 1 - values]), seed=5, draws=700)[0]).all()
    assert (both[:, :1] != crossed(values, seed=6, draws=700)[0]).any()


def test_the_interval_of_few_seeds_is_as_wide_as_they_differ() -> None:
    """Three seeds at 0.30, 0.42 and 0.48 on one question: s^2 = 0.0084, so the mean has an error of sqrt(0.0084 / 3).

    A draw in 27 takes the lowest thrice: 0.40 + sqrt(3 / 2) (0.30 - 0.40).
    """
    runs = [{"a": share} for share in (0.30, 0.42, 0.48)]
    base = shares(*({"a": 0.0} for _ in runs))
    over = pool("gsm8k", "accuracy", True, {"base": base, "swirl": shares(*runs)}).over["swirl"]
    assert (over.value, over.low) == (pytest.approx(0.4), pytest.approx(0.4 - 1.5**0.5 * 0.1))
    assert over.high == pytest.approx(0.4 + 1.5**0.5 * 0.08)


def test_a_share_stays_one_where_seeds_act_unequally_often() -> None:
    """One seed searches twice a question and two hardly ever, each time in vain or not: no draw is beyond them all."""
    ids = [str(i) for i in range(60)]
    base: list[Tally] = [dict.fromkeys(ids, (1.0, 2.0))] * 3
    rare: Tally = dict.fromkeys(ids, (0.1, 0.2))
    swirl: list[Tally] = [dict.fromkeys(ids, (0.5, 2.0)), rare, rare]
    row = pool("hotpotqa", "new_support", True, {"base": base, "swirl": swirl})
    assert row.over["swirl"].value == pytest.approx(0.7 / 2.4 - 0.5)
    assert -0.5 < row.over["swirl"].low < row.over["swirl"].high < 0.1
    assert 0.2 < row.models["swirl"].low < row.models["swirl"].high < 0.6


def test_the_interval_is_of_the_percentiles_and_the_p_value_of_the_rarer_side() -> None:
    drawn = np.arange(-10.0, 990.0)  # 11 of 1,000 at or below zero
    assert interval(drawn) == (15.0, 964.0)
    assert two_sided(drawn, 99) == two_sided(-drawn, 99) == pytest.approx(2 * 12 / 1001)
    assert two_sided(np.zeros(100), 99) == 1.0
    assert two_sided(np.ones(999), 99) == pytest.approx(0.002)
    assert two_sided(np.ones(999), 3) == 0.25, "as many as McNemar's exact test of three to none"
    assert interval(np.array([0.25, np.nan, 0.25])) == (0.25, 0.25)
    assert two_sided(np.array([1e-12, -1e-12, 1.0, np.nan]), 99) == 1.0


@pytest.mark.parametrize(("differ", "p"), [(1, 1.0), (3, 0.25), (5, 0.0625)])
def test_few_questions_that_agree_are_not_sure(differ: int, p: float) -> None:
    """Two seeds; the models agree on one question more, and on all others each draw has the same sign."""
    asked = [f"q{number}" for number in range(differ + 1)]
    base, swirl = dict.fromkeys(asked, 0.0), {one: float(one != "q0") for one in asked}
    made = pool("b", "accuracy", True, {"base": shares(base, base), "swirl": shares(swirl, swirl)})
    assert made.over["swirl"].p == p


@pytest.mark.parametrize("times", [3.0, 4.0])
def test_questions_on_which_both_do_nothing_of_it_decide_nothing(times: float) -> None:
    """Of 12 questions, swirl's 3 or 4 searches find something on three, base's 3 nowhere."""
    asked = [f"q{number}" for number in range(12)]
    base = dict.fromkeys(asked, (0.0, 3.0))
    swirl = {one: (float(number < 3), times) for number, one in enumerate(asked)}
    assert pool("b", "new_support", True, {"base": [base], "swirl": [swirl]}).over["swirl"].p >= 0.25


def test_holm_is_that_of_r() -> None:
    """`p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")` gives 0.03 0.06 0.06 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.03]) == pytest.approx([0.04, 0.04])
    assert (holm([0.7, 0.6]), holm([0.2]), holm([])) == ([1.0, 1.0], [0.2], [])


def test_what_is_the_same_everywhere_has_no_width() -> None:
    base, better = {"a": 0.0, "b": 0.0, "c": 0.0}, {"a": 0.25, "b": 0.25, "c": 0.25}
    row = pool("hotpotqa", "accuracy", True, {"base": shares(base, base), "swirl": shares(better, better)})
    assert (row.n, row.models["base"].value, row.models["swirl"].value) == (3, 0.0, 0.25)
    over = row.over["swirl"]
    assert (over.value, over.low, over.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (over.p, over.p_holm) == (0.25, None), "of three questions"
    same = pool("hotpotqa", "accuracy", True, {"base": shares(base), "swirl": shares(base)}).over["swirl"]
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_seeds_that_disagree_widen_the_interval() -> None:
    """Two seeds at 0 and at 1 on each of 50 questions: three values with 1/4, 1/2 and 1/4; a share stays in [0, 1]."""
    ids = [str(i) for i in range(50)]
    none, every = dict.fromkeys(ids, 0.0), dict.fromkeys(ids, 1.0)
    row = pool("gsm8k", "accuracy", True, {"base": shares(none, none), "swirl": shares(none, every)})
    assert (row.models["swirl"].value, row.models["swirl"].low, row.models["swirl"].high) == pytest.approx((0.5, 0, 1))
    assert row.over["swirl"].p == pytest.approx(0.5, abs=0.03)
    alone = pool("gsm8k", "accuracy", True, {"base": shares(none), "swirl": shares(every)})
    assert alone.over["swirl"].p < 0.001


def test_a_share_of_actions_is_one_of_totals() -> None:
    """1 of 2 searches and 3 of 8: 4 of 10, not the mean of the shares; who never searches has none."""
    base: list[Tally] = [{"a": (1.0, 2.0), "b": (3.0, 8.0)}]
    never: list[Tally] = [{"a": (0.0, 0.0), "b": (0.0, 0.0)}]
    row = pool("hotpotqa", "new_support", True, {"base": base, "sft": never, "swirl": [{"a": (1, 1), "b": (0, 0)}]})
    assert row.models["base"].value == 0.4
    assert (row.models["base"].low, row.models["base"].high) == pytest.approx((0.375, 0.5))
    assert set(row.models) == {"base", "swirl"}
    assert row.models["swirl"].value == 1.0, "draws of question b alone have no search, and are left out"
    assert (row.models["swirl"].low, row.models["swirl"].high) == pytest.approx((1.0, 1.0))
    assert row.over["swirl"].value == pytest.approx(0.6)


def test_other_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="gsm8k, em: swirl was asked other questions than base"):
        pool("gsm8k", "em", True, {"base": shares({"a": 1.0}), "swirl": shares({"b": 1.0})})


def test_the_correction_is_over_trained_benchmarks_by_measure_and_model() -> None:
    def row(benchmark: str, measure: str, trained: bool, gain: float) -> Pooled:
        ids = [str(i) for i in range(10)]
        base, other = dict.fromkeys(ids, 0.0), {name: gain if name in "012" else 0.0 for name in ids}
        return pool(benchmark, measure, trained, {"base": shares(base), "swirl": shares(other)})

    rows = [row("hotpotqa", "accuracy", True, 1.0), row("gsm8k", "accuracy", True, 0.0)]
    rows += [row("musique", "accuracy", False, 1.0), row("hotpotqa", "f1", True, 1.0)]
    found = [one.over["swirl"] for one in corrected(rows)]
    p = rows[0].over["swirl"].p
    assert p == 0.25
    assert [one.p_holm for one in found] == [0.5, 1.0, None, rows[3].over["swirl"].p]
    assert [one.p for one in found] == [one.over["swirl"].p for one in rows]
    assert rows[0].over["swirl"].p_holm is None, "the rows themselves stay"


def test_what_is_counted() -> None:
    """Two samples of question a, one of them right; b ends without an answer and never searches."""

    def prediction(question: str, correct: bool, stop: Stop, overlap: float) -> Prediction:
        return Prediction(
            question, "hotpotqa", "base", True, "x", correct, 0.0, overlap, 0.0, 0.0, None, None, 2, 0, stop, "t"
        )

    def trajectory(question: str, *kinds: str) -> Trajectory:
        steps = tuple(
            Step(i, Action(kind, "", ""), (Observation("Ada was born.", False, kind, "q"),), (), (), ())
            for i, kind in enumerate(kinds)
        )
        return Trajectory("t", question, "hotpotqa", 0, "base", 0, (), steps, Stop.ANSWERED, "")

    predictions = [
        prediction("a", True, Stop.ANSWERED, 1.0),
        prediction("a", False, Stop.ANSWERED, 0.5),
        prediction("b", False, Stop.STEP_LIMIT, 0.0),
    ]
    trajectories = [trajectory("a", "search", "search", "malformed"), trajectory("a", "search"), trajectory("b", "cut")]
    pages = {"a": [Passage("p", "Ada", "Ada was born.")], "elsewhere": []}
    assert tallies(predictions, trajectories, pages) == {
        "accuracy": {"a": (0.5, 1.0), "b": (0.0, 1.0)},
        "em": {"a": (0.0, 1.0), "b": (0.0, 1.0)},
        "f1": {"a": (0.75, 1.0), "b": (0.0, 1.0)},
        "answered": {"a": (2, 2), "b": (0, 1)},
        "malformed": {"a": (1, 4), "b": (1, 1)},
        "new_support": {"a": (2, 3)},
    }
    assert "new_support" not in tallies(predictions, trajectories, {})
