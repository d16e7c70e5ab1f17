"""Which stages of a pipeline invocation are recorded: `.swirl/tracking/invocations/KEY.json`.

Kept on disk rather than queried from MLflow, which may be down, or may have been down for part of the invocation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.pipeline.dvc_file import invocation

KEPT = 50
"""The number of invocations that are remembered, the latest ones."""
PENDING = "pending-"
"""The start of the key that SWIRL_RUN_ID holds in place of a run id when no server has the parent run yet."""


@dataclass(slots=True)
class Ledger:
    """What is recorded of one invocation."""

    path: Path
    given: str
    """The parent's id in MLflow; empty when it is found by `key`."""
    key: str
    """The parent's tag `swirl.invocation`, which is unique."""
    started: float
    """Unix time."""
    alone: bool
    """Whether the stage was started by itself rather than by a pipeline."""
    stages: dict[str, str] = field(default_factory=dict)
    """The records of the stages' runs, by DVC name."""
    cached: list[str] = field(default_factory=list)
    """The stages (DVC names) that were up to date."""

    def save(self) -> None:
        """Write the ledger to its file."""
        value = {"key": self.key, "started": self.started, "stages": self.stages, "cached": self.cached}
        save_json(value, self.path)


@contextlib.contextmanager
def open_ledger(layout: Layout, started: float, run_id: str = "") -> Iterator[Ledger]:
    """The ledger of `run_id`, else of SWIRL_RUN_ID, else of the DVC process above this one, else a new one.

    It is saved at the end. Only one process of this project holds it at a time; the kernel frees the lock of a process
    that dies.
    """
    with locked(layout):
        name = run_id or os.environ.get("SWIRL_RUN_ID", "")
        given = "" if name.startswith(PENDING) else name
        found = name or invocation()
        own = name or f"{found or 'alone'}-{uuid.uuid4().hex[:12]}"
        path = layout.root / f".swirl/tracking/invocations/{re.sub(r'[^A-Za-z0-9_.-]', '_', found or own)}.json"
        ledger = Ledger(path, given, own, started, alone=not found)
        if path.exists():
            known = load_json(path)
            ledger.key, ledger.started = known["key"], known["started"]
            ledger.stages, ledger.cached = known["stages"], known["cached"]
        yield ledger
        ledger.save()
        _forget(path.parent)


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold a lock that only one process of this project can have at a time."""
    path = layout.root / ".swirl/tracking.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink()


def new_key() -> str:
    """A unique key for a parent run that no server has yet."""
    return f"{PENDING}{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
