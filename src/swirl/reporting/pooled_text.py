"""The tables of `swirl seeds`: the cells, and the whole as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swirl.evaluation.comparison import Estimate
from swirl.evaluation.pooling import DRAWS, Difference, Pooled
from swirl.reporting.format import NONE, p_value
from swirl.reporting.pooled_runs import PooledRuns
from swirl.reporting.results import LABELS

MODELS = ("base", "sft", "swirl")
TITLES = {
    "accuracy": "Accuracy",
    "em": "EM",
    "f1": "F1",
    "answered": "Answered",
    "malformed": "Malformed or cut actions",
    "new_support": "Searches that bring a new supporting page",
}
"""By measure, in the order of the tables."""

FEW = 5
"""Fewer runs give p-values that are too small where seeds differ more than questions do (docs/benchmarks.md)."""

Shown = Callable[[Estimate | Difference, str], str]
"""A mean or a difference with its interval as text; the string is `+` where a sign is wanted, else empty."""


def half(value: Estimate | Difference, sign: str) -> str:
    """In percent, with half of the width of the interval, as `27.5 ±5.8`."""
    return f"{100 * value.value:{sign}.1f} ±{50 * (value.high - value.low):.1f}"


def whole(value: Estimate | Difference, sign: str) -> str:
    """In percent, with the bounds of the interval, as `27.5 (21.8 to 33.4)`."""
    return f"{100 * value.value:{sign}.1f} ({100 * value.low:{sign}.1f} to {100 * value.high:{sign}.1f})"


def heads(results: PooledRuns, holm: Sequence[str] = MODELS) -> list[str]:
    """The columns after the benchmark's, for the models that there are; Holm's p-value of those in `holm`."""
    there, others = _models(results)
    made = [LABELS[one] for one in there]
    for one in others:
        made += [f"{LABELS[one]} - {LABELS[results.against]}", "p", *(["Holm"] if one in holm else [])]
    return made


def cells(row: Pooled, results: PooledRuns, shown: Shown, holm: Sequence[str] = MODELS) -> list[str]:
    """The row's cells below `heads`."""
    there, others = _models(results)
    made = [shown(row.models[one], "") if one in row.models else NONE for one in there]
    for one in others:
        over = row.over.get(one)
        known = [shown(over, "+"), p_value(over.p), p_value(over.p_holm)] if over else [NONE] * 3
        made += known if one in holm else known[:2]
    return made


def _models(results: PooledRuns) -> tuple[list[str], list[str]]:
    """Those there are, in the order of their columns, and those that are set against another one, SWiRL first."""
    known = {model for row in results.rows for model in row.models}
    there = [one for one in MODELS if one in known]
    return there, [one for one in reversed(there) if one != results.against]


def note(results: PooledRuns) -> str:
    """What the numbers are."""
    seeds = ", ".join(map(str, results.seeds))
    which, over, few = f"seed {seeds}", "questions", ""
    if len(results.seeds) > 1:
        which, over = f"means over seeds {seeds}", "seeds and, crossed with them, questions"
    if 1 < len(results.seeds) < FEW:
        few = f" Of fewer than {FEW} seeds, p is too small where they differ much from one another."
    return (
        f"With tools, in percent, {which}. Intervals (95%) and p (two-sided) are of a bootstrap over {over}, {DRAWS:,} "
        "draws, all models on the same ones. Holm: p corrected over the benchmarks that RL trained on, "
        f"{', '.join(results.trained) or 'of which there is none'}.{few}"
    )


def by_measure(results: PooledRuns) -> list[tuple[str, list[Pooled]]]:
    """Title of a measure -> its rows, benchmarks in their order."""
    groups = [(title, [row for row in results.rows if row.measure == name]) for name, title in TITLES.items()]
    return [(title, rows) for title, rows in groups if rows]


def markdown(results: PooledRuns) -> str:
    """One table of all benchmarks and measures, and the note."""
    lines: list[Sequence[str]] = [("benchmark", "measure", "questions", *heads(results))]
    lines.append(["---"] * len(lines[0]))
    for title, rows in by_measure(results):
        lines += [(row.benchmark, title, str(row.n), *cells(row, results, whole)) for row in rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", note(results)])
