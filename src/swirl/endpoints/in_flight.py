"""Equal requests in flight: the first is sent, the others wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(slots=True)
class _Work(Generic[Result]):
    task: asyncio.Task[Result]
    waiting: int = 0


class InFlight(Generic[Result]):
    """Work by key, at most one task a key at a time. All of it runs on one event loop."""

    def __init__(self) -> None:
        self._work: dict[Hashable, _Work[Result]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._work

    async def result(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result, or the error, of the work on `key` that is in flight; of `make()` when none is.

        One that is cancelled while it waits leaves the work to the others; with the last of them it is cancelled.
        """
        work = self._work.get(key)
        if work is None:
            work = self._work[key] = _Work(asyncio.ensure_future(make()))
        work.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if not work.waiting:
                del self._work[key]
                work.task.cancel()  # does nothing to work that is done
