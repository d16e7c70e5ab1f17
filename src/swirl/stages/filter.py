"""filter: the sub-trajectories that one of four strategies keeps, and counts for all four; no judge is asked."""

from __future__ import annotations

from collections import Counter
from typing import Any

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.seeds import generator
from swirl.core.types import Strategy, SubTrajectory, Trajectory, Verdict
from swirl.judging.filters import Judged, join, keep, sub_trajectories


def run(params: Params, layout: Layout) -> None:
    """Apply the strategy of params to the stored verdicts, and count what each of the four would keep."""
    judged = join(load(Trajectory, layout.trajectories), load(Verdict, layout.verdicts))
    strategy = Strategy(params.filter.strategy)
    kept = keep(judged, strategy, params.filter.max_trajectories, generator(params.seed, "filter"))
    save(sub_trajectories(kept), SubTrajectory, layout.steps)
    funnel = {str(s): count([item for item in judged if item.passes(s)]) for s in Strategy}
    report = {"strategy": str(strategy), "trajectories": len(judged), "strategies": funnel, "kept": count(kept)}
    save_json(report, layout.filters)
    metrics = {
        f"{name}.{key}": row[key] for name, row in funnel.items() for key in ("trajectories", "steps", "correct")
    }
    save_json({**metrics, "kept.trajectories": len(kept)}, layout.metrics("filter"))


def count(judged: list[Judged]) -> dict[str, Any]:
    """Numbers of trajectories and steps, the share answered correctly, and trajectories per benchmark."""
    return {
        "trajectories": len(judged),
        "steps": sum(len(item.steps) for item in judged),
        "correct": sum(item.passes_outcome for item in judged) / max(1, len(judged)),
        "by_benchmark": dict(sorted(Counter(item.trajectory.benchmark for item in judged).items())),
    }
