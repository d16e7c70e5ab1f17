"""MLflow runs: one parent run per pipeline invocation, one child run per stage.

Reading order: `stage_run` wraps a stage and tells a second process (`worker`) when it starts and how it ends;
`contents`, `inputs` and `swirl.traces.samples` read what a stage's files say, `summary` what a parent run says in
short, `watching` observes the stage while it runs; `recording` turns all of that into runs, in a store on this machine;
`delivery` copies them to where they are to be, if that is elsewhere, and registers the tuned model.

MLflow lives in the second process on purpose: its import (about 2 s, 150 MB) happens in parallel with the stage,
nothing in it can change a stage's output, and a stage that is killed is still marked as killed, because the worker
sees the end of its input. A tracking failure costs one warning and never a stage's work; a server that is down costs
only a later `swirl track sync`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swirl.config.secrets import plain
from swirl.core.layout import Layout
from swirl.mlflow_store.runs import reason
from swirl.mlflow_store.settings import read_settings
from swirl.mlflow_store.stores import warn

if TYPE_CHECKING:
    from pydantic import BaseModel

    from swirl.tracking.recording import Recorder

__all__ = ["close_run", "open_run", "stage_run"]


@dataclass(slots=True)
class Recorded:
    """What is known of the parent run of a pipeline invocation."""

    page: str = ""
    """The address of its page in MLflow; empty when MLflow does not have it, or has no pages."""
    run_id: str = ""
    """The id of its record on this machine."""


@contextlib.contextmanager
def stage_run(stage_id: str, params: BaseModel | Mapping[str, Any], layout: Layout) -> Iterator[Recorded]:
    """Record the stage that runs in the body as a child run of this pipeline invocation.

    `stage_id` is `train-swirl` for `train@swirl`. After the body has ended, the worker logs from the stage's files.
    Exceptions of the body pass through unchanged and mark the child and its parent as failed, `KeyboardInterrupt` as
    killed; an exit with status 0 counts as success.
    """
    request = {
        "stage": stage_id,
        "params": plain(params),
        "root": str(layout.root.resolve()),
        "started": time.time(),
        "process": os.getpid(),
    }
    worker, recorded = _worker(request), Recorded()
    try:
        yield recorded
    except BaseException as error:
        left_early = isinstance(error, SystemExit) and error.code in (None, 0)
        status = "FINISHED" if left_early else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        _end(worker, status, "" if left_early else f"{type(error).__name__}: {error}")
        raise
    recorded.page = _end(worker, "FINISHED", "")


def _worker(request: dict[str, Any]) -> subprocess.Popen[str] | None:
    """Start the process that logs, in a session of its own so that signals to the stage's group do not reach it."""
    command = [sys.executable, "-m", "swirl.tracking.worker"]
    try:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert worker.stdin is not None
        print(json.dumps(request), file=worker.stdin, flush=True)
    except OSError as error:
        warn(f"stage {request['stage']} is not recorded in MLflow: {error}")
        return None
    return worker


def _end(worker: subprocess.Popen[str] | None, status: str, error: str) -> str:
    """Tell the worker how the stage ended, and return the address that it prints at its end, which it sees to itself.

    A worker that has given up has warned already, unless it was killed.
    """
    if worker is None:
        return ""
    printed, _ = worker.communicate(json.dumps({"status": status, "error": error}) + "\n")
    if worker.returncode < 0:
        warn("what records stages in MLflow was ended before its time; try `swirl track sync`")
    return next((line for line in reversed(printed.splitlines()) if line.startswith("http")), "")


def open_run(
    layout: Layout, params: BaseModel | Mapping[str, Any], source: str, tags: Mapping[str, str], name: str = ""
) -> Recorded:
    """Open a parent run with `tags`; its stages need its id as SWIRL_RUN_ID.

    `source` is what started it. Without a `name` it is called by what `params` change: `filter=outcome, seed 1`.
    """
    opened = _record(layout, params, "this pipeline run", lambda made: made.open_parent(source, tags, name))
    return opened or Recorded(run_id=uuid.uuid4().hex)  # so that the stages still share a run, if they can record one


def close_run(
    layout: Layout,
    params: BaseModel | Mapping[str, Any],
    run_id: str,
    error: str = "",
    killed: bool = False,
    cached: Collection[str] = (),
) -> None:
    """End the parent run, as failed when there is an `error`, or as killed. Children that still run become killed.

    `cached` are the stages (DVC names) that did not have to run.
    """
    what = "the end of this pipeline run"
    _record(layout, params, what, lambda made: made.close_parent(run_id, error, killed, cached))


def _record(
    layout: Layout, params: BaseModel | Mapping[str, Any], what: str, record: Callable[[Recorder], str]
) -> Recorded | None:
    """Record something in a parent run, and deliver that run; None when it could not be recorded."""
    from swirl.tracking.delivery import Delivery
    from swirl.tracking.recording import Recorder

    try:
        values = plain(params)
        delivery = Delivery(layout, read_settings(values))
        run_id = record(Recorder(layout, values, delivery.here))
        return Recorded(delivery.finish(what, run_id), run_id)
    except Exception as error:
        warn(f"{what} is not recorded in MLflow: {reason(error)}")
        return None
