"""Blocks made in this process, several at the same time on threads if their recipe says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from swirl.core.journal import Journal
from swirl.core.threads import pool
from swirl.execution.blocks import Done, Made, Piece, Pieces, Recipe, Record, commit


class LocalEngine(Generic[Piece, Record]):
    """Makes the blocks of one recipe here."""

    def __init__(self, recipe: Recipe[Piece, Record]) -> None:
        self._recipe, self._maker = recipe, recipe.open(None)

    def blocks(
        self, journal: Journal, pieces: Pieces[Piece], done: Done, before: Done | None = None
    ) -> Iterator[Made[Record]]:
        """See `swirl.execution.engines.Engine.blocks`."""
        self._maker.begin(journal.flight)

        def block(number: int) -> Made[Record]:
            piece = pieces[number]
            if journal.holds(number, self._recipe.record_type):
                (before or done)(len(piece))
                return Made([])
            return commit(journal, number, self._recipe.record_type, self._maker.make(piece, done))

        if self._recipe.at_once == 1 or len(pieces) < 2:
            yield from map(block, range(len(pieces)))
            return
        with pool(self._recipe.at_once) as threads:
            yield from threads.map(block, range(len(pieces)))

    def close(self) -> None:
        """Nothing is left to do."""
