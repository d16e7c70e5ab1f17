"""The states that step-wise RL visits, in order: batches of whole trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from swirl.core.seeds import generator
from swirl.core.types import SubTrajectory


def by_trajectory(steps: Sequence[SubTrajectory]) -> list[list[SubTrajectory]]:
    """Sub-trajectories grouped by trajectory, in the order of first appearance, steps ascending."""
    groups: dict[str, list[SubTrajectory]] = {}
    for step in steps:
        groups.setdefault(step.trajectory_id, []).append(step)
    return [sorted(group, key=lambda step: step.step) for group in groups.values()]


def state_batches(groups: Sequence[list[SubTrajectory]], states: int, seed: int) -> Iterator[list[list[SubTrajectory]]]:
    """Batches without end: whole trajectories with at least `states` states together, reshuffled every epoch.

    No batch holds a trajectory twice. Where all trajectories together have fewer states, each batch is all of them.
    Trajectories left over from an epoch start the next one's first batch, and come last in that epoch's own order.
    """
    states = min(states, sum(map(len, groups)))
    batch: list[int] = []
    epoch = 0
    while True:
        order = list(range(len(groups)))
        generator(seed, "epoch", epoch).shuffle(order)
        order.sort(key=batch.__contains__)
        for index in order:
            batch.append(index)
            if sum(len(groups[i]) for i in batch) >= states:
                yield [groups[i] for i in batch]
                batch = []
        epoch += 1


def updates_of(passes: float, groups: Sequence[list[SubTrajectory]], states: int, seed: int) -> int:
    """The fewest batches of `state_batches` that visit each state `passes` times on average, or more."""
    kept, visits = sum(map(len, groups)), 0
    for number, batch in enumerate(state_batches(groups, states, seed), start=1):
        visits += sum(map(len, batch))
        if visits / kept >= passes:
            return number
    raise AssertionError  # never reached: `state_batches` does not end


def visited(groups: Sequence[list[SubTrajectory]], states: int, seed: int, updates: int) -> tuple[int, int]:
    """How many states the first `updates` batches of `state_batches` hold, and how many different ones."""
    taken = [group for batch in islice(state_batches(groups, states, seed), updates) for group in batch]
    return sum(map(len, taken)), sum({group[0].trajectory_id: len(group) for group in taken}.values())


def shortage(groups: Sequence[list[SubTrajectory]], states: int) -> str:
    """What to tell the user where the kept states are fewer than an update asks for, and what to do; else empty."""
    kept = sum(map(len, groups))
    if kept >= states:
        return ""
    return (
        f"train.swirl.states is {states}, but the filter kept {kept} states, so each update visits all {kept}; set "
        f"train.swirl.states to {kept} or less, or keep more: more questions (download), more synthesize.samples, or "
        "another filter.strategy"
    )
