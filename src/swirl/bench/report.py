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
        "process_mb",
        "mfu",
        "token_budget",
        "rows",
        "attention",
    ],
    "scaling": ["K", "name", "token_budget", "seconds", "update_seconds", "tokens", "peak_mb", "mfu"],
    "synthesis": [
        "name",
        "seconds",
        "trajectories",
        "trajectories_per_minute",
        "action_tokens_per_second",
        "peak_mb",
        "attention",
    ],
    "slow-tools": [
        "model",
        "calls_in_flight",
        "tool_passes",
        "decoding_seconds",
        "waiting_seconds",
        "seconds",
        "ratio",
    ],
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
    if "sizes" in result:
        return _paper_scale(result["sizes"])
    if result["bench"] == "overhead":
        return overhead.as_text(result)
    columns = list(_COLUMNS[result["bench"]])
    if result["bench"] != "retrieval":
        columns += ["threads", "workers"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in result["rows"]]
    return "\n".join([*lines, "", *ratios(result)])


def _paper_scale(rows: Sequence[Result]) -> str:
    columns = ["trajectories", "steps", "seconds", "peak_mb"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(f'{row[column]:,.0f}' for column in columns)} |" for row in rows]
    said = [
        f"{b['trajectories'] / a['trajectories']:.1f} times the trajectories take {b['seconds'] / a['seconds']:.2f} "
        f"times as long and {b['peak_mb'] / a['peak_mb']:.2f} times the memory"
        for a, b in pairwise(rows)
    ]
    return "\n".join([*lines, "", *said])


def ratios(result: Result) -> list[str]:
    """One sentence per comparison."""
    rows = result["rows"]
    if result["bench"] == "synthesis":
        ours, *others = rows
        rate = "trajectories_per_minute"
        return [f"ours makes {ours[rate] / row[rate]:.2f} times the trajectories of: {row['name']}" for row in others]
    if result["bench"] == "retrieval":
        return []
    if result["bench"] == "slow-tools":
        slower = "times what the slower of decoding and waiting takes alone"
        how = "{calls_in_flight} calls at a time, results read after {tool_passes:g} passes: {ratio:.2f} "
        return [how.format(**row) + slower for row in rows]
    if result["bench"] == "scaling":
        return _scaling(rows)
    said = []
    for packed in (row for row in rows if row["name"] == "packed"):
        others = {r["name"]: r for r in rows if (r["model"], r["kl"]) == (packed["model"], packed["kl"])}
        said.append(f"{packed['model']}, KL {packed['kl']}: the packed step is {_compared(packed, others)}")
        if by_token := others.get("packed, KL by token"):
            part = packed["seconds"] / by_token["seconds"] - 1
            said.append(f"the whole gradient of KL takes {part:+.1%} of a step")
    return said


def _compared(packed: Result, others: dict[str, Result]) -> str:
    """How much faster the packed step is than TRL's, and than the plain ones that were measured."""
    parts = [f"{others['trl']['seconds'] / packed['seconds']:.1f} times as fast as TRL's"]
    for name, how in (("plain", "the plain one"), ("plain, equal once", "plain where equal actions are read once")):
        if other := others.get(name):
            step, update = (other[key] / packed[key] for key in ("seconds", "update_seconds"))
            parts.append(f"{step:.1f} times as fast as {how} (the update alone {update:.1f} times)")
    return ", ".join(parts)


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
