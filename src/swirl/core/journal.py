"""Journals: long work committed block by block, so that a kill repeats the unfinished block and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from swirl.core.checksums import checksum
from swirl.core.records import load, save

Record = TypeVar("Record")

_FINISHED = ".finished"
"""Ends the name of a folder whose work is complete elsewhere, and which is being deleted."""


class Journal:
    """Finished blocks of records, valid for one fingerprint of source, settings and inputs only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the blocks of this fingerprint in `folder`; those of others stay, and are named."""
        self._folder = claim(folder, fingerprint)

    def block(self, number: int, record_type: type[Record], make: Callable[[], Iterable[Record]]) -> list[Record]:
        """The records of block `number`: read if it was committed, else made and committed atomically."""
        path = self._path(number)
        if not path.exists():
            save(make(), record_type, path)
        return load(record_type, path)

    def holds(self, number: int) -> bool:
        """Whether block `number` was committed."""
        return self._path(number).exists()

    def drop(self, numbers: Iterable[int]) -> None:
        """Throw these blocks away, so that they are made again; the others stay."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)

    def clear(self) -> None:
        """Throw the blocks away: their work is complete elsewhere."""
        discard(self._folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"block-{number:06d}.parquet"


def claim(folder: Path, fingerprint: str) -> Path:
    """The folder in `folder` that holds the unfinished work of this fingerprint, made if there is none.

    Work of other fingerprints stays where it is, for whoever goes back to what it was made with; a line names it.
    """
    mine = folder / fingerprint
    for other in sorted(folder.glob("*/")):
        if other.name.endswith(_FINISHED):
            shutil.rmtree(other)
        elif other != mine:
            print(f"unfinished work of other source, params or inputs is kept; delete it if it is of no use: {other}")
    mine.mkdir(parents=True, exist_ok=True)
    return mine


def discard(folder: Path) -> None:
    """Delete a folder that `claim` gave, and the one around it if nothing else is in it.

    A kill at any moment leaves all of the work, or none that counts.
    """
    finished = folder.with_name(folder.name + _FINISHED)
    os.replace(folder, finished)
    shutil.rmtree(finished)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def fingerprint(source: str, settings: Sequence[Any], files: Iterable[Path]) -> str:
    """A hash of the source that makes something, of plain settings, and of files (folders: every file in them).

    Each part goes in with its length, and each file with its path, so that other parts never give the same hash.
    `source` is what `swirl.pipeline.source.digest` says. Raises `DataError` for a file that cannot be read.
    """
    whole = hashlib.blake2b(digest_size=16)

    def add(part: str) -> None:
        whole.update(f"{len(part)}:{part}".encode())

    add(source)
    add(json.dumps(list(settings), sort_keys=True, default=str))
    for path in files:
        inside = sorted(_inside(path)) if path.is_dir() else [path]
        add(f"{path.name}: {len(inside)}")
        for file in inside:
            add(file.relative_to(path).as_posix())
            add(checksum(file).sha256)
    return whole.hexdigest()


def _inside(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
