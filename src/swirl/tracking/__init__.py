"""MLflow runs: one parent a pipeline invocation, one child a stage.

Reading order: `stage_run` wraps a stage and tells a second process (`worker`) when it starts and how it ends;
`pipeline` reads the stages from dvc.yaml and finds the invocation; `contents` reads what a stage's files say;
`store` writes that to MLflow.

MLflow lives in the second process on purpose: its import (about 2 s, 150 MB) happens beside the stage, nothing
in it can change a stage's output, and a stage that is killed is still marked as killed, because the worker sees
its input end. A tracking failure costs one warning and never a stage's work.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from swirl.layout import Layout
from swirl.tracking.contents import plain, without_credentials

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["close_run", "log_cached", "open_run", "stage_run"]

PATIENCE = 300.0
"""Seconds that a finished stage waits for its worker to log (copying models takes longest)."""


@contextlib.contextmanager
def stage_run(
    stage_id: str, params: BaseModel | Mapping[str, Any], layout: Layout, max_model_mb: float = 200.0
) -> Iterator[None]:
    """Record the stage that runs inside as a child run of this pipeline invocation.

    `stage_id` is `train-swirl` for `train@swirl`. After the body has ended, the worker logs from the stage's
    files; a model folder above `max_model_mb` (megabytes; 0: every folder) is logged as a list of checksums.
    Exceptions of the body pass through unchanged and mark the child and its parent as failed.
    """
    worker = _start_worker(
        {
            "stage": stage_id,
            "params": plain(params),
            "root": str(layout.root.resolve()),
            "max_model_mb": max_model_mb,
            "started": time.time(),
        }
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
        worker.kill()
        worker.wait()
        _warn(f"MLflow took more than {PATIENCE:.0f} s to record a stage; its run is incomplete")
    except OSError as failure:
        _warn(f"the end of a stage is not recorded in MLflow: {failure}")


def open_run(layout: Layout, params: BaseModel | Mapping[str, Any], name: str) -> str | None:
    """A new parent run called `name`; its id goes into the environment of the stages as SWIRL_RUN_ID.

    None, with a warning, when MLflow cannot be written: the pipeline then runs without a common parent.
    """
    from swirl.tracking.store import Store

    try:
        return Store(layout, plain(params)).open_parent(name)
    except Exception as error:
        _warn(f"this pipeline run is not recorded in MLflow: {_reason(error)}")
        return None


def log_cached(layout: Layout, params: BaseModel | Mapping[str, Any], run_id: str, stages: Collection[str]) -> None:
    """Log the stages (DVC names) that did not run, from their files, as children of `run_id` tagged `cached`."""
    from swirl.tracking.store import Store

    try:
        Store(layout, plain(params)).log_cached(run_id, stages)
    except Exception as error:
        _warn(f"stages that DVC had cached are not recorded in MLflow: {_reason(error)}")


def close_run(layout: Layout, run_id: str, error: str = "") -> None:
    """End the parent run: finished, or failed with `error`. Children still marked as running become killed."""
    from swirl.tracking.store import Store

    try:
        Store(layout, {}).close_parent(run_id, error)
    except Exception as failure:
        _warn(f"the end of this pipeline run is not recorded in MLflow: {_reason(failure)}")


def _reason(error: BaseException) -> str:
    """The first line of what went wrong, short and without credentials."""
    lines = str(error).strip().splitlines()
    return without_credentials(lines[0] if lines else type(error).__name__)[:300]


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}. The pipeline's own files are complete.", file=sys.stderr, flush=True)
