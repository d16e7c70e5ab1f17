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
from swirl.pipeline.environment import bypass_proxy_for_localhost, disable_telemetry

ROOT = Path(__file__).resolve().parents[1]
POOL = "swirl"
DEMO = "swirl-pipeline/swirl-on-demand"
PATIENCE = 120.0
"""Seconds that a server may take to start."""
GRACE = 60.0
"""Seconds that server and worker have to end, flow runs in progress included."""


class LocalError(Exception):
    """A server, worker or deployment cannot start."""


def environment(api: str) -> dict[str, str]:
    """The environment variables of Prefect's programs.

    The server answers its own pages alone: by default any page in this machine's browser may ask it, and could have the
    worker run what it likes.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    patient = {"PREFECT_SERVER_DATABASE_TIMEOUT": "60"}  # seconds; stages keep all cores busy
    own = api.removesuffix("/api")
    origins = f"{own},{own.replace('//127.0.0.1', '//localhost')}"
    return {
        **patient,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origins,
        **os.environ,
        "PATH": path,
        "PREFECT_API_URL": api,
    }


def answers(api: str) -> bool:
    """Whether a Prefect server answers at this API address."""
    request = urllib.request.Request(f"{api}/health")
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(json.load(reply) is True)
    except (OSError, ValueError):
        return False


def prefect(api: str, *arguments: str) -> None:
    """Run a Prefect command. Raises `LocalError` with its output when it fails."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(api), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def running(api: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Prefect command in the background; terminated when the context ends, and killed if it does not react."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    # In a group of its own, so that Ctrl-C in a terminal reaches it only through this program.
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
    """Run a Prefect server at 127.0.0.1 and yield its API address. Raises `LocalError` when it cannot start."""
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
    """Create or update the deployments of prefect.yaml, and create the work pool if there is none."""
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
    """Deploy and run the pipeline once, on a server that already runs or on one that ends with the run."""
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
    """Start what was asked for; prints one sentence and returns 1 when it cannot start."""
    parser = argparse.ArgumentParser(description="Prefect on this machine: server, worker, deployments.")
    parser.add_argument("what", choices=["up", "demo"], help="up: serve until Ctrl-C; demo: deploy and run once")
    parser.add_argument("--port", type=int, default=4200, help="the server's port (default: 4200)")
    chosen = parser.parse_args()
    disable_telemetry()
    bypass_proxy_for_localhost()
    when_asked_to_end(_end)
    # A shell starts background programs with SIGINT ignored, which Prefect's worker would inherit. But SIGINT alone
    # ends it: it turns SIGTERM into SIGINT.
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
