"""The index of kept states: the same states as reading them all, from a few row groups at a time."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from swirl.core import parquet, row_groups
from swirl.core.errors import DataError
from swirl.core.records import load, save
from swirl.core.types import SubTrajectory
from swirl.rl.batches import state_batches
from swirl.rl.kept_states import States


def state(name: str, step: int) -> SubTrajectory:
    return SubTrajectory(name, f"q-{name}", "b", step, tuple(range(step + 1)), (7, step), None if step == 1 else 0.5)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 trajectories of 1 to 4 states in row groups of 7: 22 of them."""
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 7)
    file = tmp_path / "steps.parquet"
    save([state(f"t{n}", k) for n in range(60) for k in range(1 + n % 4)], SubTrajectory, file)
    return file


def test_trajectories_come_as_they_appear_and_their_steps_ascending(tmp_path: Path) -> None:
    rows = [state("b", 2), state("a", 0), state("b", 0), state("c", 5), state("a", 1), state("b", 1)]
    save(rows, SubTrajectory, tmp_path / "steps.parquet")
    states = States(tmp_path / "steps.parquet")
    b, a, c = [rows[2], rows[5], rows[0]], [rows[1], rows[4]], [rows[3]]
    assert (len(states), states.sizes, list(states)) == (3, [3, 2, 1], [b, a, c])
    assert states.of([2, 0]) == [c, b]


def test_batches_are_those_of_everything_read_at_once(path: Path) -> None:
    everything: dict[str, list[SubTrajectory]] = {}
    for row in load(SubTrajectory, path):
        everything.setdefault(row.trajectory_id, []).append(row)
    groups, states = list(everything.values()), States(path)
    for batch in islice(state_batches(states.sizes, 11, 3), 30):
        assert states.of(batch) == [groups[number] for number in batch]


def test_a_few_row_groups_are_kept_and_those_are_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = pq.ParquetFile.read_row_group

    def noted(self: pq.ParquetFile, number: int, **options: object) -> object:
        read.append(number)
        return original(self, number, **options)

    states = States(path)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    assert pq.read_metadata(path).num_row_groups == 22
    for _ in states:
        assert len(states._groups._kept) <= row_groups.KEPT == 4
    assert read == list(range(22))
    read.clear()
    assert [group[0].trajectory_id for group in states.of([59, 58, 0, 59])] == ["t59", "t58", "t0", "t59"]
    assert read == [0]


def test_no_states(tmp_path: Path) -> None:
    save([], SubTrajectory, tmp_path / "steps.parquet")
    states = States(tmp_path / "steps.parquet")
    assert (len(states), states.sizes, list(states)) == (0, [], [])


def test_a_row_group_that_is_damaged_while_training_goes_on_is_named(path: Path) -> None:
    states = States(path)
    chunk = pq.read_metadata(path).row_group(20).column(4)
    whole = path.read_bytes()
    at = (
        chunk.data_page_offset + chunk.total_compressed_size - 1 - chunk.data_page_offset + chunk.dictionary_page_offset
    )
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([whole[at] ^ 1]))
    assert states[0] == [state("t0", 0)]
    with pytest.raises(DataError, match=r"steps\.parquet: .*CRC"):
        states[58]
    with pytest.raises(DataError, match=r"steps\.parquet is damaged: its checksum is that of other bytes"):
        States(path)
