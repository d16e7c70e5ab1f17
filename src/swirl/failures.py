"""Rollouts that failed at their server, too many for a result: the stage ends, and what is good stays."""

from __future__ import annotations

from collections.abc import Sequence

from swirl.core.errors import DataError
from swirl.core.journal import Journal
from swirl.core.types import Trajectory
from swirl.params import Params


def check_rollouts(blocks: Sequence[Sequence[Trajectory]], params: Params, journal: Journal) -> None:
    """Raise `DataError` for more failed trajectories than the gate permits; `journal` keeps the blocks without any."""
    made = [trajectory for block in blocks for trajectory in block]
    failed = [trajectory for trajectory in made if trajectory.error]
    limit = params.check_trajectories.max_failed_rate
    if len(failed) > limit * len(made):
        journal.drop(number for number, block in enumerate(blocks) if any(trajectory.error for trajectory in block))
        raise DataError(
            f"{len(failed)} of {len(made)} trajectories failed at the server, more than "
            f"check_trajectories.max_failed_rate {limit:.1%}; nothing is written, and the next run makes only the "
            f"blocks that hold those again. The first: {failed[0].error}"
        )
