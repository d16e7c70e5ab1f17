"""The page's section on the quality gates: what each expected, how often that was violated, and what it measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swirl.core.errors import DataError
from swirl.reporting.markup import Child, Html, tag
from swirl.reporting.tables import section, table, text

GATES = ("questions", "trajectories", "steps")


def gates(reports: Mapping[str, Any]) -> Html:
    """One line per gate, which unfolds to its expectations. Raises `DataError` for what is not a gate's report."""
    shown: list[Child] = []
    for name in GATES:
        if name not in reports:
            shown.append(text(f"No report of the {name} gate."))
            continue
        try:
            shown.append(_gate(name, reports[name]))
        except (KeyError, TypeError, AttributeError) as error:
            where = f"reports/quality/{name}.json"
            raise DataError(f"{where} is not a gate's report: {error!r}; run `dvc repro check_{name}`") from error
    words = "Great Expectations looks at the data between stages; a violated expectation stops the pipeline."
    return section("gates", "Quality gates", text(words), shown)


def _gate(name: str, report: Mapping[str, Any]) -> Html:
    expectations = report["expectations"]
    failed = sum(not row["success"] for row in expectations)
    sizes = ", ".join(f"{count} {what}" for what, count in sorted(report["rows"].items()))
    verdict = f"{failed} violated" if failed else "passed"
    summary = tag("summary", tag("b", f"{name}: {verdict}"), f", {len(expectations)} expectations over {sizes}")
    rows = [
        [
            row["meaning"],
            f"{row['table']}.{row['column']}" if row["column"] else row["table"],
            "yes" if row["success"] else "NO",
            f"{row['violations']} of {row['of']}" if row["observed"] is None else f"{row['observed']}",
        ]
        for row in expectations
    ]
    measured = [[key, f"{value:.4g}"] for key, value in sorted(report["statistics"].items())]
    return tag(
        "details",
        summary,
        table(
            f"Expectations of the {name} gate", ["Expectation", "On", "Met", "Violations or value"], rows, words=True
        ),
        table(f"What the {name} gate measured", ["Measured", "Value"], measured) if measured else None,
    )
