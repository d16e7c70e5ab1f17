"""The assistant's turns of a logged conversation in a model's tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WrittenTurn:
    """One turn of the assistant."""

    message: int
    """Which message it is."""
    before: tuple[int, ...]
    """Tokens between the turn before, with its end of turn, and this one; or the whole state."""
    anew: bool
    """Whether `before` is the whole state: at the beginning, and where the template rewrites the past."""
    reply: tuple[int, ...]
    """Its end of turn included."""


def cuts_of(turns: Iterable[tuple[int, bool]], actions: Collection[int]) -> int:
    """How often a state of one of the `actions` begins anew, the first not counted.

    `turns` are messages of the assistant in their order, and whether what they are shown begins anew there.
    """
    cuts, anew, begun = 0, False, False
    for message, again in turns:
        anew = anew or again
        if message in actions:
            cuts += anew and begun
            anew, begun = False, True
    return cuts
