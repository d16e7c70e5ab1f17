"""Typed records to and from Parquet, and JSON reports: the only way data crosses a stage boundary."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from swirl.core import parquet
from swirl.core.errors import DataError
from swirl.core.record_schemas import SCHEMAS
from swirl.core.row_groups import tables

Record = TypeVar("Record")


def save(records: Iterable[Any], record_type: type, path: Path) -> None:
    """Write `records` (all of `record_type`) to one Parquet file, atomically, a row group at a time."""
    schema, rest = SCHEMAS[record_type], iter(records)
    groups = iter(lambda: [to_dict(record) for record in islice(rest, parquet.ROWS_PER_GROUP)], [])
    parquet.write((pa.Table.from_pylist(rows, schema=schema) for rows in groups), schema, path)


def load(record_type: type[Record], path: Path) -> list[Record]:
    """Read the records of one Parquet file. Raises `DataError` naming the file and what is wrong with it."""
    return [record for group in stream(record_type, path) for record in group]


def stream(record_type: type[Record], path: Path) -> Iterator[list[Record]]:
    """The records of one Parquet file, a row group at a time: no more of them need memory at once.

    Raises `DataError` as `load` does, for a damaged file before it yields anything.
    """
    first = 0
    for table in tables(record_type, path):
        yield build(record_type, path, table, range(first, first + table.num_rows))
        first += table.num_rows


def pick(record_type: type[Record], path: Path, column: str, values: Iterable[str]) -> list[Record]:
    """The records whose `column` holds one of `values`; no other is built. Raises `DataError` as `load` does."""
    picked, first, wanted = list[Record](), 0, pa.array(values, pa.string())
    for table in tables(record_type, path):
        found = pc.indices_nonzero(pc.is_in(table[column], wanted))
        picked += build(record_type, path, table.take(found), [first + row for row in found.to_pylist()])
        first += table.num_rows
    return picked


def build(record_type: type[Record], path: Path, table: pa.Table, rows: Sequence[int]) -> list[Record]:
    """The records of a table from the file; `rows` are their numbers there. Raises `DataError` as `load` does."""
    records: list[Record] = []
    try:
        for values in table.to_pylist():
            records.append(from_dict(record_type, values))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} holds text that is not UTF-8: {error}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, row {rows[len(records)]}: {error}") from error
    return records


def read_table(record_type: type, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The file's table with these columns of the record's schema, all by default.

    Raises `DataError` when the file cannot be used or does not match the schema.
    """
    names = SCHEMAS[record_type].names if columns is None else list(columns)
    schema = pa.schema([SCHEMAS[record_type].field(name) for name in names])
    return pa.concat_tables([schema.empty_table(), *tables(record_type, path, names)])


def to_dict(record: Any) -> dict[str, Any]:
    """A record as nested plain values; tuples stay tuples."""
    kind: Any = type(record)
    return {name: getattr(record, name) if as_is else _plain(getattr(record, name)) for name, as_is in _scalars(kind)}


@cache
def _scalars(record_type: Any) -> tuple[tuple[str, bool], ...]:
    """Each field, and whether its values are plain whatever they are: numbers, strings, or tuples of these."""
    plain, hints = (str, int, float, bool), _hints(record_type)
    inner = {
        name: typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint for name, hint in hints.items()
    }
    return tuple((name, hint in plain) for name, hint in inner.items())


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value)) if value and dataclasses.is_dataclass(value[0]) else value
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def from_dict(record_type: type[Record], row: dict[str, Any]) -> Record:
    """The inverse of `to_dict`: lists become tuples, dicts become records, strings become enum members.

    A field that the row lacks gets its default. Raises `TypeError` naming a missing field that has no default, and
    `ValueError` for a value that its enum does not have.
    """
    kind: Any = record_type
    given = ((name, row[name], read) for name, read in _readers(kind) if name in row)
    return record_type(**{name: value if read is None or value is None else read(value) for name, value, read in given})


@cache
def _hints(record_type: Any) -> dict[str, Any]:
    return typing.get_type_hints(record_type)


@cache
def _readers(record_type: Any) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """Each field with what makes its value from a plain one; None where the plain value is the field's."""
    return tuple((name, _reader(hint)) for name, hint in _hints(record_type).items())


def _reader(hint: Any) -> Callable[[Any], Any] | None:
    if typing.get_origin(hint) is tuple:
        read = _reader(typing.get_args(hint)[0])
        return tuple if read is None else lambda items: tuple(map(read, items))
    nested: bool = dataclasses.is_dataclass(hint)
    if nested:
        return partial(from_dict, hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return partial(_member, hint)
    return None


def _member(kind: type[StrEnum], value: str) -> StrEnum:
    """The enum member with this value. Raises `ValueError` listing the values that exist."""
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{kind.__name__.lower()} is {value!r}; it is one of {', '.join(kind)}") from None


def save_json(value: Any, path: Path) -> None:
    """Write a report as sorted, indented JSON, atomically. Raises `ValueError` for NaN and infinity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load_json(path: Path) -> Any:
    """Read a report. Raises `DataError` naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro` to make it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def save_series(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write a metric series as JSON for `dvc plots`: one row per step, null where a metric has no finite value."""
    names = dict.fromkeys(name for row in rows for name in row)
    save_json([{name: _finite(row.get(name)) for name in names} for row in rows], path)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
