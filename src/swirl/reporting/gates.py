"""The page's rows on the quality gates: what each expected, how often that was violated, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swirl.core.errors import DataError
from swirl.reporting.tables import Table

GATES = ("questions", "trajectories", "steps")


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate's report says."""

    verdict: str
    sizes: str
    expectations: Table
    measured: Table


def gates(reports: Mapping[str, Any]) -> dict[str, Gate | None]:
    """By name; None for a gate without a report. Raises `DataError` for what is not a gate's report."""
    return {name: _gate(name, reports[name]) if name in reports else None for name in GATES}


def _gate(name: str, report: Mapping[str, Any]) -> Gate:
    try:
        expectations = report["expectations"]
        failed = sum(not row["success"] for row in expectations)
        rows = [
            [
                row["meaning"],
                f"{row['table']}.{row['column']}" if row["column"] else row["table"],
                "yes" if row["success"] else "NO",
                f"{row['violations']} of {row['of']}" if row["observed"] is None else f"{row['observed']}",
            ]
            for row in expectations
        ]
        head = ["Expectation", "On", "Met", "Violations or value"]
        measured = [
            [key, f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"]
            for key, value in sorted(report["statistics"].items())
        ]
        return Gate(
            f"{failed} violated" if failed else "passed",
            ", ".join(f"{count} {what}" for what, count in sorted(report["rows"].items())),
            Table(f"Expectations of the {name} gate", head, rows, words=True),
            Table(f"What the {name} gate measured", ["Measured", "Value"], measured),
        )
    except (KeyError, TypeError, AttributeError) as error:
        where = f"reports/quality/{name}.json"
        raise DataError(f"{where} is not a gate's report: {error!r}; run `dvc repro check_{name}`") from error
