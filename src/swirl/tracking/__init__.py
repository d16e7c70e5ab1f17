"""MLflow runs: one parent a pipeline invocation, one child a stage.

Reading order: `stage_run` wraps a stage and tells a second process (`worker`) when it starts and how it ends;
`pipeline` reads the stages from dvc.yaml and finds the invocation, `ledger` remembers which of them are recorded;
`contents`, `inputs` and `samples` read what a stage's files say, `watching` what can be seen while it runs;
`recording` makes `operations` of that, which a `journal` keeps on disk; `store` does them in MLflow; `delivery` and
`sync` bring the one to the other.

MLflow lives in the second process on purpose: its import (about 2 s, 150 MB) happens beside the stage, nothing
in it can change a stage's output, and a stage that is killed is still marked as killed, because the worker sees
its input end. A tracking failure costs one warning and never a stage's work; a server that is down costs nothing but
the time to `swirl track sync` later.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from swirl.config.secrets import plain, without_credentials
from swirl.core.layout import Layout

if TYPE_CHECKING:
    from pydantic import BaseModel

    from swirl.tracking.recording import Recorder

__all__ = ["close_run", "log_cached", "open_run", "stage_run"]

PATIENCE = 300.0
"""Seconds that a finished stage waits for its worker to log (copying models takes longest)."""
GRACE = 30.0
"""Seconds in which a worker that took too long puts away what it has not sent."""


@contextlib.contextmanager
def stage_run(stage_id: str, params: BaseModel | Mapping[str, Any], layout: Layout) -> Iterator[None]:
    """Record the stage that runs inside as a child run of this pipeline invocation.

    `stage_id` is `train-swirl` for `train@swirl`. After the body has ended, the worker logs from the stage's files.
    Exceptions of the body pass through unchanged and mark the child and its parent as failed.
    """
    worker = _start_worker(
        {"stage": stage_id, "params": plain(params), "root": str(layout.root.resolve()), "started": time.time()}
    )
    try:
        yield
    except BaseException as error:
        left_early = isinstance(error, SystemExit) and error.code in (None, 0)
        status = "FINISHED" if left_early else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        _end_worker(worker, status, "" if left_early else f"{type(error).__name__}: {error}")
        raise
    _end_worker(worker, "FINISHED", "")


def _start_worker(request: dict[str, Any]) -> subprocess.Popen[str] | None:
    """The process that logs, in a session of its own: a signal to the stage's group does not reach it."""
    command = [sys.executable, "-m", "swirl.tracking.worker"]
    try:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
    except OSError as error:
        _warn(f"stage {request['stage']} is not recorded in MLflow: {error}")
        return None
    return worker


def _end_worker(worker: subprocess.Popen[str] | None, status: str, error: str) -> None:
    """Tell the worker how the stage ended and wait for it. A worker that has given up has warned already."""
    if worker is None:
        return
    try:
        worker.communicate(json.dumps({"status": status, "error": error}) + "\n", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        worker.terminate()  # it keeps what it has not sent
        try:
            worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
            _warn(f"MLflow took more than {PATIENCE:.0f} s to record a stage; try `swirl track sync`")
    except OSError as failure:
        _warn(f"the end of a stage is not recorded in MLflow: {failure}")


def open_run(
    layout: Layout, params: BaseModel | Mapping[str, Any], name: str, tags: Mapping[str, str] | None = None
) -> str:
    """A new parent run called `name`, with `tags`; what is returned goes to the stages as SWIRL_RUN_ID.

    It is the run's id in MLflow or, while MLflow cannot be reached, `pending-...`, of which the journals of the
    stages and of this call make one parent when they are sent.
    """
    from swirl.tracking.ledger import new_key
    from swirl.tracking.operations import PARENT_RUN

    key = new_key()
    runs = _record(
        layout, params, name, "this pipeline run", lambda recorder: recorder.open_parent(name, key, tags or {})
    )
    return runs.get(PARENT_RUN, key)


def log_cached(layout: Layout, params: BaseModel | Mapping[str, Any], run_id: str, stages: Collection[str]) -> None:
    """Log the stages (DVC names) that did not run, from their files, as children of `run_id` tagged `cached`."""
    what = "stages that DVC had cached"
    _record(layout, params, what, what, lambda recorder: recorder.log_cached(run_id, stages))


def close_run(layout: Layout, run_id: str, error: str = "") -> None:
    """End the parent run: finished, or failed with `error`. Children still marked as running become killed."""
    what = "the end of this pipeline run"
    _record(layout, _params(layout), what, what, lambda recorder: recorder.close_parent(run_id, error))


def _params(layout: Layout) -> dict[str, Any]:
    """params.yaml as it is; empty without one."""
    from swirl.config.yaml_text import read

    path = layout.root / "params.yaml"
    return (read(path) or {}) if path.exists() else {}


def _record(
    layout: Layout,
    params: BaseModel | Mapping[str, Any],
    name: str,
    what: str,
    record: Callable[[Recorder], None],
) -> dict[str, str]:
    """Write down and send; the MLflow ids of runs by their names, empty when it could not be reached."""
    from swirl.tracking.delivery import Delivery
    from swirl.tracking.outbox import Journal
    from swirl.tracking.recording import Recorder
    from swirl.tracking.settings import read_settings

    try:
        values = plain(params)
        journal = Journal.create(layout, name, read_settings(values).experiment)
        delivery = Delivery(layout, values, journal)
        record(Recorder(layout, values, journal))
        return {} if delivery.finish(what) else journal.runs
    except Exception as error:
        _warn(f"{what} is not recorded in MLflow: {_reason(error)}")
        return {}


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, short and without credentials."""
    lines = str(error).strip().splitlines()
    return without_credentials(lines[0] if lines else type(error).__name__)[:300]


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}. The pipeline's own files are complete.", file=sys.stderr, flush=True)
