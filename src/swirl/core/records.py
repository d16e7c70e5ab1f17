"""Typed records to and from Parquet, and JSON reports: the only way data crosses a stage boundary."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.core.errors import DataError
from swirl.core.types import SCHEMAS

Record = TypeVar("Record")


def save(records: Iterable[Any], record_type: type, path: Path) -> None:
    """Write `records` (all of `record_type`) to one Parquet file, atomically."""
    rows = [to_dict(record) for record in records]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS[record_type])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def load(record_type: type[Record], path: Path) -> list[Record]:
    """Read the records of one Parquet file. Raises `DataError` naming the file and what is wrong with it."""
    table = read_table(record_type, path)
    records: list[Record] = []
    try:
        for row in table.to_pylist():
            records.append(from_dict(record_type, row))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} holds text that is not UTF-8: {error}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, row {len(records)}: {error}") from error
    return records


def read_table(record_type: type, path: Path) -> pa.Table:
    """The file's table with the columns of the record's schema. Raises `DataError` when the two do not match."""
    if not path.exists():
        raise DataError(f"{path} does not exist; run `dvc repro` to make it")
    try:
        table = pq.read_table(path)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    schema = SCHEMAS[record_type]
    missing = [name for name in schema.names if name not in names]
    if missing:
        raise DataError(
            f"{path}: column {missing[0]!r} is missing; a file of {record_type.__name__} has {', '.join(schema.names)}"
        )
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise DataError(f"{path}: {error}; expected {record_type.__name__} with {schema}") from error


def to_dict(record: Any) -> dict[str, Any]:
    """A record as nested plain values."""
    return dataclasses.asdict(record)


def from_dict(record_type: type[Record], row: dict[str, Any]) -> Record:
    """The inverse of `to_dict`: lists become tuples, dicts become records, strings become enum members.

    A field that the row lacks gets its default. Raises `TypeError` naming a missing field that has no default, and
    `ValueError` for a value that its enum does not have.
    """
    kind: Any = record_type
    hints = _hints(kind)
    return record_type(**{name: _convert(hint, row[name]) for name, hint in hints.items() if name in row})


@cache
def _hints(record_type: Any) -> dict[str, Any]:
    return typing.get_type_hints(record_type)


def _convert(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if value is None:
        return None
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(inner):
            return tuple(from_dict(inner, item) for item in value)  # type: ignore[arg-type]
        return tuple(value)
    if origin is types.UnionType:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value)
    return value


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def save_series(rows: Sequence[dict[str, float]], path: Path) -> None:
    """Write a metric series as JSON for `dvc plots`: one row per step, null where a metric has no finite value."""
    names = dict.fromkeys(name for row in rows for name in row)
    save_json([{name: _finite(row.get(name)) for name in names} for row in rows], path)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
