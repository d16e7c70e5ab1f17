"""Parquet files that are read as they were written or not at all: a format version, checksums, bounded row groups.

Any reader of Parquet reads them. The SHA-256 of all other bytes stands before the footer, where such readers do not
look: the checksums of Parquet itself, which are written too, cover neither the footer nor the headers of pages.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.core.errors import DataError
from swirl.core.layout import stage_of

FORMAT = 2
"""Version of the files' format, to be raised when a record changes; files of other versions are refused."""

FORMAT_KEY = "swirl.format"
"""Where the version stands in a file's key-value metadata. Files of version 1 have none."""

ROWS_PER_GROUP = 1000
"""Most rows of a row group, the unit in which a file can be read."""

_DIGEST = hashlib.sha256().digest_size


def write(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> None:
    """Write `tables`, at least one row group each, to one file, atomically; the same tables give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)
            writer.add_key_value_metadata({FORMAT_KEY: str(FORMAT)})
        _seal(partial)
    except BaseException:  # which making the tables may raise
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def opened(path: Path) -> pq.ParquetFile:
    """A file that `write` wrote, to be closed by the caller.

    Raises `DataError`, which names the file and what to do, when it is missing, of another format version, or differs
    in any bit from what was written.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; run `dvc repro` to make it")
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        version = (file.metadata.metadata or {}).get(FORMAT_KEY.encode(), b"1").decode()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}; {_remedy(path)}") from error
    if version == str(FORMAT) and _sealed(path):
        return file
    file.close()
    if version == str(FORMAT):
        raise DataError(f"{path} is damaged: its checksum is that of other bytes; {_remedy(path)}")
    newer = version.isdecimal() and int(version) > FORMAT
    raise DataError(
        f"{path} is of format {version}, and this swirl reads format {FORMAT}: {'a newer' if newer else 'an older'} "
        f"swirl wrote it; {'update swirl, or ' if newer else ''}{_remedy(path)}"
    )


def _remedy(path: Path) -> str:
    """What to do about a file that cannot be used."""
    if "journals" in path.parts:
        return "delete it, and its rows are made again"
    stage = stage_of(path)
    return f"run `dvc repro {stage}` to make it again" if stage else "run `dvc repro` to make it again"


def _seal(path: Path) -> None:
    """Insert the SHA-256 of the whole file before its footer."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        at = file.seek(_footer(file))
        footer = file.read()
        file.seek(at)
        file.write(digest + footer)


def _sealed(path: Path) -> bool:
    """Whether the file is, bit for bit, one that `_seal` left."""
    with path.open("rb") as file:
        left = _footer(file) - _DIGEST
        if left < 0:
            return False
        file.seek(0)
        whole = hashlib.sha256()
        while left:
            part = file.read(min(left, 2**20))
            whole.update(part)
            left -= len(part)
        digest = file.read(_DIGEST)
        whole.update(file.read())
    return digest == whole.digest()


def _footer(file: BinaryIO) -> int:
    """Where the footer begins: its length stands before the last four bytes."""
    end = file.seek(-8, os.SEEK_END)
    return end - int.from_bytes(file.read(4), "little")
