"""A cluster of Ray as a test wants it: workers live in this process, die when they are told to, and start where there
is a place. What a call brings, and with what error it ends, is as Ray has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from swirl.core import flights
from swirl.execution import ray_engine, ray_worker
from swirl.models import room
from swirl.wiring import servers

PATIENCE = 5
"""So often nothing comes of waiting before a test fails."""


@dataclass(eq=False)
class Worker:
    """An actor of `BlockWorker`; `name` is new whenever it starts."""

    cluster: Cluster
    make_one: Callable[[], Any]
    lives: bool = False
    starts: int = 0

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *given: Call(self, method, given))

    @property
    def name(self) -> str:
        return f"worker {self.cluster.workers.index(self)}, start {self.starts}"

    def start(self) -> None:
        self.lives, self.starts, self.one = True, self.starts + 1, self.make_one()


@dataclass(eq=False)
class Call:
    worker: Worker
    method: str
    given: tuple[Any, ...]
    brought: Any = None
    lost: bool = False

    def over(self) -> bool:
        """Whether it can be brought to its end now."""
        worker, cluster = self.worker, self.worker.cluster
        if self.method == "ready":
            if not worker.lives and cluster.places:
                worker.start()
            self.brought = worker.name
            return worker.lives
        self.lost = not worker.lives
        if worker.lives:
            self.brought = getattr(worker.one, self.method)(*self.given)
            self.lost = not worker.lives  # it died of what it did
        return True


@dataclass
class Cluster:
    """`install` puts it in the place of Ray."""

    places: bool = True
    """Whether a worker that does not live can be started."""
    when_asked: Callable[[], None] = lambda: None
    """What happens when somebody asks for what is free."""
    workers: list[Worker] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    """What a worker was asked for with."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._waited = 0
        here = {name: getattr(self, name) for name in ("remote", "get", "wait", "available_resources")}
        nowhere = SimpleNamespace(get_node_id=lambda: "here")
        others = {"kill": lambda worker: None, "nodes": list, "get_actor": str, "get_runtime_context": lambda: nowhere}
        for name, replacement in (here | others).items():
            monkeypatch.setattr(ray, name, replacement)
        monkeypatch.setattr(ray_engine, "connect", lambda settings, cpus: None)
        monkeypatch.setattr(ray_worker, "set_torch_variables", lambda threads: None)
        monkeypatch.setattr(ray_worker, "disable_telemetry", lambda: None)
        for module, name, value in (
            (flights, "_smaller", []),
            (flights, "_elsewhere", {}),
            (room, "_sharers", {"cpu": 1, "cuda": 1}),
            (servers, "_sharing", None),
        ):
            monkeypatch.setattr(module, name, value)

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            self.workers[number].lives = False

    def remote(self, **options: Any) -> Callable[[type], Any]:
        def actor(kind: type) -> Any:
            if kind is not ray_worker.BlockWorker:
                return SimpleNamespace(remote=lambda: SimpleNamespace())

            self.options = options

            def started(*given: Any) -> Worker:
                self.workers.append(Worker(self, lambda: kind(*given)))
                return self.workers[-1]

            return SimpleNamespace(remote=started)

        return actor

    def wait(self, calls: Sequence[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        over = next(([call] for call in calls if call.over()), [])
        self._waited = 0 if over else self._waited + 1
        assert self._waited < PATIENCE, "it waits without a word"
        return over, [call for call in calls if call not in over]

    def get(self, call: Call) -> Any:
        if call.lost:
            raise ray.exceptions.ActorUnavailableError("the actor is restarting", None)
        return call.brought

    def available_resources(self) -> dict[str, float]:
        self.when_asked()
        return {"CPU": 0.0}
