"""What runs in the processes of a Ray cluster: workers that make blocks, and the keeper of the paces they share."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic
from uuid import uuid4

import ray

from swirl.config.execution import Execution
from swirl.core.errors import SwirlError
from swirl.core.flights import smaller_flights
from swirl.core.records import load_json, save_json
from swirl.endpoints.request_pace import Pace
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Made, Maker, Piece, Recipe, Record, Sharing
from swirl.models import room
from swirl.pipeline.environment import disable_telemetry, set_torch_variables
from swirl.pipeline.source import digest


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Record]):
    """What a worker sends: a block, and what the stage is to know of the worker's process so far."""

    made: Made[Record]
    usage: dict[str, Counts]
    """See `swirl.execution.blocks.Maker.usage`."""
    smaller: dict[str, float]
    """See `swirl.core.flights.smaller_flights`."""
    flight: Mapping[str, int] | None
    """What belongs into the file `Journal.flight`; None for a flight that is as large as params ask for."""


class BlockWorker(Generic[Piece, Record]):
    """Makes blocks, one at a time, with a model that it loads before its first."""

    def __init__(self, recipe: Recipe[Piece, Record], source: str, settings: Execution, keeper: str) -> None:
        """`source` is the digest of the recipe's stage; `keeper` the name of the `PaceKeeper` of all workers."""
        self._recipe, self._source, self._settings, self._keeper = recipe, source, settings, keeper
        self._maker: Maker[Piece, Record] | None = None
        self._journal = ""
        """Where the journal is that the maker has begun."""
        self._note = Path(tempfile.gettempdir()) / f"swirl-flight-{uuid4()}.json"
        """Where the maker reads and writes its flight; there is a file only while it does."""
        self._flight: Mapping[str, int] | None = None

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> str:
        """Which process this is; waits for a worker that Ray is starting again."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def make(self, piece: Piece, journal: str, flight: Mapping[str, int] | None) -> Delivery[Record]:
        """A block of the journal in the folder `journal`, whose file says `flight`; see `Maker.make`."""
        if self._maker is None:
            self._maker = self._open()
        if journal != self._journal:
            self._begin(self._maker, flight)
            self._journal = journal
        made = self._maker.make(piece, lambda count: None)
        self._read_note()
        return Delivery(made, self._maker.usage(), smaller_flights(), self._flight)

    def _open(self) -> Maker[Piece, Record]:
        """Raises `SwirlError` where the source or a library is not the driver's: the bytes would be others."""
        set_torch_variables(self._recipe.threads)
        disable_telemetry()
        if digest(self._recipe.stage) != self._source:
            raise SwirlError(
                f"the worker on {socket.gethostname()} has other source of stage {self._recipe.stage}, or other "
                "versions of what it computes with, than the stage itself: install the same on all nodes"
            )
        room.share_devices(*sharers(self._settings, self._recipe.cpus, _resources_here()))
        keeper = ray.get_actor(self._keeper)
        workers = self._settings.workers
        return self._recipe.open(Sharing(workers, lambda name, rate: SharedPace(keeper, name, rate)))

    def _begin(self, maker: Maker[Piece, Record], flight: Mapping[str, int] | None) -> None:
        """Go on with the flight that the journal has; what this one is goes to the stage, which alone writes there."""
        self._flight = None
        if flight:
            save_json(dict(flight), self._note)
        maker.begin(self._note)
        self._read_note()

    def _read_note(self) -> None:
        if self._note.exists():
            self._flight = load_json(self._note)
            self._note.unlink()


def sharers(settings: Execution, cpus: int, node: Mapping[str, float]) -> tuple[int, int]:
    """How many workers, at most, share the memory of a node with these resources, and how many that of one GPU.

    Which of them Ray has placed there, or will when another node dies, is not known; so all that fit are counted.
    """
    gpus = settings.gpus_per_worker
    wanted = {name: wants for name, wants in (("CPU", cpus), ("GPU", gpus)) if wants and name in node}
    fits = [int(node[name] / wants + 1e-6) for name, wants in wanted.items()]
    here = max(1, min([settings.workers, *fits]))
    return here, max(1, min(here, int(1 / gpus + 1e-6))) if gpus else here


def _resources_here() -> Mapping[str, float]:
    """All that the node of this worker has for the workers of Ray."""
    mine = ray.get_runtime_context().get_node_id()
    return next((node["Resources"] for node in ray.nodes() if node["NodeID"] == mine), {})


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
