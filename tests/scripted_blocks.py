"""Recipes whose makers do as they are told, for the tests of engines: no model, and every call leaves a note.

`python -m tests.scripted_blocks FOLDER` makes the blocks of `PIECES` on a Ray cluster of its own, with block 5 held.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.config.execution import Execution
from swirl.config.served import ClientSettings, Served
from swirl.core.errors import DataError
from swirl.core.journal import Journal
from swirl.core.types import Verdict
from swirl.endpoints.client import Ask, Counts, Message
from swirl.execution.blocks import Done, Made, Sharing
from swirl.execution.engines import opened
from swirl.wiring import servers

PIECES = [[f"{block}{letter}" for letter in "ab"] for block in range(20)]
TWO = Execution(engine="ray", address="local", workers=2, gpus_per_worker=0.0)


@dataclass(frozen=True)
class Scripted:
    """Makes a verdict a word; leaves an empty file WORD.PID in `folder` when it begins a block."""

    folder: Path
    held: tuple[str, ...] = ()
    """First words of blocks that wait for the file `go`."""
    deadly: str = ""
    """First word of a block that kills its process."""
    wrong: str = ""
    """First word of a block that raises."""
    served: tuple[Served, ClientSettings] | None = None
    """A server that is asked about each word."""
    stage: str = "filter"
    record_type: type[Verdict] = Verdict
    at_once: int = 1
    threads: int = 1

    def open(self, sharing: Sharing | None) -> Scribe:
        servers.share_limits(sharing)
        return Scribe(self)

    def add_usage(self, usage: dict[str, Counts]) -> None:
        for used in usage.values():
            (self.folder / f"used-{used.requests}-{time.monotonic_ns()}").touch()


    cpus: int = 1
class Scribe:
    def __init__(self, recipe: Scripted) -> None:
        self._recipe = recipe

    def begin(self, flight: Path | None) -> None: ...

    def make(self, piece: Sequence[str], done: Done) -> Made[Verdict]:
        recipe, first = self._recipe, piece[0]
        (recipe.folder / f"{first}.{os.getpid()}").touch()
        if first == recipe.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == recipe.wrong:
            raise DataError(f"{first} is wrong")
        deadline = time.monotonic() + 300
        while first in recipe.held and not (recipe.folder / "go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if recipe.served:
            served, settings = recipe.served
            client = servers.client_of(served, {"default": settings})
            asks = [Ask((Message("user", word),), 8, word) for word in piece]
            said = [getattr(answer, "text", str(answer)) for answer in client.complete_many(asks)]
        else:
            said = [f"on {word}" for word in piece]
        done(len(piece))
        pairs = enumerate(zip(piece, said, strict=True))
        verdicts = [Verdict(word, k, True, 0.5, text, "scribe") for k, (word, text) in pairs]
        return Made(verdicts, whole=first != "19a")

    def usage(self) -> dict[str, Counts]:
        return servers.usage()


def make(recipe: Scripted, settings: Execution, journal: Path) -> tuple[list[list[Verdict]], list[int]]:
    """The blocks of `PIECES`, and what was told as done."""
    told = list[int]()
    with opened(settings, recipe) as engine:
        blocks, made = Journal(journal, "mark"), list[list[Verdict]]()
        for number, one in enumerate(engine.blocks(blocks, PIECES, told.append)):
            made.append(blocks.records(number, Verdict) if one.whole else one.records)
        return made, told


if __name__ == "__main__":
    here = Path(sys.argv[1])
    make(Scripted(here / "notes", held=("5a",)), TWO, here / "journal")
