"""Work spread over a few threads, with results in order.

A single operation of a tiny model cannot keep several cores busy, but several operations at the same time can: torch
releases Python's interpreter lock inside its operations, so two threads with one core each do nearly twice the work of
one. Each piece is computed independently, so no result depends on timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]` on `workers` threads; the first exception is raised."""
    pieces = list(items)
    if workers == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, pieces))
