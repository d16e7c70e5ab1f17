"""What a block is to the engines: a piece of work, how it is made, what comes of it, and how it is committed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from swirl.core.journal import Journal
from swirl.endpoints.request_pace import Pacer
from swirl.endpoints.requests import Counts

Piece = TypeVar("Piece", bound=Sized)
Piece_co = TypeVar("Piece_co", bound=Sized, covariant=True)
Piece_contra = TypeVar("Piece_contra", bound=Sized, contravariant=True)
Record = TypeVar("Record")

Done = Callable[[int], None]
"""Is told how many units of a piece (trajectories) are done."""


@dataclass(frozen=True)
class Made(Generic[Record]):
    """A block that was made."""

    records: list[Record]
    """Empty once it is committed: the journal has them."""
    whole: bool = True
    """False for a block that is used but not committed, so that a later run makes it again."""


class Pieces(Protocol[Piece_co]):
    """The pieces of work of a journal, in order. An engine asks for one when it is to be made, and keeps it not longer:
    so they may be read from a file one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Piece_co: ...


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a worker, which makes one block at a time, shares the limits of servers with others that ask them, too."""

    workers: int
    """How many there are; each has its part of a server's concurrency."""
    pace: Callable[[str, float], Pacer]
    """The pace that all of them keep together, by the limit's name and number per minute."""


class Maker(Protocol[Piece_contra, Record]):
    """Makes blocks; holds the model that does."""

    def begin(self, flight: Path) -> None:
        """Plan how much is worked on at once for the blocks of a journal, and note it in the file `flight` if it is
        less than params ask for. What the file says already is not exceeded."""
        ...

    def make(self, piece: Piece_contra, done: Done) -> Made[Record]:
        """The block of a piece. The same piece gives the same bytes, in whatever process and order."""
        ...

    def usage(self) -> dict[str, Counts]:
        """By address, the use of servers in this process so far."""
        ...


class Recipe(Protocol[Piece_contra, Record]):
    """All that is needed to open a maker anywhere; it can be pickled, and holds no model."""

    @property
    def stage(self) -> str:
        """The stage whose source makes the blocks."""
        ...

    @property
    def record_type(self) -> type[Record]:
        """What blocks are made of."""
        ...

    @property
    def at_once(self) -> int:
        """How many blocks a process makes at the same time, on threads that share the maker."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads inside one torch operation."""
        ...

    @property
    def cpus(self) -> int:
        """CPUs that a process keeps busy while it makes one block."""
        ...

    def open(self, sharing: Sharing | None) -> Maker[Piece_contra, Record]:
        """Load what makes blocks; `sharing` is None where no other process asks the same servers."""
        ...

    def add_usage(self, usage: dict[str, Counts]) -> None:
        """Add a worker's use of servers to that of this process."""
        ...


def commit(journal: Journal, number: int, record_type: type[Record], made: Made[Record]) -> Made[Record]:
    """Commit a block as number `number`, if it is whole; returns it without what the journal has now."""
    if not made.whole:
        return made
    journal.commit(number, record_type, made.records)
    return dataclasses.replace(made, records=[])
