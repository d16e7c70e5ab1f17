"""What `swirl bench` prints: one table per benchmark, and the ratios that matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from swirl.bench import overhead
from swirl.tools.recall import KS

Result = dict[str, Any]

_COLUMNS = {
    "rl-step": [
        "model",
        "kl",
        "name",
        "seconds",
        "update_seconds",
        "sample_seconds",
        "tokens",
        "peak_mb",
        "mfu",
        "token_budget",
        "rows",
        "attention",
    ],
    "scaling": ["K", "name", "token_budget", "seconds", "update_seconds", "tokens", "peak_mb", "mfu"],
    "synthesis": ["name", "seconds", "trajectories", "trajectories_per_minute", "action_tokens_per_second", "peak_mb"],
    "retrieval": [
        "name",
        "retriever",
        "passages",
        "questions",
        *(f"{measure}@{k}" for measure in ("recall", "all") for k in KS),
        "queries_per_second",
    ],
}


def text(result: Result) -> str:
    """The rows as Markdown, then the ratios."""
    if result["bench"] == "overhead":
        return overhead.as_text(result)
    columns = list(_COLUMNS[result["bench"]])
    if result["bench"] != "retrieval":
        columns += ["threads", "workers"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in result["rows"]]
    return "\n".join([*lines, "", *ratios(result)])


def ratios(result: Result) -> list[str]:
    """One sentence per comparison."""
    rows = result["rows"]
    if result["bench"] == "synthesis":
        ours, *others = rows
        rate = "trajectories_per_minute"
        return [f"ours makes {ours[rate] / row[rate]:.1f} times the trajectories of: {row['name']}" for row in others]
    if result["bench"] == "retrieval":
        return []
    if result["bench"] == "scaling":
        return _scaling(rows)
    said = []
    for packed in (row for row in rows if row["name"] == "packed"):
        others = {r["name"]: r for r in rows if (r["model"], r["kl"]) == (packed["model"], packed["kl"])}
        plain, once, trl = others["plain"], others["plain, equal once"], others["trl"]
        said.append(
            f"{packed['model']}, KL {packed['kl']}: the packed step is {trl['seconds'] / packed['seconds']:.1f} times "
            f"as fast as TRL's and {plain['seconds'] / packed['seconds']:.1f} times as fast as the plain one; the "
            f"update alone {plain['update_seconds'] / packed['update_seconds']:.1f} times, "
            f"{once['update_seconds'] / packed['update_seconds']:.1f} times where equal actions are read once"
        )
        part = others["packed, KL by token"]["seconds"]
        said.append(f"the whole gradient of KL takes {packed['seconds'] / part - 1:+.1%} of a step")
    return said


def _scaling(rows: Sequence[Result]) -> list[str]:
    said = []
    for name in ("packed", "plain"):
        mine = [row for row in rows if row["name"] == name]
        growth = [f"{b['seconds'] / a['seconds']:.2f}" for a, b in pairwise(mine)]
        said.append(f"{name}: each doubling of K multiplies the time by {', '.join(growth)}")
    for a, b in zip(rows[::2], rows[1::2], strict=True):
        said.append(f"K = {a['K']}: packed takes {a['peak_mb'] / max(1e-9, b['peak_mb']):.2f} of plain's memory")
    return said


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"
    return "" if value is None else str(value)
