"""Statistics against published values, and against values worked out by hand for small counts."""

from __future__ import annotations

import random

import pytest

from swirl.evaluation.statistics import bootstrap, mcnemar, paired, paired_p, relative_gain, wilson

# Newcombe 1998 (Statistics in Medicine 17, p. 857), table I, method 3: the score interval without correction.
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("successes", "n", "low", "high"), NEWCOMBE)
def test_wilson_is_newcombes_method_3(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_is_symmetric_and_ends_exactly_at_the_ends() -> None:
    assert wilson(20, 20) == (pytest.approx(1 - 0.16113, abs=5e-5), 1.0)
    assert wilson(0, 20)[0] == 0.0
    low, high = wilson(5, 10)
    assert low + high == pytest.approx(1.0)


def test_wilson_narrows_with_z() -> None:
    # z = 1: p = .5, n = 4: centre .5, half-width sqrt(1/16 + 1/64) / 1.25 = sqrt(5)/10
    assert wilson(2, 4, z=1.0) == (pytest.approx(0.5 - 0.2236068), pytest.approx(0.5 + 0.2236068))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5), (1, -1)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes}, n={n}"):
        wilson(successes, n)


@pytest.mark.parametrize("z", [0.0, -1.0, float("nan"), float("inf")])
def test_wilson_refuses_a_useless_z(z: float) -> None:
    with pytest.raises(ValueError, match="z > 0"):
        wilson(1, 2, z)


@pytest.mark.parametrize(
    ("a_only", "b_only", "p"),
    [
        (9, 2, 0.06543),  # the example of R's exact2x2 package: 2 (1 + 11 + 55) / 2^11
        (0, 5, 0.0625),  # 2 / 2^5
        (1, 9, 0.021484375),  # 2 (1 + 10) / 2^10
        (0, 1, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_exact_binomial(a_only: int, b_only: int, p: float) -> None:
    assert mcnemar(a_only, b_only) == pytest.approx(p, abs=5e-6)
    assert mcnemar(b_only, a_only) == mcnemar(a_only, b_only)


def test_mcnemar_keeps_its_digits_far_out_and_for_many_questions() -> None:
    assert mcnemar(0, 100) == 2.0**-99
    assert mcnemar(5000, 5000) == 1.0
    assert mcnemar(4900, 5100) == pytest.approx(0.0466, abs=5e-4)  # normal approximation: z = 199 / 100
    assert mcnemar(0, 5000) == 0.0


@pytest.mark.parametrize(("a_only", "b_only"), [(-1, 0), (0, -1)])
def test_mcnemar_refuses_negative_counts(a_only: int, b_only: int) -> None:
    with pytest.raises(ValueError, match=f"a_only={a_only}, b_only={b_only}"):
        mcnemar(a_only, b_only)


def test_paired_counts_who_alone_is_right() -> None:
    base = {"a": True, "b": True, "c": False, "d": False, "e": True}
    other = {"e": False, "d": False, "c": True, "b": True, "a": False}
    assert paired(base, other) == (2, 1)


def test_paired_counts_who_is_right_more_often() -> None:
    base = {"a": 0.4, "b": 1.0, "c": 0.0, "d": 0.6, "e": 0.2}
    other = {"a": 0.6, "b": 0.8, "c": 0.0, "d": 1.0, "e": 0.8}
    assert paired(base, other) == (1, 3)


def test_paired_p_is_mcnemars_where_all_differences_are_of_one_size() -> None:
    base = {f"q{i}": float(i < 9) for i in range(20)}
    other = {f"q{i}": float(7 <= i < 18) for i in range(20)}  # 7 lost, 9 gained
    assert paired_p(base, other) == paired_p(other, base) == mcnemar(7, 9)
    halves = {name: value / 2 for name, value in base.items()}, {name: value / 2 for name, value in other.items()}
    assert paired_p(*halves) == mcnemar(7, 9)
    assert paired_p(base, base) == paired_p(halves[0], halves[0]) == 1.0


def test_paired_p_weighs_how_much_more_often_a_model_is_right() -> None:
    """Of the 16 ways to sign 3, 1, 1 and 1 quarters, 14 lie as far from zero as +3 -1 -1 +1: all but +3 -1 -1 -1 and
    its mirror image."""
    base = {"a": 0.0, "b": 0.25, "c": 0.25, "d": 0.0}
    other = {"a": 0.75, "b": 0.0, "c": 0.0, "d": 0.25}
    assert paired_p(base, other) == pytest.approx(14 / 16, abs=0.02)
    assert paired_p(base, other) == paired_p(base, other) == paired_p(other, base)
    assert paired_p({"a": 0.0, "b": 0.5}, {"a": 1.0, "b": 0.75}) == pytest.approx(0.5, abs=0.02)


def test_paired_p_is_no_surer_where_one_model_was_asked_more_often() -> None:
    """Both are right with probability 0.2 everywhere, one asked once and one four times: p < .05 is 1 in 20."""
    rng, found = random.Random(0), 0
    for _ in range(60):
        once = {f"q{i}": float(rng.random() < 0.2) for i in range(200)}
        four = {f"q{i}": sum(rng.random() < 0.2 for _ in range(4)) / 4 for i in range(200)}
        found += paired_p(once, four) < 0.05
    assert found <= 9, "the sign test of the two says so in nearly all of them"


def test_paired_needs_the_same_questions() -> None:
    with pytest.raises(ValueError, match="second model has no result for 1 question.*'b'"):
        paired({"a": True, "b": True}, {"a": True})
    with pytest.raises(ValueError, match="first model has no result for 2 question.*'b'"):
        paired({"a": True}, {"a": True, "c": False, "b": False})


def test_relative_gain_of_the_papers_table_2() -> None:
    gain = relative_gain(0.65, 0.79)
    assert gain == pytest.approx(0.2154, abs=5e-5)  # the 21.5% of the paper's headline
    assert relative_gain(0.5, 0.4) == pytest.approx(-0.2)
    assert relative_gain(0.0, 0.3) is None


@pytest.mark.parametrize(("base", "other"), [(-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_relative_gain_refuses_what_is_no_accuracy(base: float, other: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        relative_gain(base, other)


def test_bootstrap_holds_what_can_be_worked_out() -> None:
    """Of equal values there is one mean; of a fair coin the mean of 100 lies within 1.96 * 0.05 of one half."""
    assert bootstrap([0.25] * 7, seed=3) == (0.25, 0.25)
    low, high = bootstrap([0.0, 1.0] * 50, seed=0, draws=20_000)
    assert (low, high) == (pytest.approx(0.402, abs=0.011), pytest.approx(0.598, abs=0.011))
    assert bootstrap([0.0, 1.0] * 50, seed=0, draws=20_000) == (low, high)
    many = [i * i / 10_000 for i in range(100)]
    assert bootstrap(many, seed=0) != bootstrap(many, seed=1)


@pytest.mark.parametrize(("values", "draws"), [([], 2000), ([1.0], 39)])
def test_bootstrap_refuses_what_has_no_interval(values: list[float], draws: int) -> None:
    with pytest.raises(ValueError, match=f"got {len(values)} values and {draws} draws"):
        bootstrap(values, 0, draws)
