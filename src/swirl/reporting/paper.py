"""The paper's numbers (arXiv 2504.04736) for the benchmarks that ours are, or mirror."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """The paper's numbers for one benchmark, as fractions; the labels are (base, SWiRL on HotPotQA)."""

    name: str
    gain: float
    """Headline relative gain of SWiRL over the base: the better of two models, see `PAPER_GAINS`."""
    process_label: tuple[float, float] | None
    """Table 3, mean process-label accuracy; None where the paper has none."""


PAPER_GAINS = (
    "The paper's gains are for Gemma-2-27b on the original benchmarks, each of the better of two models: one trained "
    "on HotPotQA, one on GSM8K. SWiRL here is one model, so compare the direction."
)
"""What must be said beside a `Published.gain`."""

_PUBLISHED = {
    "hotpotqa": Published("HotPotQA", 0.123, (0.825, 0.910)),
    "gsm8k": Published("GSM8K", 0.215, (0.875, 0.916)),
    "musique": Published("MuSiQue", 0.111, None),
    "cofca": Published("CofCA", 0.148, None),
    "beerqa": Published("BeerQA", 0.153, None),
}

_ORDER = tuple(_PUBLISHED)


def published(benchmark: str) -> Published | None:
    """The paper's numbers for `gsm8k`, or `mini-gsm8k`, which mirrors it; None for a benchmark not in the paper."""
    return _PUBLISHED.get(benchmark.removeprefix("mini-"))


def paper_order(benchmark: str) -> tuple[int, str]:
    """Sort key: the two benchmarks that the paper trains on, then its other three, then any others by name."""
    name = benchmark.removeprefix("mini-")
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), benchmark)
