"""What step-wise RL drew, for people to look at: a bounded sample of every update's states."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swirl.core.seeds import generator
from swirl.core.types import Draw, SubTrajectory
from swirl.models.tokens import Tokens
from swirl.rl.drawn_actions import Group


def chosen(batch: Sequence[list[SubTrajectory]], states: int, seed: int, update: int) -> set[tuple[str, int]]:
    """Trajectory and step of `states` states of an update's batch, drawn at random; of all, if it has no more."""
    every = [(state.trajectory_id, state.step) for group in batch for state in group]
    return set(generator(seed, "kept", update).sample(every, min(states, len(every))))


def draws_of(groups: Sequence[Group], keep: set[tuple[str, int]], update: int, chat: Tokens) -> list[Draw]:
    """The actions drawn in those of the groups' states that are to be kept."""
    return [
        Draw(
            update,
            group.state.trajectory_id,
            group.state.question_id,
            group.state.benchmark,
            group.state.step,
            sample,
            ids,
            chat.text(ids),
            None if math.isnan(group.rewards[sample]) else group.rewards[sample],
            group.cut[sample],
            group.advantages[sample],
            group.logprobs[sample],
        )
        for group in groups
        if (group.state.trajectory_id, group.state.step) in keep
        for sample, ids in enumerate(group.actions)
    ]
