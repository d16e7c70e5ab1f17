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
from types import SimpleNamespace

from swirl.config.execution import Execution
from swirl.config.served import ClientSettings, Served
from swirl.core.errors import DataError
from swirl.core.flights import Flight
from swirl.core.journal import Journal
from swirl.core.memory import available
from swirl.core.threads import end_if_given_up
from swirl.core.types import Verdict
from swirl.endpoints.client import Ask, Counts, Message
from swirl.execution.blocks import Done, Made, Sharing
from swirl.execution.engines import opened
from swirl.models.room import free_for
from swirl.wiring import servers

PIECES = [[f"{block}{letter}" for letter in "ab"] for block in range(20)]
TWO = Execution(engine="ray", address="local", workers=2, gpus_per_worker=0.0)


@dataclass(frozen=True)
class Scripted:
    """Makes a verdict a word; leaves an empty file WORD.PID in `folder` when it begins a block."""

    folder: Path
    held: tuple[str, ...] = ()
    """First words of blocks that wait for the file `go`, or `go-WORD`."""
    deadly: str = ""
    """First word of a block that kills its process."""
    partial: str = "19a"
    """First word of a block that is not committed."""
    wrong: str = ""
    """First word of a block that raises."""
    served: tuple[Served, ClientSettings] | None = None
    """A server that is asked about each word."""
    free: float = float("inf")
    """Bytes for the words of a block in flight, of which each takes ten, and eight are asked for."""
    most: int = 8
    """Words in flight beyond which memory runs out."""
    stage: str = "filter"
    record_type: type[Verdict] = Verdict
    at_once: int = 1
    threads: int = 1
    cpus: int = 1

    def open(self, sharing: Sharing | None) -> Scribe:
        servers.share_limits(sharing)
        return Scribe(self)

    def add_usage(self, usage: dict[str, Counts]) -> None:
        for used in usage.values():
            (self.folder / f"used-{used.requests}-{time.monotonic_ns()}").touch()


class Scribe:
    def __init__(self, recipe: Scripted) -> None:
        self._recipe = recipe

    def begin(self, flight: Path) -> None:
        """Leaves files that say how large the flight is, and how many plan with this machine's memory."""
        self._flight = Flight("scribe.words", 8, lambda size: 10.0 * size, self._recipe.free)
        self._flight.resume(flight)
        (self._recipe.folder / f"flight-{self._flight.size}-{os.getpid()}").touch()
        sharers = round(available("cpu") / free_for(SimpleNamespace(device="cpu")))
        (self._recipe.folder / f"sharers-{sharers}-{os.getpid()}").touch()

    def make(self, piece: Sequence[str], done: Done) -> Made[Verdict]:
        recipe, first = self._recipe, piece[0]
        (recipe.folder / f"{first}.{os.getpid()}").touch()
        if first == recipe.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == recipe.wrong:
            raise DataError(f"{first} is wrong")
        deadline = time.monotonic() + 300
        go = (recipe.folder / "go", recipe.folder / f"go-{first}")
        while first in recipe.held and not any(path.exists() for path in go):
            assert time.monotonic() < deadline
            end_if_given_up()
            time.sleep(0.01)
        if recipe.served:
            served, settings = recipe.served
            client = servers.client_of(served, {"default": settings})
            asks = [Ask((Message("user", word),), 8, word) for word in piece]
            said = [getattr(answer, "text", str(answer)) for answer in client.complete_many(asks)]
        else:
            said = self._flight.run(lambda size: self._written(piece, size))
        done(len(piece))
        pairs = enumerate(zip(piece, said, strict=True))
        verdicts = [Verdict(word, k, True, 0.5, text, "scribe") for k, (word, text) in pairs]
        return Made(verdicts, whole=first != recipe.partial)

    def _written(self, piece: Sequence[str], size: int) -> list[str]:
        if size > self._recipe.most:
            raise MemoryError(f"no room for {size}")
        return [f"on {word}" for word in piece]

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
