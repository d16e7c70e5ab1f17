"""MLflow runs: one parent run per pipeline invocation, one child run per stage.

Reading order: `stage_run` wraps a stage and tells a second process (`worker`) when it starts and how it ends;
`swirl.pipeline.dvc_file` reads the stages from dvc.yaml and identifies the invocation, `ledger` remembers which of its
stages are recorded; `contents`, `inputs` and `samples` read what a stage's files say, `summary` what a parent run says
in short, `watching` observes the stage while it runs; `recording` turns all of that into `operations`, which the
journals of `outbox` keep on disk; `mlflow_runs` carries them out in MLflow; `delivery` sends a journal right away,
`sync` sends those that had to wait; `promotion` registers the tuned model through `model_registry`. `served_traces`
traces what `swirl ask` has a registered model answer.

MLflow lives in the second process on purpose: its import (about 2 s, 150 MB) happens in parallel with the stage,
nothing in it can change a stage's output, and a stage that is killed is still marked as killed, because the worker
sees the end of its input. A tracking failure costs one warning and never a stage's work; a server that is down costs
only a later `swirl track sync`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
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
"""Seconds that a worker which took too long is given to store what it has not sent."""


@dataclass(slots=True)
class Recorded:
    """What is known of a stage's record when the stage has ended."""

    page: str = ""
    """The address of this pipeline invocation in MLflow's pages; empty when MLflow does not have it, or has none."""


@contextlib.contextmanager
def stage_run(stage_id: str, params: BaseModel | Mapping[str, Any], layout: Layout) -> Iterator[Recorded]:
    """Record the stage that runs in the body as a child run of this pipeline invocation.

    `stage_id` is `train-swirl` for `train@swirl`. After the body has ended, the worker logs from the stage's files.
    Exceptions of the body pass through unchanged and mark the child and its parent as failed, `KeyboardInterrupt` as
    killed; an exit with status 0 counts as success.
    """
    worker = _start_worker(
        {"stage": stage_id, "params": plain(params), "root": str(layout.root.resolve()), "started": time.time()}
    )
    recorded = Recorded()
    try:
        yield recorded
    except BaseException as error:
        left_early = isinstance(error, SystemExit) and error.code in (None, 0)
        status = "FINISHED" if left_early else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        _end_worker(worker, status, "" if left_early else f"{type(error).__name__}: {error}")
        raise
    recorded.page = _end_worker(worker, "FINISHED", "")


def _start_worker(request: dict[str, Any]) -> subprocess.Popen[str] | None:
    """Start the process that logs, in a session of its own so that signals to the stage's group do not reach it."""
    command = [sys.executable, "-m", "swirl.tracking.worker"]
    try:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
    except OSError as error:
        _warn(f"stage {request['stage']} is not recorded in MLflow: {error}")
        return None
    return worker


def _end_worker(worker: subprocess.Popen[str] | None, status: str, error: str) -> str:
    """Tell the worker how the stage ended, wait for it, and return the address that it prints at its end, if any.

    A worker that has given up has warned already.
    """
    if worker is None:
        return ""
    try:
        printed, _ = worker.communicate(json.dumps({"status": status, "error": error}) + "\n", timeout=PATIENCE)
        return next((line for line in reversed(printed.splitlines()) if line.startswith("http")), "")
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
    return ""


def open_run(
    layout: Layout,
    params: BaseModel | Mapping[str, Any],
    source: str,
    tags: Mapping[str, str] | None = None,
    name: str = "",
) -> str:
    """Open a parent run with `tags`, and return what its stages need as SWIRL_RUN_ID.

    `source` is what started it. Without a `name` it is called by what `params` change: `filter=outcome, seed 1`.

    That is the run's id in MLflow or, when MLflow cannot be reached, a key `pending-...`: the journals of this call and
    of the stages carry it, so that they end up in one parent run when they are sent.
    """
    from swirl.tracking.ledger import new_key
    from swirl.tracking.operations import PARENT_RUN

    key = new_key()
    runs = _record(
        layout, params, source, "this pipeline run", lambda made: made.open_parent(source, key, tags or {}, name)
    )
    return runs.get(PARENT_RUN, key)


def log_cached(layout: Layout, params: BaseModel | Mapping[str, Any], run_id: str, stages: Collection[str]) -> None:
    """Log in the parent run `run_id` which stages (DVC names) did not have to run."""
    what = "stages that DVC had cached"
    _record(layout, params, what, what, lambda recorder: recorder.log_cached(run_id, stages))


def close_run(layout: Layout, run_id: str, error: str = "", killed: bool = False) -> None:
    """End the parent run, as failed when there is an `error`, or as killed. Children that still run become killed."""
    what = "the end of this pipeline run"
    _record(layout, _params(layout), what, what, lambda recorder: recorder.close_parent(run_id, error, killed))


def _params(layout: Layout) -> dict[str, Any]:
    """The values of params.yaml, not validated; empty when there is no such file."""
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
    """Record in a new journal and send it; return MLflow's ids by run name, empty when MLflow could not be reached."""
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
    """The first line of an error's message, at most 300 characters and without credentials."""
    lines = str(error).strip().splitlines()
    return without_credentials(lines[0] if lines else type(error).__name__)[:300]


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}. The pipeline's own files are complete.", file=sys.stderr, flush=True)
