"""Files of records by row group: read in order, in any order, or written from tables that are already columns.

No record is built here, and never is more than a few row groups in memory, whatever the size of the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.core import parquet
from swirl.core.errors import DataError
from swirl.core.record_schemas import SCHEMAS

Made = TypeVar("Made")

KEPT = 4
"""Row groups that `RowGroups` keeps."""


def tables(record_type: type, path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The file's row groups in order, with these columns of the record's schema, all by default.

    Raises `DataError` when the file cannot be used, before it yields anything, or does not match the schema.
    """
    with _opened(record_type, path) as file:
        for number in range(file.num_row_groups):
            yield _group(file, number, record_type, path, columns)


def parts_of(record_type: type, path: Path) -> int:
    """The number of the file's row groups. Raises `DataError` when the file cannot be used."""
    with _opened(record_type, path) as file:
        return int(file.num_row_groups)


def save_tables(made: Iterable[pa.Table], record_type: type, path: Path) -> None:
    """Write tables of any lengths to one file, atomically: the same bytes as `records.save` of their rows."""
    schema = SCHEMAS[record_type]
    parquet.write(_regrouped(made, schema), schema, path)


def _regrouped(made: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `ROWS_PER_GROUP`, the last one shorter."""
    waiting = schema.empty_table()
    for table in made:
        waiting = pa.concat_tables([waiting, table])
        while waiting.num_rows >= parquet.ROWS_PER_GROUP:
            yield waiting.slice(0, parquet.ROWS_PER_GROUP).combine_chunks()
            waiting = waiting.slice(parquet.ROWS_PER_GROUP)
    if waiting.num_rows:
        yield waiting.combine_chunks()


class RowGroups(Generic[Made]):
    """The row groups of one file in any order; of what `build` makes of them, the last `KEPT` that were asked for stay.

    The file stays open, and is read as it was when it was opened.
    """

    def __init__(
        self,
        record_type: type,
        path: Path,
        build: Callable[[pa.Table], Made],
        columns: Sequence[str] | None = None,
    ) -> None:
        """Open the file. Raises `DataError` when it cannot be used or does not match the schema."""
        self._record_type, self._path, self._build, self._columns = record_type, path, build, columns
        self._file = _opened(record_type, path)
        metadata = self._file.metadata
        rows = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        self._ends = list(accumulate(rows))
        self.rows: int = metadata.num_rows
        self._kept: dict[int, Made] = {}

    def place(self, row: int) -> tuple[int, int]:
        """The row group of this row of the file (from 0), and its place in there."""
        number = bisect_right(self._ends, row)
        return number, row - (self._ends[number - 1] if number else 0)

    def __getitem__(self, number: int) -> Made:
        """What `build` makes of this row group. Raises `DataError` when it cannot be read."""
        made = self._kept.pop(number, None)
        if made is None:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]  # the one that was asked for longest ago
            made = self._build(_group(self._file, number, self._record_type, self._path, self._columns))
        self._kept[number] = made
        return made


def _opened(record_type: type, path: Path) -> pq.ParquetFile:
    """The file, to be closed by the caller. Raises `DataError` as `tables` does."""
    file, whole = parquet.opened(path), SCHEMAS[record_type]
    missing = [name for name in whole.names if name not in file.schema_arrow.names]
    if missing:
        file.close()
        raise DataError(
            f"{path}: column {missing[0]!r} is missing; a file of {record_type.__name__} has {', '.join(whole.names)}"
        )
    return file


def _group(file: pq.ParquetFile, number: int, record_type: type, path: Path, columns: Sequence[str] | None) -> pa.Table:
    """One row group, with the types of the record's schema. Raises `DataError` when it cannot be read."""
    whole = SCHEMAS[record_type]
    names = whole.names if columns is None else list(columns)
    schema = pa.schema([whole.field(name) for name in names])
    try:
        return file.read_row_group(number, columns=names, use_threads=False).select(names).cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}; expected {record_type.__name__} with {schema}") from error
