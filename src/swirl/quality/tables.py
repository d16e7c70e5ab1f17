"""Parquet files as pandas frames for the gates: nulls are kept, and every row has its number in the file.

Large files are read by row group, so a gate keeps of each only what identifies its rows and what it finds out about
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from swirl.core.errors import DataError
from swirl.core.record_schemas import SCHEMAS
from swirl.core.records import read_table
from swirl.core.row_groups import parts_of, tables
from swirl.core.types import Trajectory
from swirl.pipeline.progress import counted

Frames = tuple[pd.DataFrame, ...]


def read(record_type: type, path: Path) -> pd.DataFrame:
    """One file as a frame: `row` (counted from 0) and the record's columns.

    A list cell is a numpy array; it is None when the list is null or contains a null.
    Raises `DataError` when the file is missing, unreadable or lacks a column.
    """
    return _frame(_readable(record_type, path, lambda: read_table(record_type, path)))


def read_groups(record_type: type, path: Path) -> Iterator[Frames]:
    """As `read`, but one frame for each row group; one without rows if there is none."""
    first = 0
    for table in _tables(record_type, path, None):
        yield (_frame(table, first),)
        first += len(table)


def read_trajectories(path: Path, columns: Sequence[str] | None = None) -> Iterator[Frames]:
    """A file of trajectories as three frames for each row group. Raises `DataError` as `read` does.

    `columns` are those of trajectories, all by default; `id` and `steps` must be among them. See `trajectory_frames`.
    """
    first = 0
    for table in _tables(Trajectory, path, columns):
        yield trajectory_frames(table, first)
        first += len(table)


def trajectory_frames(table: pa.Table, first: int = 0) -> Frames:
    """Trajectories as three frames; `first` is the row of the first one.

    The first has one row per trajectory, with the number of steps in its column `steps`. The second has one row per
    step, with the `row` and `trajectory_id` of its trajectory, the step's own columns (`observations` as their number),
    and `kind`, `text` and `payload` of its action. The third has one row per observation, with `row`, `trajectory_id`
    and `index` of its step, the place of the step in the second frame as `step`, and the observation's own columns.
    """
    of_steps, in_trajectory = _explode(table, "steps")
    of_observations, in_step = _explode(of_steps, "observations")
    (action,) = of_steps["action"].chunks
    for field, values in zip(action.type, action.flatten(), strict=True):
        of_steps = of_steps.append_column(field, values)
    trajectories = _frame(_counted(table, "steps"), first)
    steps = _frame(_counted(of_steps.drop_columns(["action"]), "observations"))
    steps["row"] = in_trajectory.to_numpy() + first
    steps.insert(1, "trajectory_id", table["id"].take(in_trajectory).to_pandas())
    observations = _frame(of_observations)
    for name in ("row", "trajectory_id", "index"):
        observations[name] = steps[name].take(in_step.to_numpy()).to_numpy()
    observations["step"] = in_step.to_pandas()
    return trajectories, steps, observations


def gathered(groups: Iterable[Frames], *chosen: Callable[[pd.DataFrame], pd.DataFrame]) -> Frames:
    """The frames of all groups as one each, of which `chosen` says, frame by frame, what is kept."""
    kept = [tuple(choose(frame) for choose, frame in zip(chosen, group, strict=True)) for group in groups]
    return tuple(pd.concat(frames, ignore_index=True) for frames in zip(*kept, strict=True))


def only(names: Sequence[str]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Keeps these columns of a frame."""
    return lambda frame: frame[list(names)]


def presence(*key: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Keeps of a frame the columns of `key`, and of all others only which cells are null: those are None."""

    def of(frame: pd.DataFrame) -> pd.DataFrame:
        given = {True: True, False: None}
        columns = {name: frame[name] if name in key else frame[name].notna().map(given) for name in frame.columns}
        return pd.DataFrame(columns)

    return of


def _explode(table: pa.Table, name: str) -> tuple[pa.Table, pa.Array]:
    """The structs in a column of lists as a table with one row per struct, and the row of `table` that each is from."""
    lists = table[name].combine_chunks()
    items = pc.list_flatten(lists)
    return pa.table(items.flatten(), names=[field.name for field in items.type]), pc.list_parent_indices(lists)


def _counted(table: pa.Table, name: str) -> pa.Table:
    """The table with the length of each list in place of a column of lists."""
    return table.set_column(table.column_names.index(name), name, pc.list_value_length(table[name]))


def data_columns(frame: pd.DataFrame, *optional: str) -> list[str]:
    """The record's columns, without `row` and the `optional` ones, which may be null."""
    return [str(name) for name in frame.columns if name != "row" and name not in optional]


def training_problem(question_id: str, splits: Mapping[str, str]) -> str | None:
    """Why this question must not be trained on; None when it may be. `splits` is by question id."""
    if question_id not in splits:
        return f"there is no question {question_id}"
    split = splits[question_id]
    return None if split == "train" else f"{question_id} is of the {split} split"


def _tables(record_type: type, path: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """The file's row groups, each found readable; a table without rows if there is none. Raises `DataError`."""
    number = parts_of(record_type, path)
    groups, none = counted(tables(record_type, path, columns), number, f"{path.name}, parts read"), True
    while (table := _readable(record_type, path, lambda: next(groups, None))) is not None:
        yield table
        none = False
    if none:
        empty = SCHEMAS[record_type].empty_table()
        yield empty if columns is None else empty.select(columns)


def _readable(record_type: type, path: Path, read: Callable[[], pa.Table | None]) -> pa.Table | None:
    """What `read` reads of the file, once every value in it has been found readable. Raises `DataError`."""
    try:
        table = read()
        if table is not None:
            table.validate(full=True)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path} holds bytes that are no {record_type.__name__}: {error}") from error
    return table


def _frame(table: pa.Table, first: int = 0) -> pd.DataFrame:
    columns: dict[str, Any] = {"row": range(first, first + table.num_rows)}
    for name in table.column_names:
        columns[name] = table[name].to_pandas()
        if pa.types.is_list(table.schema.field(name).type):
            lists = table[name].combine_chunks()
            holds_null = pc.list_parent_indices(lists).filter(pc.list_flatten(lists).is_null())
            columns[name][holds_null.to_pylist()] = None
    return pd.DataFrame(columns)
