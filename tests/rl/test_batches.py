"""Batches of states: which trajectories, in which order, and none of them twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import pytest

from swirl.rl.batches import shortage, state_batches, updates_of, visited


def names(batches: Iterable[Sequence[int]]) -> list[str]:
    """The trajectories of each batch."""
    return [" ".join(f"t{number}" for number in batch) for batch in batches]


SEVEN = [1, 2, 3, 1, 2, 3, 1]
"""How many states seven trajectories have: 13 together."""


def test_state_batches_cover_every_trajectory_once_an_epoch() -> None:
    batches = list(islice(state_batches(SEVEN, 4, 5), 9))
    for batch in batches:
        assert sum(SEVEN[number] for number in batch) >= 4
        assert sum(SEVEN[number] for number in batch[:-1]) < 4
        assert len(set(batch)) == len(batch)
    drawn = " ".join(names(batches)).split()
    epochs = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert [sorted(epoch) for epoch in epochs] == [[f"t{number}" for number in range(7)]] * 3
    assert epochs[0] != epochs[1]
    assert list(islice(state_batches(SEVEN, 4, 5), 9)) == batches
    assert list(islice(state_batches(SEVEN, 4, 6), 9)) != batches


def test_the_order_of_batches_stays_what_it_was() -> None:
    """Checkpoints and published runs depend on it."""
    found = names(islice(state_batches(SEVEN, 4, 5), 9))
    assert found == ["t6 t3 t2", "t4 t1", "t0 t5", "t0 t2", "t4 t1", "t6 t3 t5", "t3 t4 t5", "t0 t6 t2", "t1 t2"]


@pytest.mark.parametrize("asked", [3, 4, 24])
def test_a_batch_holds_every_trajectory_once_when_there_are_few(asked: int) -> None:
    few = [2, 1]
    assert {*names(islice(state_batches(few, asked, 5), 6))} == {"t0 t1", "t1 t0"}


@pytest.mark.parametrize(
    ("passes", "updates", "visits", "different"),
    [(0.3, 1, 5, 5), (0.5, 2, 9, 9), (1.0, 3, 13, 13), (1.001, 4, 17, 13), (2.0, 6, 26, 13)],
)
def test_passes_are_counted_in_the_batches_themselves(passes: float, updates: int, visits: int, different: int) -> None:
    """The batches of the test above: of 5, 4, 4, then of 4, 4 and 5 states."""
    assert updates_of(passes, SEVEN, 4, 5) == updates
    assert visited(SEVEN, 4, 5, updates) == (visits, different)
    assert sum(visited(SEVEN, 4, 5, updates - 1)[:1]) < passes * 13


def test_rounding_adds_no_update() -> None:
    hundred = [1] * 100
    assert 0.55 * 100 > 55
    assert updates_of(0.55, hundred, 5, 5) == 11


def test_with_few_states_a_pass_is_an_update() -> None:
    few = [2, 1]
    assert updates_of(2.0, few, 24, 5) == 2
    assert visited(few, 24, 5, 2) == (6, 3)
    assert visited(few, 24, 5, 0) == (0, 0)


def test_too_few_states_are_said() -> None:
    few = [2, 1]
    assert shortage(few, 3) == ""
    said = "train.swirl.states is 4, but the filter kept 3 states, so each update visits all 3; set train.swirl.states"
    assert shortage(few, 4).startswith(said)
