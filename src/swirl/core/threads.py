"""Work spread over a few threads, with results in order.

A single operation of a tiny model cannot keep several cores busy, but several operations at the same time can: torch
releases Python's interpreter lock inside its operations, so two threads with one core each do nearly twice the work of
one. Each piece is computed independently, so no result depends on timing.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]` on `workers` threads; the first exception is raised."""
    pieces = list(items)
    if workers == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    with pool(workers) as threads:
        return list(threads.map(work, pieces))


@contextmanager
def pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for this block, which ends when they have; Ctrl-C alone does not wait for them: see `leave`."""
    threads, wait = ThreadPoolExecutor(workers), True
    try:
        yield threads
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        threads.shutdown(wait, cancel_futures=not wait)


def leave(status: int) -> None:
    """End the process with this exit status if threads are still at work, for which Python would wait first.

    What is registered to be done at exit is done. Returns if no thread but this one would be waited for.
    """
    if all(thread.daemon or thread is threading.current_thread() for thread in threading.enumerate()):
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
