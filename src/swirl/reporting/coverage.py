"""How much of the kept data each way of training saw: what every comparison of SWiRL with SFT must say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swirl.core import records
from swirl.reporting.format import percent


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a model saw of the states that the filter kept."""

    kept: int
    visited: int
    """Different states among the kept ones."""
    passes: float
    """Visits of a kept state, on average."""


def found(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Coverage]:
    """By model, from the metrics of stage `train`; those of a model that was not trained are empty."""
    return {
        model: Coverage(int(one["states_kept"]), int(one["states_visited"]), one["passes"])
        for model, one in metrics.items()
        if "states_kept" in one
    }


def loaded(content: Mapping[str, Any]) -> dict[str, Coverage]:
    """By model, from `reports/results.json`."""
    return {model: records.from_dict(Coverage, row) for model, row in content.items()}


def sentence(coverage: Mapping[str, Coverage]) -> str:
    """For example `RL visited 1,440 states, 63% of the kept 2,288; SFT read all twice.`; empty if none was trained."""
    parts, rl, sft = [], coverage.get("swirl"), coverage.get("sft")
    if rl and rl.visited < rl.kept:
        parts.append(f"RL visited {rl.visited:,} states, {percent(rl.visited / rl.kept, 0)} of the kept {rl.kept:,}")
    elif rl:
        parts.append(f"RL visited all {rl.kept:,} kept states, {rl.passes:.2f} times each on average")
    if sft:
        which = "all" if rl else f"all {sft.kept:,} kept states"
        parts.append(f"SFT read {which} {_times(sft.passes)}")
    return "; ".join(parts) + "." if parts else ""


def _times(number: float) -> str:
    return {1.0: "once", 2.0: "twice"}.get(number, f"{number:g} times")
