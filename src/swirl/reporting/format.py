"""Numbers as text, formatted the same in the page and in the terminal."""

from __future__ import annotations

from math import isnan

from swirl.core.types import Score

NONE = "–"
"""Shown where nothing was measured."""
ALL = "all"
"""The row of `rates` over all steps."""


def words(name: str) -> str:
    """A name as a person reads it: `step_limit` as `step limit`."""
    return name.replace("_", " ")


def percent(value: float | None, digits: int = 1) -> str:
    """0.377 as `37.7%`."""
    return NONE if value is None else f"{value:.{digits}%}"


def gain(value: float | None) -> str:
    """A relative gain with its sign, 0.215 as `+21.5%`."""
    return NONE if value is None else f"{value:+.1%}"


def p_value(value: float | None) -> str:
    """A p-value with two significant digits, `<0.001` below that."""
    if value is None:
        return NONE
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def p_equals(value: float | None) -> str:
    """A p-value after the letter p: `= 0.012`, `< 0.001`."""
    words = p_value(value)
    return words.replace("<", "< ") if words.startswith("<") else f"= {words}"


def interval(score: Score) -> str:
    """The 95% interval in percent, such as `33.0 to 42.6`."""
    return f"{100 * score.ci_low:.1f} to {100 * score.ci_high:.1f}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of decimals."""
    return NONE if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """For example `42 s`, `1.5 min` or `3.4 h`; `?` where it is not a number."""
    if isnan(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rates(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """`heldout.search.tpr: 0.98` as row `search`, column `tpr`; `heldout.tpr` belongs to row `ALL`.

    Rows that nothing was measured on (`n` = 0) are left out.
    """
    rows: dict[str, dict[str, float]] = {}
    for key in sorted(metrics):
        if key.startswith("heldout."):
            row, _, name = key.removeprefix("heldout.").rpartition(".")
            rows.setdefault(row or ALL, {})[name] = metrics[key]
    return {row: values for row, values in rows.items() if values.get("n") != 0}
