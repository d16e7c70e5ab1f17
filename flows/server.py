"""A Prefect server, a worker and the deployments of prefect.yaml on this machine: `make prefect`, `make prefect-demo`.

Everything listens on 127.0.0.1 and ends with this program. With PREFECT_API_URL set, `demo` uses that server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swirl.orchestration.ends import when_asked_to_end
from swirl.pipeline.environment import quiet, reach_this_machine

ROOT = Path(__file__).resolve().parents[1]
POOL = "swirl"
DEMO = "swirl-pipeline/swirl-on-demand"
PATIENCE = 120.0
"""Seconds that a server may take to start."""
GRACE = 60.0
"""Seconds that server and worker have to end, the runs under way included."""


class LocalError(Exception):
    """What keeps server, worker or deployments from starting."""


def environment(api: str) -> dict[str, str]:
    """What Prefect's programs run with."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    patient = {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}  # seconds; stages keep all cores busy
    return {**patient, **os.environ, "PATH": path, "PREFECT_API_URL": api}


def answers(api: str) -> bool:
    """Whether a Prefect server answers there."""
    request = urllib.request.Request(f"{api}/health")
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(json.load(reply) is True)
    except (OSError, ValueError):
        return False


def prefect(api: str, *arguments: str) -> None:
    """Run a command of Prefect. Raises `LocalError` with what it said."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(api), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def running(api: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of Prefect in the background; asked to end at the end, killed when it does not."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    # In a group of its own, so that Ctrl-C in a terminal reaches it through us alone.
    process = subprocess.Popen(command, cwd=ROOT, env=environment(api), start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def server(port: int) -> Iterator[str]:
    """A Prefect server at 127.0.0.1: the address of its API. Raises `LocalError` when it cannot start."""
    api = f"http://127.0.0.1:{port}/api"
    if answers(api):
        raise LocalError(
            f"a Prefect server answers at {api} already: use it (PREFECT_API_URL={api} make prefect-demo), stop it, "
            "or take another port: make prefect PREFECT_PORT=4201"
        )
    with running(api, "server", "start", "--host", "127.0.0.1", "--port", str(port)) as process:
        deadline = time.monotonic() + PATIENCE
        while not answers(api):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"the Prefect server at port {port} did not start; what it said stands above")
            time.sleep(0.2)
        yield api


@contextlib.contextmanager
def worker(api: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that runs deployed flows as processes, one at a time: they share the project's folder."""
    with running(api, "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1") as process:
        yield process


def deploy(api: str) -> None:
    """Make the deployments what prefect.yaml says, and the work pool if there is none."""
    try:
        prefect(api, "work-pool", "inspect", POOL)
    except LocalError:
        prefect(api, "work-pool", "create", POOL, "--type", "process")
    prefect(api, "deploy", "--all")


def up(port: int) -> int:
    """Serve until Ctrl-C, or until the worker ends."""
    with server(port) as api:
        deploy(api)
        with worker(api) as process:
            print(f"\nFlow runs and deployments: http://127.0.0.1:{port}   Ctrl-C ends it.\n", flush=True)
            process.wait()
    return 1


def demo(port: int) -> int:
    """Deploy and run the pipeline once, on the server that is there or on one for the time of the run."""
    given = os.environ.get("PREFECT_API_URL")
    local = f"http://127.0.0.1:{port}/api"
    with contextlib.ExitStack() as stack:
        api = given or (local if answers(local) else "")
        if not api:
            print("No Prefect server here (`make prefect` starts one to stay): one for this run alone.", flush=True)
            api = stack.enter_context(server(port))
            deploy(api)
            stack.enter_context(worker(api))
        else:
            deploy(api)
        command = [sys.executable, "-m", "prefect", "deployment", "run", DEMO, "--watch"]
        status = subprocess.run(command, cwd=ROOT, env=environment(api), check=False).returncode
    if not given:
        print(f"\nThe run and its artifacts: make prefect, then http://127.0.0.1:{port}")
    return status


def _end(number: int) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Start what was asked for; 1 with a sentence when something keeps it from starting."""
    parser = argparse.ArgumentParser(description="Prefect on this machine: server, worker, deployments.")
    parser.add_argument("what", choices=["up", "demo"], help="up: serve until Ctrl-C; demo: deploy and run once")
    parser.add_argument("--port", type=int, default=4200, help="the server's port (default: 4200)")
    chosen = parser.parse_args()
    quiet()
    reach_this_machine()
    when_asked_to_end(_end)
    # A shell starts what is in the background with Ctrl-C ignored; Prefect's worker ends by nothing else.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    actions: dict[str, Any] = {"up": up, "demo": demo}
    try:
        return int(actions[chosen.what](chosen.port))
    except LocalError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if chosen.what == "up" else 130


if __name__ == "__main__":
    sys.exit(main())
