"""What runs in the processes of a Ray cluster: workers that make blocks, and the keeper of the paces they share."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, Generic

import ray

from swirl.core.errors import SwirlError
from swirl.endpoints.request_pace import Pace
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Made, Maker, Piece, Recipe, Record, Sharing
from swirl.pipeline.environment import disable_telemetry, set_torch_variables
from swirl.pipeline.source import digest


class BlockWorker(Generic[Piece, Record]):
    """Makes blocks, one at a time, with a model that it loads before its first."""

    def __init__(self, recipe: Recipe[Piece, Record], source: str, workers: int, keeper: str) -> None:
        """`source` is the digest of the recipe's stage; `keeper` the name of the `PaceKeeper` of all `workers`."""
        self._recipe, self._source, self._workers, self._keeper = recipe, source, workers, keeper
        self._maker: Maker[Piece, Record] | None = None

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> str:
        """Which process this is; waits for a worker that Ray is starting again."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def make(self, piece: Piece) -> Made[Record]:
        """See `swirl.execution.blocks.Maker.make`."""
        if self._maker is None:
            self._maker = self._open()
        return self._maker.make(piece, lambda count: None)

    def usage(self) -> dict[str, Counts]:
        """See `swirl.execution.blocks.Maker.usage`."""
        return self._maker.usage() if self._maker else {}

    def _open(self) -> Maker[Piece, Record]:
        """Raises `SwirlError` where the source or a library is not the driver's: the bytes would be others."""
        set_torch_variables(self._recipe.threads)
        disable_telemetry()
        if digest(self._recipe.stage) != self._source:
            raise SwirlError(
                f"the worker on {socket.gethostname()} has other source of stage {self._recipe.stage}, or other "
                "versions of what it computes with, than the stage itself: install the same on all nodes"
            )
        keeper = ray.get_actor(self._keeper)
        maker = self._recipe.open(Sharing(self._workers, lambda name, rate: SharedPace(keeper, name, rate)))
        maker.begin(None)
        return maker


class PaceKeeper:
    """Keeps one pace for each limit, for all workers together."""

    def __init__(self) -> None:
        self._paces: dict[str, Pace] = {}

    def reserve(self, name: str, per_minute: float, amount: float) -> float:
        """Take the next free place of this limit; returns how many seconds from now it begins."""
        return self._paces.setdefault(name, Pace(per_minute)).reserve(amount)

    def correct(self, name: str, more: float) -> None:
        """See `Pace.correct`."""
        if name in self._paces:
            self._paces[name].correct(more)


class SharedPace:
    """A pace that a `PaceKeeper` keeps."""

    def __init__(self, keeper: Any, name: str, per_minute: float) -> None:
        self._keeper, self._name, self._per_minute = keeper, name, per_minute

    async def wait(self, amount: float) -> None:
        """Wait until `amount` more (requests or tokens) is within the limit."""
        if self._per_minute:
            seconds = await self._keeper.reserve.remote(self._name, self._per_minute, amount)
            await asyncio.sleep(seconds)

    def correct(self, more: float) -> None:
        """Add `more` (which may be negative) to the amount that `wait` was given."""
        if self._per_minute:
            self._keeper.correct.remote(self._name, more)
