"""Intervals and tests for accuracies measured on the same questions. Plain arithmetic, no dependency."""

from __future__ import annotations

import math
from collections.abc import Mapping

Z95 = 1.959963984540054
"""The 97.5% point of the standard normal distribution: a two-sided 95% interval."""


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a proportion (Wilson 1927, JASA 22, p. 209).

    With p = successes / n: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
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


def paired(base: Mapping[str, bool], other: Mapping[str, bool]) -> tuple[int, int]:
    """(questions that only `base` got right, questions that only `other` got right), by question id.

    Raises `ValueError` naming an id that one side lacks: a paired test needs the same questions.
    """
    for ours, theirs, side in ((base, other, "second"), (other, base, "first")):
        absent = sorted(ours.keys() - theirs.keys())
        if absent:
            raise ValueError(f"the {side} model has no result for {len(absent)} question(s), such as {absent[0]!r}")
    base_only = sum(right and not other[key] for key, right in base.items())
    other_only = sum(right and not base[key] for key, right in other.items())
    return base_only, other_only


def relative_gain(base: float, other: float) -> float | None:
    """(other - base) / base of two accuracies, 0.1 being 10%; None when the base got nothing right.

    Raises `ValueError` for an accuracy outside [0, 1].
    """
    for accuracy in (base, other):
        if not 0 <= accuracy <= 1:
            raise ValueError(f"an accuracy lies in [0, 1], got {accuracy}")
    return None if base == 0 else (other - base) / base
