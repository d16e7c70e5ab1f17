"""The states that the filter kept, as training needs them: an index of all, and those of a batch in memory.

A trajectory whose states were rewritten is one for each of its pieces here: in each, states are prefixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from swirl.core.records import build, read_table
from swirl.core.row_groups import RowGroups
from swirl.core.types import SubTrajectory


class States:
    """The states in a file by trajectory, in the order of the trajectories' first appearance, steps ascending.

    Only the place of each state is held. States are read when their trajectory is asked for, by row group, of which
    the last few stay in memory.
    """

    def __init__(self, path: Path) -> None:
        """Index the file. Raises `DataError` when it cannot be used."""
        self._path = path
        self._groups = RowGroups(SubTrajectory, path, lambda table: table)
        index = read_table(SubTrajectory, path, ["trajectory_id", "step", "piece"]).combine_chunks()
        owner = index["trajectory_id"].dictionary_encode().combine_chunks().indices.to_numpy()
        piece = index["piece"].to_numpy()
        self._rows = np.lexsort((index["step"].to_numpy(), piece, owner))
        pairs = np.stack([owner, piece], axis=1)[self._rows]
        self.sizes: list[int] = np.unique(pairs, axis=0, return_counts=True)[1].tolist()
        """How many states each trajectory has."""
        self._ends = np.cumsum(self.sizes, dtype=np.int64)

    def __len__(self) -> int:
        """The number of trajectories."""
        return len(self.sizes)

    def __getitem__(self, number: int) -> list[SubTrajectory]:
        """The states of one trajectory. Raises `DataError` when they cannot be read."""
        return self.of([number])[0]

    def __iter__(self) -> Iterator[list[SubTrajectory]]:
        """The states of all trajectories, one trajectory at a time."""
        return (self[number] for number in range(len(self)))

    def of(self, numbers: Iterable[int]) -> list[list[SubTrajectory]]:
        """The states of these trajectories, in this order. Raises `DataError` when they cannot be read."""
        wanted = [
            self._rows[self._ends[number] - self.sizes[number] : self._ends[number]].tolist() for number in numbers
        ]
        read: dict[int, SubTrajectory] = {}
        for group, here in groupby(sorted(chain.from_iterable(wanted)), lambda row: self._groups.place(row)[0]):
            rows = list(here)
            table = self._groups[group].take([self._groups.place(row)[1] for row in rows])
            read |= zip(rows, build(SubTrajectory, self._path, table, rows), strict=True)
        return [[read[row] for row in rows] for rows in wanted]
