"""The choice of an engine, the one place that knows there are several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from swirl.config.execution import Execution
from swirl.core.journal import Journal
from swirl.execution.blocks import Done, Made, Piece, Piece_contra, Pieces, Recipe, Record
from swirl.execution.local_engine import LocalEngine


class Engine(Protocol[Piece_contra, Record]):
    """Makes the blocks of one recipe, somewhere."""

    def blocks(
        self, journal: Journal, pieces: Pieces[Piece_contra], done: Done, before: Done | None = None
    ) -> Iterator[Made[Record]]:
        """The block of each piece, in order: made and committed, unless it was committed before.

        A block is committed under its own number as soon as it is made, whichever is made first; its records are to be
        read from the journal, those of a block that is not whole are given. `done(n)` is told of `n` more units of a
        piece, from any thread; of those that an earlier run made, `before` is told instead, if it is given.
        """
        ...

    def close(self) -> None:
        """Give up what makes the blocks."""
        ...


@contextmanager
def opened(settings: Execution, recipe: Recipe[Piece, Record]) -> Iterator[Engine[Piece, Record]]:
    """The engine that the settings ask for.

    The local one loads the model now, that of Ray with the first block that has to be made. Raises `ParamsError` when
    there is no Ray, or no such cluster.
    """
    engine: Engine[Piece, Record]
    if settings.engine == "ray":
        from swirl.execution.ray_engine import RayEngine

        engine = RayEngine(settings, recipe)
    else:
        engine = LocalEngine(recipe)
    try:
        yield engine
    finally:
        engine.close()
