"""The assistant's turns of a logged conversation in a model's tokens."""

from __future__ import annotations

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
