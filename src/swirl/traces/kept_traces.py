"""Traces that `download` has fetched from a tracking server, kept so that a later run reads the same bytes.

The traces lie in a file below `download.folder`. A lock file beside says how many there are, until when, and their
SHA-256: without the file, the same traces are fetched again, or it is said that the server gives others now.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swirl.core.checksums import checksum
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.traces.trace_files import fetch_traces, has_newer

LOCK = "mlflow.lock.json"
"""Name of the lock file in `download.folder`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was fetched of one experiment."""

    traces: int
    until: int
    """When the last of them began, in milliseconds since 1970."""
    sha256: str


def keep_traces(experiment: str, path: Path, folder: Path, layout: Layout) -> None:
    """Make sure that `path` has the traces of an experiment: those of the lock file in `folder`, or else all there are.

    Says on standard error if the server has newer ones than the lock file names. Raises `DataError` when the traces
    cannot be fetched, when there is none, and when they differ from those of the lock file.
    """
    lock = folder / LOCK
    known = _read(lock)
    kept = known.get(experiment)
    if kept is not None and path.exists():
        if checksum(path).sha256 != kept.sha256:
            raise DataError(
                f"{path} is not what was fetched, which {lock} names; delete it to fetch the same traces again"
            )
        if _newer(experiment, kept.until, layout):
            _say_newer(experiment, kept, lock)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch_traces(experiment, path, layout, kept.until if kept else None)
    if kept is None:
        _write(lock, known | {experiment: _described(experiment, path)})
    elif checksum(path).sha256 != kept.sha256:
        path.unlink()
        raise DataError(
            f"mlflow:{experiment}: the tracking server does not give the {kept.traces} traces that {lock} names: some "
            "were changed or deleted since, or ended later than they were fetched. To take what it has now, delete the "
            f"entry {experiment!r} there"
        )


def _say_newer(experiment: str, kept: Kept, lock: Path) -> None:
    print(
        f"note: the tracking server has newer traces of mlflow:{experiment} than the {kept.traces} that are used; to "
        f"take all, delete the entry {experiment!r} in {lock}",
        file=sys.stderr,
        flush=True,
    )


def _newer(experiment: str, since: int, layout: Layout) -> bool:
    try:
        return has_newer(experiment, since, layout)
    except DataError:  # the traces are there, and the server need not be
        return False


def _described(experiment: str, path: Path) -> Kept:
    count, until = 0, 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            count, until = count + 1, max(until, _began(json.loads(line)))
    if not count:
        path.unlink()
        raise DataError(f"mlflow:{experiment}: the tracking server has no trace of it")
    return Kept(count, until, checksum(path).sha256)


def _began(trace: dict[str, Any]) -> int:
    from mlflow.entities import Trace

    return int(Trace.from_dict(trace).info.request_time)


def _read(lock: Path) -> dict[str, Kept]:
    if not lock.exists():
        return {}
    try:
        return {name: Kept(**entry) for name, entry in load_json(lock).items()}
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"{lock} is no lock file of traces: {error}; restore it, or delete it to fetch them anew"
        ) from error


def _write(lock: Path, known: dict[str, Kept]) -> None:
    save_json({name: asdict(kept) for name, kept in sorted(known.items())}, lock)
