"""Intervals and tests for accuracies measured on the same questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from swirl.core.seeds import derive, generator
from swirl.core.types import Prediction

Z95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution: a two-sided 95% interval."""
SIGNINGS = 10_000
"""Random ways to sign differences, of which `paired_p` is a share."""
_ROUNDING = 1e-9
"""A difference of shares below it is rounding."""


def by_question(predictions: Iterable[Prediction], measure: str = "correct") -> dict[str, float]:
    """Question id -> the share of its samples that are right, in the order of the first sample of each.

    With another `measure`, a numeric field of `Prediction` such as `f1`: its mean over the question's samples.
    """
    values: dict[str, list[float]] = {}
    for prediction in predictions:
        values.setdefault(prediction.question_id, []).append(getattr(prediction, measure))
    return {question: sum(samples) / len(samples) for question, samples in values.items()}


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion (Wilson 1927, JASA 22, p. 209).

    With p = successes / n: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). A success may be a fraction, such
    as the share of a question's samples that are right; n is the number of questions then. The interval is on the safe
    side in this case, since a share in [0, 1] with mean p never varies more than p(1-p).
    Raises `ValueError` unless 0 <= successes <= n, n >= 1 and z > 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, got successes={successes}, n={n}")
    if not (z > 0 and math.isfinite(z)):
        raise ValueError(f"wilson needs a finite z > 0, got {z}")
    p = successes / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def bootstrap(values: Sequence[float], seed: int, draws: int = 2000) -> tuple[float, float]:
    """95% interval (low, high) of the mean of `values`, one a question: the percentile bootstrap (Efron 1979).

    The bounds are the 2.5% and the 97.5% point of the means of `draws` samples of as many values, drawn with
    replacement from `seed`. Raises `ValueError` without values, and for fewer than 40 draws.
    """
    if not values or draws < 40:
        raise ValueError(f"bootstrap needs a value and 40 draws, got {len(values)} values and {draws} draws")
    rng, n = generator(seed, "bootstrap"), len(values)
    means = sorted(math.fsum(rng.choices(values, k=n)) / n for _ in range(draws))
    cut = draws // 40
    return means[cut], means[-1 - cut]


def mcnemar(a_only: int, b_only: int) -> float:
    """Exact two-sided McNemar test (McNemar 1947; the binomial form), as a p-value in [0, 1].

    Under the hypothesis that both models are equally good, each of the n = a_only + b_only questions that exactly
    one of them gets right is a fair coin flip: p = min(1, 2 sum_{i=0}^{min(a_only, b_only)} C(n, i) / 2^n).
    Integers until the last division, so exact for any n; 1.0 when n is 0. Raises `ValueError` on a negative count.
    """
    if a_only < 0 or b_only < 0:
        raise ValueError(f"mcnemar needs counts >= 0, got a_only={a_only}, b_only={b_only}")
    n = a_only + b_only
    term = tail = 1
    for i in range(min(a_only, b_only)):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def paired(base: Mapping[str, float], other: Mapping[str, float]) -> tuple[int, int]:
    """(questions that `base` got right more often, questions that `other` did), by question id.

    The values are as of `by_question`; with one sample a question: those that only one of the two got right. Raises
    `ValueError` naming an id that one side lacks: a paired test needs the same questions.
    """
    more = _differences(base, other)
    return sum(one < 0 for one in more), sum(one > 0 for one in more)


def paired_p(base: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The two-sided p-value of equal means over the same questions, whose values are as of `by_question`.

    A sign-flip (randomisation) test. Under the hypothesis each question's difference might as well have the other sign,
    so p is the share of all ways to sign them whose sum lies at least as far from zero (Fisher, The Design of
    Experiments, 1935, ch. 3). Where all differences are of one size, as with one sample a question, that is `mcnemar`,
    exactly; else it is taken over `SIGNINGS` random ones, as (k + 1) / (`SIGNINGS` + 1). Raises as `paired` does.
    """
    more = [one for one in _differences(base, other) if abs(one) > _ROUNDING]
    if not more:
        return 1.0
    if max(map(abs, more)) - min(map(abs, more)) <= _ROUNDING:
        return mcnemar(sum(one < 0 for one in more), sum(one > 0 for one in more))
    rounded = np.round(more, 9)
    sizes, often = np.unique(np.abs(rounded), return_counts=True)
    rng = np.random.default_rng(derive(0, "sign flips"))
    sums = (2 * rng.binomial(often, 0.5, (SIGNINGS, len(sizes))) - often) @ sizes
    far = abs(rounded.sum()) - _ROUNDING * len(more)
    return (int((np.abs(sums) >= far).sum()) + 1) / (SIGNINGS + 1)


def _differences(base: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """`other` less `base` by question; raises `ValueError` naming a question that one of them lacks."""
    for ours, theirs, side in ((base, other, "second"), (other, base, "first")):
        absent = sorted(ours.keys() - theirs.keys())
        if absent:
            raise ValueError(f"the {side} model has no result for {len(absent)} question(s), such as {absent[0]!r}")
    return [other[key] - base[key] for key in base]


def relative_gain(base: float, other: float) -> float | None:
    """(other - base) / base of two accuracies, 0.1 being 10%; None when the base got nothing right.

    Raises `ValueError` for an accuracy outside [0, 1].
    """
    for accuracy in (base, other):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"an accuracy lies in [0, 1], got {accuracy}")
    return None if base == 0 else (other - base) / base
