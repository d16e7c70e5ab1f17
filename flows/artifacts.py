"""Prefect artifacts that show the pipeline's reports in a flow run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import State, get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.reporting import coverage
from swirl.reporting.format import p_equals, percent
from swirl.reporting.results import LABELS

_DONE = re.compile(r"(.+?): \d+/\d+ \((\d+)%\)")
"""A line of `swirl.pipeline.progress` in a log."""


class Progress:
    """How far a stage is, as its task's progress artifact: that of the loop that last said so."""

    def __init__(self, stage: str) -> None:
        self._key = "progress-" + re.sub("[^a-z0-9]+", "-", stage.lower()).strip("-")
        self._made: Any = None
        self._said, self._off = (-1.0, ""), False

    def read(self, line: str) -> None:
        """Show what a line of the stage's output says of its progress, if it says anything new."""
        if (found := _DONE.match(line)) and not self._off:
            self._show(float(found[2]), line)

    def end(self) -> None:
        """Show that the stage has ended well, if there was any progress to be seen."""
        if self._made and not self._off:
            self._show(100.0, self._said[1])

    def _show(self, percent: float, line: str) -> None:
        if (percent, line) == self._said:
            return
        self._said = percent, line
        try:
            if self._made is None:
                self._made = create_progress_artifact(progress=percent, key=self._key, description=line)
            else:
                update_progress_artifact(self._made, progress=percent, description=line)
        except Exception as error:  # showing progress never fails a run
            self._off = True
            get_run_logger().warning("Progress is not shown: %s", type(error).__name__)


def link_run(page: str) -> None:
    """Add a link to the MLflow run whose page is at this address, if it has one; only warn when Prefect refuses."""
    if not page:
        return
    try:
        create_link_artifact(
            link=page,
            link_text="this run in MLflow",
            key="mlflow-run",
            description="Metrics, parameters and models. Without an MLflow server: `make mlflow` shows it.",
        )
    except Exception as error:  # tracking never fails a run
        get_run_logger().warning("The MLflow run has no link to %s: %s", page, type(error).__name__)


def show(layout: Layout, states: Mapping[str, State[Any]]) -> None:
    """Show gates, filter funnel and results, as far as their stages ran or were up to date in this run."""
    done = {name for name, state in states.items() if state.is_completed()}
    gates = [name.removeprefix("check_") for name in states if name.startswith("check_")]
    _gates(layout, gates, done)
    if "filter" in done and layout.filters.exists():
        _funnel(load_json(layout.filters))
    if "report" in done and layout.results.exists():
        results = load_json(layout.results)
        seen = coverage.sentence(coverage.loaded(results["coverage"]))
        about = f"Accuracy, and p of the paired test against the base; intervals are in reports/index.html. {seen}"
        create_table_artifact(table=_results(results["scores"]), key="results", description=about)


def _results(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each benchmark, with tools and without, and a column for each model."""
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for score in scores:
        benchmark, with_tools = score["benchmark"], score["with_tools"]
        first = {"benchmark": benchmark, "tools": "yes" if with_tools else "no", "questions": score["n"]}
        row = rows.setdefault((benchmark, with_tools), first)
        p = score.get("p_vs_base")
        against = f" (p {p_equals(p)})" if p is not None and score["model"] in ("sft", "swirl") else ""
        row[LABELS.get(score["model"], score["model"])] = f"{percent(score['accuracy'])}{against}"
    return list(rows.values())


def _gates(layout: Layout, gates: list[str], done: set[str]) -> None:
    rows = []
    for gate in gates:
        passed = f"check_{gate}" in done
        path = layout.quality(gate) if passed else layout.root / f".swirl/quality/{gate}.failed.json"
        if not path.exists():
            continue
        report = load_json(path)
        expectations = report.get("expectations", [])
        violated = [one for one in expectations if not one["success"]]
        rows.append(
            {
                "gate": gate,
                "result": "passed" if passed else "FAILED",
                "expectations": len(expectations),
                "violated": len(violated),
                "rows": f"{sum(report.get('rows', {}).values()):,}",
            }
        )
        if not passed:
            create_markdown_artifact(
                markdown=_failure(gate, violated), key="failed-gate", description=f"Why the {gate} gate stopped the run"
            )
    if rows:
        create_table_artifact(table=rows, key="quality-gates", description="Great Expectations gates")


def _failure(gate: str, violated: list[dict[str, Any]]) -> str:
    """The violated expectations with their first offending rows."""
    lines = [f"# The {gate} gate stopped this run", ""]
    for one in violated:
        where = f"{one['table']}.{one['column']}" if one["column"] else one["table"]
        lines += [f"## {one['name']} on {where}", "", f"Expected: {one['meaning']}", ""]
        if one["observed"] is not None:
            lines += [f"Observed: {one['observed']}", ""]
        if one["rows"]:
            columns = list(one["rows"][0])
            lines += [f"{one['violations']} of {one['of']} rows violate it, as these do:", ""]
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in one["rows"]]
            lines += [""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value as plain text in a cell of a Markdown table."""
    escaped = re.sub(r"[\\`*_\[\]!|~]", r"\\\g<0>", " ".join(str(value).splitlines()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _funnel(filters: Mapping[str, Any]) -> None:
    whole = filters["trajectories"]
    rows = [
        {
            "strategy": name,
            "used": "yes" if name == filters["strategy"] else "",
            "trajectories": kept["trajectories"],
            "share": _rounded(kept["trajectories"] / whole if whole else 0.0),
            "steps": kept["steps"],
            "correct": _rounded(kept["correct"]),
        }
        for name, kept in filters["strategies"].items()
    ]
    rows.sort(key=lambda row: -row["trajectories"])
    text = f"What each filter keeps of {whole} trajectories; correct: the share of them whose answer is right"
    create_table_artifact(table=rows, key="filter-funnel", description=text)


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value  # p-values may be tiny
