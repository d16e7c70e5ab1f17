"""`flows/server.py up` in a process of its own, and its API, through which tests do and see what a UI user does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.servers import held_port

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Served:
    """A project whose deployments are served."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The API's answer; the request is repeated while the server is busy."""
        data, kind = json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        failure: OSError | None = None
        for _ in range(20):
            try:
                request = urllib.request.Request(address, data=data, headers=kind, method=method)
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return json.loads(reply.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # the answer of a server whose database is busy
                    raise
                failure = error
            except OSError as error:  # no answer in time, or a connection that broke
                failure = error
            time.sleep(1)
        raise AssertionError(f"{path}: the server is too busy: {failure}")

    def deployment(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.post("deployments/filter")
        return next(one for one in found if one["name"] == name)

    def run(self, name: str, **parameters: Any) -> str:
        """Triggers a deployment as the UI does, and returns the id of the flow run."""
        body = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}  # a repeated request makes no second run
        created = self.post(f"deployments/{self.deployment(name)['id']}/create_flow_run", body)
        return str(created["id"])

    def fired(self, name: str) -> dict[str, Any]:
        """The first flow run of a deployment's schedule, once it has ended; later scheduled runs are cancelled."""
        deployment = self.deployment(name)["id"]

        def runs(*states: str) -> list[dict[str, Any]]:
            only = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": states}}}}
            found: list[dict[str, Any]] = self.post("flow_runs/filter", {**only, "sort": "START_TIME_ASC"})
            return found

        self.wait(lambda: bool(runs("RUNNING", *ENDED)))
        run = runs("RUNNING", *ENDED)[0]  # by now it may have ended and the next one begun
        self.post(f"deployments/{deployment}", {"paused": True}, "PATCH")
        for waiting in runs("SCHEDULED", "PENDING"):
            self.post(f"flow_runs/{waiting['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
        return self.ended(run["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found[0]

    def ended(self, run: str) -> dict[str, Any]:
        self.wait(lambda: self.flow_run(run)["state_type"] in ENDED)
        return self.flow_run(run)

    def tasks(self, run: str) -> list[tuple[str, str]]:
        """(name, state) in the order of start, as far as the server knows: see `ran`."""
        found = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"})
        return [(one["name"], one["state_name"]) for one in found if one["state_type"] != "PENDING"]

    def ran(self, run: str, *expected: tuple[str, str]) -> None:
        """Wait for these tasks: Prefect sends their states as events, which may come after the run's last state."""
        self.wait(lambda: self.tasks(run) == [*expected], 60, lambda: self.tasks(run))

    def artifacts(self, run: str) -> dict[str, Any]:
        """The data of the run's artifacts by key, the newest of each key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "CREATED_DESC"}
        found: dict[str, Any] = {}
        for one in self.post("artifacts/filter", body):
            data = one["data"]
            found.setdefault(one["key"], json.loads(data) if one["type"] == "table" else data)
        return found

    def messages(self, run: str) -> list[str]:
        """The run's log, as far as the server knows: see `log` and `whole_log`."""
        return [one["message"] for one in self.logged(run)]

    def logged(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "offset": len(found)}
            page = self.post("logs/filter", body)
            if not page:
                return found
            found += page

    def log(self, run: str, until: str) -> list[str]:
        """The run's log once it contains `until`: Prefect sends the last lines after the state that ends the run."""
        self.wait(lambda: any(until in one for one in self.messages(run)), 60, lambda: self.messages(run))
        return self.messages(run)

    def whole_log(self, run: str) -> list[str]:
        """The run's log once it has the run's own "Finished in state"; those of its tasks come much sooner."""

        def ends(one: dict[str, Any]) -> bool:
            return one["task_run_id"] is None and one["message"].startswith("Finished in state")

        self.wait(lambda: any(map(ends, self.logged(run))), 60, lambda: self.messages(run))
        return self.messages(run)

    def wait(
        self, done: Callable[[], bool], seconds: float = 600.0, seen: Callable[[], object] = lambda: "nothing"
    ) -> None:
        """Waits until `done()` is true; when time runs out, the failure shows `seen()`."""
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, "the server or the worker has ended"
            assert time.monotonic() < deadline, f"waited in vain; there is {seen()}"
            time.sleep(0.3)


@contextmanager
def serving(project: Path, environment: dict[str, str], log: Path) -> Iterator[Served]:
    """Runs the project's flows/server.py until the context ends; its output goes to `log`."""
    with held_port() as port:  # kept free for the server
        command = [sys.executable, str(project / "flows/server.py"), "up", "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            served = Served(project, port, process)
            said = partial(log.read_text, encoding="utf-8")
            served.wait(lambda: "Flow runs and deployments: " in said(), seen=said)
            yield served
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(300)
        assert not listening(port)


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
