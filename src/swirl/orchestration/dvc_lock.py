"""DVC's list of what its processes read and write, which a DVC that is killed while it writes it leaves torn."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

_WRITTEN_S = 0.5
"""Seconds in which a DVC that lives has written the list; it does so in one go."""


def remove_torn(root: Path) -> None:
    """Remove the list of the project in `root` if it is no JSON: every later DVC would stop at it."""
    path = root / ".dvc/tmp/rwlock"
    with contextlib.suppress(FileNotFoundError):
        before = path.read_bytes()
        if _whole(before):
            return
        time.sleep(_WRITTEN_S)
        if path.read_bytes() == before:
            path.unlink()


def _whole(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
