"""Blocks made by workers of a Ray cluster, handed out as the workers become free.

A worker that dies, alone or with its node, costs the block that it was making: Ray starts the worker again, and the
block is made once more. A block whose workers die again and again stops the stage. When this process dies, its workers
end; the journal has every block that had been made.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic
from uuid import uuid4

from swirl.config.execution import Execution
from swirl.core.errors import SwirlError
from swirl.core.flights import report_smaller
from swirl.core.journal import Journal
from swirl.core.records import load_json, save_json
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Done, Made, Piece, Pieces, Recipe, Record, commit
from swirl.execution.ray_cluster import connect
from swirl.pipeline.source import digest

if TYPE_CHECKING:
    from swirl.execution.ray_worker import Delivery

MOST_DEATHS = 3
"""How many workers may die of one block."""
_PATIENCE_S = 30.0
"""Seconds without news after which a line says that no worker runs."""


class _Round(Generic[Piece, Record]):
    """The blocks of one journal while they are made."""

    def __init__(
        self, journal: Journal, record_type: type[Record], pieces: Pieces[Piece], done: Done, before: Done
    ) -> None:
        self.journal, self.record_type, self.pieces, self.done = journal, record_type, pieces, done
        self.waiting = deque[int]()
        for number in range(len(pieces)):
            if journal.holds(number, record_type):
                before(len(pieces[number]))
            else:
                self.waiting.append(number)
        self.unfinished = set(self.waiting)
        self.deaths = Counter[int]()
        self.flight: Mapping[str, int] | None = load_json(journal.flight) if journal.flight.exists() else None
        """How large a flight the blocks are made with, if memory does not allow what was asked for."""
        self._sizes: dict[int, int] = {}
        """Of the pieces that were handed out."""
        self._made: dict[int, Made[Record]] = {}

    def hand_out(self) -> tuple[int, Piece]:
        """The next piece that is to be made, and its number."""
        number = self.waiting.popleft()
        piece = self.pieces[number]
        self._sizes[number] = len(piece)
        return number, piece

    def take(self, number: int, made: Made[Record]) -> None:
        """Commit a block that has arrived."""
        self._made[number] = commit(self.journal, number, self.record_type, made)
        self.unfinished.discard(number)
        self.done(self._sizes[number])

    def note_flight(self, flight: Mapping[str, int] | None) -> None:
        """Keep a worker's flight with the journal if it is the smallest yet: whoever goes on takes no larger one."""
        if not flight:
            return
        before = self.flight or flight
        both = {"size": min(before["size"], flight["size"]), "halved": before["halved"] or flight["halved"]}
        if both != self.flight:
            save_json(both, self.journal.flight)
            self.flight = both

    def give(self, number: int) -> Made[Record]:
        """A finished block."""
        return self._made.pop(number, None) or Made([])


