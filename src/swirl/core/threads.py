"""Work spread over a few threads, with results in order.

A single operation of a tiny model cannot keep several cores busy, but several operations at the same time can: torch
releases Python's interpreter lock inside its operations, so two threads with one core each do nearly twice the work of
one. Each piece is computed independently, so no result depends on timing.

Threads cannot be interrupted, so who waits for them would wait on after Ctrl-C. The work in a `Pool` is told instead
that it was given up, also through pools within pools: `end_if_given_up` ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from threading import Event
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_left: ContextVar[tuple[Event, ...]] = ContextVar("left", default=())
"""One for each pool that this thread works for, set when that pool is left before its work is done."""


class GivenUpError(Exception):
    """Ends work that nobody waits for any more."""


def end_if_given_up() -> None:
    """Raise `GivenUpError` where an error or Ctrl-C ended what waits for this thread's work."""
    if any(one.is_set() for one in _left.get()):
        raise GivenUpError


class Pool(ThreadPoolExecutor):
    """Threads whose work is given up when Ctrl-C leaves the `with` statement; after any error no more is begun."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._gone = Event()
        self._all = (*_left.get(), self._gone)

    def submit(self, work: Callable[..., Result], /, *given: Any, **named: Any) -> Future[Result]:
        """See `ThreadPoolExecutor.submit`."""

        def told() -> Result:
            _left.set(self._all)
            return work(*given, **named)

        return super().submit(told)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is not None:
            if not issubclass(kind, Exception):  # Ctrl-C; after an error, work that others may keep goes on to its end
                self._gone.set()
            self.shutdown(wait=False, cancel_futures=True)
        return super().__exit__(kind, error, trace)


def spread(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]` on `workers` threads; the first exception is raised."""
    pieces = list(items)
    if workers == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    with Pool(workers) as pool:
        return list(pool.map(work, pieces))
