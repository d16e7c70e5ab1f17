"""Journals: long work is committed block by block, so that after a kill only the unfinished block is repeated."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from swirl.core.checksums import checksum
from swirl.core.errors import DataError
from swirl.core.folder_files import files_inside
from swirl.core.records import load, read_table, save
from swirl.core.row_groups import save_tables, tables

Record = TypeVar("Record")

TORN = "torn-"
"""What the name of a file that could not be read begins with."""
_FINISHED = ".finished"
"""Suffix of a folder of finished work, whose results are written elsewhere."""


class Journal:
    """Finished blocks of records, valid for one fingerprint of source, settings and inputs only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the blocks of this fingerprint in `folder`; see `claim` for blocks of other fingerprints."""
        self._folder = claim(folder, fingerprint)

    @property
    def folder(self) -> Path:
        """Where the blocks are."""
        return self._folder

    def holds(self, number: int, record_type: type) -> bool:
        """Whether block `number` was committed.

        A block that cannot be read is renamed, and a printed line names it: it counts as not committed.
        """
        path = self._path(number)
        if not path.exists():
            return False
        try:
            next(tables(record_type, path), None)
        except DataError as error:
            set_aside(path, str(error))
            return False
        return True

    def commit(self, number: int, record_type: type[Record], records: Iterable[Record]) -> None:
        """Write block `number`, atomically."""
        save(records, record_type, self._path(number))

    def records(self, number: int, record_type: type[Record]) -> list[Record]:
        """The records of block `number`, as they were committed. Raises `DataError` when they cannot be read."""
        return load(record_type, self._path(number))

    def columns(self, number: int, record_type: type, columns: Sequence[str]) -> pa.Table:
        """As `records`, but only these columns, and no record is built; see `collect`."""
        return read_table(record_type, self._path(number), columns)

    def collect(self, number: int, record_type: type, path: Path) -> None:
        """Write the first `number` blocks, all committed, to one file, as `records.save` would their records."""
        paths = map(self._path, range(number))
        save_tables((table for block in paths for table in tables(record_type, block)), record_type, path)

    def drop(self, numbers: Iterable[int]) -> None:
        """Delete these blocks, so that they are made again; the others stay."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark the work as finished, once its results are written elsewhere; see the function `finish`."""
        finish(self._folder)

    @property
    def flight(self) -> Path:
        """Where it stands with how large a flight the blocks were made, if memory did not allow what was asked for."""
        return self._folder / "flight.json"

    def _path(self, number: int) -> Path:
        return self._folder / f"block-{number:06d}.parquet"


def claim(folder: Path, fingerprint: str) -> Path:
    """The subfolder of `folder` for the unfinished work of this fingerprint, created if it is missing.

    Unfinished work of other fingerprints is kept, for a return to the source, params and inputs that it was made with;
    a printed line names each. Finished work is deleted.
    """
    mine = folder / fingerprint
    delete_finished(folder)
    for other in sorted(folder.glob("*/")):
        if other != mine:
            print(f"unfinished work of other source, params or inputs is kept; delete it if it is of no use: {other}")
    mine.mkdir(parents=True, exist_ok=True)
    return mine


def set_aside(path: Path, fault: str) -> None:
    """Rename unfinished work that cannot be read, so that it is made again, and print where it is and its fault."""
    aside = path.with_name(f"{TORN}{path.name}")
    if aside.is_dir():
        shutil.rmtree(aside)
    os.replace(path, aside)
    print(f"this cannot be read and is made again; it is kept as {aside}, of no use but to find out why: {fault}")


def finish(folder: Path) -> None:
    """Mark the work in a folder that `claim` returned as finished: the next `claim` deletes it.

    Until then it stays, and `revive` makes it unfinished again: its results may be lost before they are safe.
    """
    os.replace(folder, folder.with_name(folder.name + _FINISHED))


def finished(folder: Path) -> list[Path]:
    """The finished work in a folder of which `claim` makes subfolders."""
    return sorted(folder.glob(f"*{_FINISHED}/"))


def revive(folder: Path) -> None:
    """Make the finished work in `folder` unfinished, so that `claim` returns it for its fingerprint."""
    for path in finished(folder):
        os.replace(path, path.with_name(path.name.removesuffix(_FINISHED)))


def delete_finished(folder: Path) -> None:
    """Delete the finished work in `folder`, and `folder` itself if it is empty then."""
    for path in finished(folder):
        shutil.rmtree(path, ignore_errors=True)  # another stage that starts now may be deleting it, too
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def fingerprint(source: str, settings: Sequence[Any], files: Iterable[Path]) -> str:
    """A hash of a source digest, plain settings and files (for a folder, of every file in it).

    Each part is hashed together with its length, and each file in a folder with its path there, so that parts which are
    divided differently get different hashes. `source` is the result of `swirl.pipeline.source.digest`. Raises
    `DataError` for a file that cannot be read, and as `files_inside` does.
    """
    whole = hashlib.blake2b(digest_size=16)

    def add(part: str) -> None:
        whole.update(f"{len(part)}:{part}".encode())

    add(source)
    add(json.dumps(list(settings), sort_keys=True, default=str))
    for path in files:
        inside = sorted(files_inside(path)) if path.is_dir() else [path]
        add(f"{path.name}: {len(inside)}")
        for file in inside:
            add(file.relative_to(path).as_posix())
            add(checksum(file).sha256)
    return whole.hexdigest()