class RayEngine(Generic[Piece, Record]):
    """Makes the blocks of one recipe on a Ray cluster; see the module."""

    def __init__(self, settings: Execution, recipe: Recipe[Piece, Record]) -> None:
        """Join the cluster; workers start with the first block. Raises as `ray_cluster.connect` does."""
        connect(settings, recipe.cpus)
        self._settings, self._recipe = settings, recipe
        self._workers: list[Any] = []
        self._paces: Any = None
        self._idle: list[Any] = []
        """Workers without a block. Nothing is asked of them, so one that dies is not missed."""
        self._busy: dict[Any, tuple[Any, int | None]] = {}
        """Call that is not over -> its worker, and the block's number; None for a worker that is asked if it runs."""
        self._names: dict[Any, str] = {}
        self._used: dict[str, dict[str, Counts]] = {}
        """A worker's name -> what it has used of servers so far."""

    def blocks(
        self, journal: Journal, pieces: Pieces[Piece], done: Done, before: Done | None = None
    ) -> Iterator[Made[Record]]:
        """See `swirl.execution.engines.Engine.blocks`."""
        work = _Round(journal, self._recipe.record_type, pieces, done, before or done)
        if work.unfinished and not self._workers:
            self._start(len(work.unfinished))
        for number in range(len(pieces)):
            while number in work.unfinished:
                self._go_on(work)
            yield work.give(number)

    def close(self) -> None:
        """End the workers, so that what they hold (GPUs, for example) is free."""
        import ray

        for used in self._used.values():
            self._recipe.add_usage(used)
        for worker in (*self._workers, *([self._paces] if self._paces else [])):
            ray.kill(worker)
        self._workers, self._idle, self._busy, self._used, self._paces = [], [], {}, {}, None

    def _start(self, blocks: int) -> None:
        import ray

        from swirl.execution.ray_worker import BlockWorker, PaceKeeper

        count, stage = self._settings.workers, self._recipe.stage
        if blocks < count:
            print(f"{stage}: {blocks} blocks for {count} workers of Ray, so some have nothing to do", flush=True)
        keeper = f"swirl-paces-{uuid4()}"  # found by name: a handle might be lost to a restarted worker
        self._paces = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, name=keeper)(PaceKeeper).remote()
        kind = ray.remote(
            num_cpus=self._recipe.cpus, num_gpus=self._settings.gpus_per_worker, max_restarts=-1, max_task_retries=0
        )(BlockWorker)
        source = digest(stage)
        self._workers = [kind.remote(self._recipe, source, self._settings, keeper) for _ in range(count)]
        self._busy = {worker.ready.remote(): (worker, None) for worker in self._workers}

    def _go_on(self, work: _Round[Piece, Record]) -> None:
        """Wait for what comes next. If there are blocks to do, idle workers are asked if they run, and get one then."""
        import ray

        if work.waiting:  # a block that went to a worker which has died unseen would be blamed for that
            self._busy |= {worker.ready.remote(): (worker, None) for worker in self._idle}
            self._idle = []
        if not self._busy:
            raise SwirlError(
                f"{self._recipe.stage}: no worker of Ray is left, with {len(work.unfinished)} blocks to do"
            )
        over, _ = ray.wait(list(self._busy), num_returns=1, timeout=_PATIENCE_S)
        if not over and all(number is None for _, number in self._busy.values()):
            self._say_what_is_wanted()
        for call in over:
            self._settle(work, call, *self._busy.pop(call))

    def _settle(self, work: _Round[Piece, Record], call: Any, worker: Any, number: int | None) -> None:
        """Take what a call has brought: a worker that is ready, a block, or the end of the worker."""
        import ray

        try:
            brought = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what a block raises here ends the stage, too
        except ray.exceptions.RayError as error:
            self._bury(work, worker, number, error)
            return
        if number is None:
            self._names[worker] = brought
        else:
            self._take(work, worker, number, brought)
        self._hand_out(work, worker)

    def _take(self, work: _Round[Piece, Record], worker: Any, number: int, brought: Delivery[Record]) -> None:
        """Take a block, and what its worker says of itself."""
        self._used[self._names[worker]] = brought.usage
        report_smaller(brought.smaller)
        work.note_flight(brought.flight)
        work.take(number, brought.made)

    def _hand_out(self, work: _Round[Piece, Record], worker: Any) -> None:
        """Give a worker that has just answered the next block, if there is one."""
        if not work.waiting:
            self._idle.append(worker)
            return
        number, piece = work.hand_out()
        self._busy[worker.make.remote(piece, str(work.journal.folder), work.flight)] = (worker, number)

    def _bury(self, work: _Round[Piece, Record], worker: Any, number: int | None, error: Exception) -> None:
        """A worker has died: its block waits again, before all others, and so does the worker, for Ray to start it."""
        name = self._names.get(worker, "a worker")
        why = " ".join(str(error).split())[:300]
        if number is None:  # Ray does not start it again
            print(f"warning: {name} of Ray did not start: {why}", file=sys.stderr, flush=True)
            return
        work.deaths[number] += 1
        if work.deaths[number] == MOST_DEATHS:
            raise SwirlError(
                f"{self._recipe.stage}: block {number} has ended {MOST_DEATHS} workers of Ray, the last {name}; "
                f"a worker without memory dies like that: {why}"
            )
        text = f"{name} died while it made block {number}, which is made again; Ray starts the worker again"
        print(f"warning: {self._recipe.stage}: {text}: {why}", file=sys.stderr, flush=True)
        work.waiting.appendleft(number)
        self._busy[worker.ready.remote()] = (worker, None)

    def _say_what_is_wanted(self) -> None:
        import ray

        cpus, gpus, free = self._recipe.cpus, self._settings.gpus_per_worker, ray.available_resources()
        state = "runs any more" if self._names else "has started yet"
        print(
            f"{self._recipe.stage}: no worker of Ray {state}: each wants {cpus} CPUs and {gpus:g} GPUs, and "
            f"the cluster has {free.get('CPU', 0):g} and {free.get('GPU', 0):g} free",
            flush=True,
        )
