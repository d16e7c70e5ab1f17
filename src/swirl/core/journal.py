"""Journals: long work committed block by block, so that a kill repeats the unfinished block and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from swirl.core.records import load, save

Record = TypeVar("Record")


class Journal:
    """Finished blocks of records in a folder, valid for one fingerprint of params and inputs only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open `folder`; blocks that another fingerprint left there are thrown away."""
        self._folder = folder
        claim(folder, fingerprint)

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
        """Throw the blocks away: their work is complete elsewhere. A kill in between leaves none that count."""
        (self._folder / "fingerprint").unlink()
        shutil.rmtree(self._folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"block-{number:06d}.parquet"


def claim(folder: Path, fingerprint: str) -> None:
    """Make `folder` hold work of this fingerprint alone: what another one left there is thrown away.

    The mark appears at once or not at all and is never written again, so a kill at no moment makes it a stranger's.
    """
    mark = folder / "fingerprint"
    if mark.exists() and mark.read_text(encoding="utf-8") == fingerprint:
        return
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    partial = folder / "fingerprint.partial"
    partial.write_text(fingerprint, encoding="utf-8")
    os.replace(partial, mark)


def fingerprint(settings: Sequence[Any], files: Iterable[Path]) -> str:
    """A hash of plain settings and of the bytes of `files` (folders: every file in them)."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(list(settings), sort_keys=True, default=str).encode())
    for path in files:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
