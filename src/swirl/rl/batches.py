"""The states that step-wise RL visits, in order: batches of whole trajectories.

Trajectories are told by their places, from 0, and `sizes` is how many states each has; no state is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from swirl.core.seeds import generator


def state_batches(sizes: Sequence[int], states: int, seed: int) -> Iterator[list[int]]:
    """Batches without end: whole trajectories with at least `states` states together, reshuffled every epoch.

    No batch holds a trajectory twice. Where all trajectories together have fewer states, each batch is all of them.
    Trajectories left over from an epoch start the next one's first batch, and come last in that epoch's own order.
    """
    states = min(states, sum(sizes))
    batch: list[int] = []
    epoch = 0
    while True:
        order = list(range(len(sizes)))
        generator(seed, "epoch", epoch).shuffle(order)
        order.sort(key=batch.__contains__)
        for index in order:
            batch.append(index)
            if sum(sizes[i] for i in batch) >= states:
                yield batch
                batch = []
        epoch += 1


def updates_of(passes: float, sizes: Sequence[int], states: int, seed: int) -> int:
    """The fewest batches of `state_batches` that visit each state `passes` times on average, or more."""
    kept, visits = sum(sizes), 0
    for number, batch in enumerate(state_batches(sizes, states, seed), start=1):
        visits += sum(sizes[i] for i in batch)
        if visits / kept >= passes:
            return number
    raise AssertionError  # never reached: `state_batches` does not end


def visited(sizes: Sequence[int], states: int, seed: int, updates: int) -> tuple[int, int]:
    """How many states the first `updates` batches of `state_batches` hold, and how many different ones."""
    taken = list(chain.from_iterable(islice(state_batches(sizes, states, seed), updates)))
    return sum(sizes[i] for i in taken), sum(sizes[i] for i in set(taken))


def shortage(sizes: Sequence[int], states: int) -> str:
    """What to tell the user where the kept states are fewer than an update asks for, and what to do; else empty."""
    kept = sum(sizes)
    if kept >= states:
        return ""
    return (
        f"train.swirl.states is {states}, but the filter kept {kept} states, so each update visits all {kept}; set "
        f"train.swirl.states to {kept} or less, or keep more: more questions (download), more synthesize.samples, or "
        "another filter.strategy"
    )
