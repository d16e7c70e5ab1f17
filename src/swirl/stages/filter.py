"""filter: the sub-trajectories that one of four strategies keeps, and counts for all four; no judge is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.row_groups import parts_of, save_tables
from swirl.core.types import Strategy, SubTrajectory, Trajectory
from swirl.judging.filters import Judged, join, keep, sub_trajectories
from swirl.pipeline.progress import counted


def run(params: Params, layout: Layout) -> None:
    """Apply the strategy of params to the stored verdicts, and count what each of the four would keep.

    Raises `DataError` when as many are to be kept as by a filter that keeps none.
    """
    judged = join(layout.trajectories, layout.verdicts)
    strategy = Strategy(params.filter.strategy)
    funnel = {str(s): count(judged, np.flatnonzero(judged.passes(s))) for s in Strategy}
    of_each = params.filter.max_per_benchmark
    most = limit(params.filter.max_trajectories, funnel, of_each)
    kept = keep(judged, strategy, most, of_each, params.seed)
    made = sub_trajectories(layout.trajectories, judged, kept)
    save_tables(counted(made, parts_of(Trajectory, layout.trajectories), "filter, parts"), SubTrajectory, layout.steps)
    report = {
        "strategy": str(strategy),
        "trajectories": len(judged.rows),
        "strategies": funnel,
        "kept": count(judged, kept),
    }
    save_json(report, layout.filters)
    metrics = {
        f"{name}.{key}": row[key]
        for name, row in funnel.items()
        for key in ("trajectories", "steps", "correct")
        if row[key] is not None
    }
    save_json({**metrics, "kept.trajectories": len(kept)}, layout.metrics("filter"))


def limit(wanted: int | Sequence[str], funnel: Mapping[str, Mapping[str, Any]], of_each: int = 0) -> int:
    """The largest number of trajectories to keep, 0 for no limit: a number, or what the smallest of some filters keeps.

    `of_each`: at most so many of each benchmark count (0: all).

    Arms that name the same filters are equally large. Raises `DataError` when one of the filters keeps none.
    """
    if isinstance(wanted, int):
        return wanted
    kept: dict[str, int] = {
        name: sum(min(n, of_each or n) for n in funnel[name]["by_benchmark"].values()) for name in wanted
    }
    smallest = min(kept, key=lambda name: kept[name])
    if not kept[smallest]:
        raise DataError(
            f"filter.max_trajectories = {list(wanted)}: {smallest} keeps none of the trajectories, and so would every "
            "arm that is as small; leave that filter out, or give a number (0: no limit)"
        )
    return kept[smallest]


def count(judged: Judged, some: np.ndarray) -> dict[str, Any]:
    """Numbers of trajectories and steps, the share answered correctly, and trajectories per benchmark.

    The share is of those with a golden label, None if none has one. `some` are the places in `judged` that
    are counted.
    """
    return {
        "trajectories": len(some),
        "steps": int(np.diff(judged.starts)[some].sum()),
        "correct": _correct(judged, some),
        "by_benchmark": dict(sorted(Counter(judged.benchmarks[some].tolist()).items())),
    }


def _correct(judged: Judged, some: np.ndarray) -> float | None:
    graded = int(judged.graded[some].sum())
    return int(judged.passes(Strategy.OUTCOME)[some].sum()) / graded if graded else None
