"""What `Scripted` recipes leave behind, read by the tests of real clusters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from swirl.core.types import Verdict
from tests.scripted_blocks import PIECES

EXPECTED = [[Verdict(word, k, True, 0.5, f"on {word}", "scribe") for k, word in enumerate(piece)] for piece in PIECES]


def begun(notes: Path) -> Counter[str]:
    """How often each block was begun, by its first word."""
    return Counter(path.stem for path in notes.iterdir() if path.suffix)


def committed(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "journal/mark").glob("block-*.parquet")}


def pid_of(notes: Path, word: str) -> int:
    """The process that makes the block, once it does."""
    wait_for(lambda: bool(list(notes.glob(f"{word}.*"))))
    return int(next(notes.glob(f"{word}.*")).suffix[1:])


def makers(notes: Path) -> set[int]:
    """The processes that have begun a block."""
    return {int(path.suffix[1:]) for path in notes.glob("*.*")}


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)
