"""A pace that keeps below a rate."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Pacer(Protocol):
    """A pace, kept by this process or by another."""

    async def wait(self, amount: float) -> None:
        """Wait until `amount` more (requests or tokens) is within the limit."""
        ...

    def correct(self, more: float) -> None:
        """Add `more` (which may be negative) to the amount that `wait` was given."""
        ...


class Pace:
    """Spaces requests (or tokens) evenly, to stay below a number per minute; 0: no limit."""

    def __init__(self, per_minute: float) -> None:
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._free = 0.0

    async def wait(self, amount: float) -> None:
        """Wait until `amount` more (requests or tokens) is within the limit."""
        if (seconds := self.reserve(amount)) > 0:
            await asyncio.sleep(seconds)

    def reserve(self, amount: float) -> float:
        """Take the next free place for `amount` more; returns how many seconds from now it begins."""
        now = time.monotonic()
        start = max(now, self._free)
        self._free = start + amount * self._seconds
        return start - now

    def correct(self, more: float) -> None:
        """Add `more` (which may be negative) to the amount that `wait` was given."""
        self._free += more * self._seconds
