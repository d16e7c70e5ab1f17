"""The process that records a stage while it runs: `python -m swirl.tracking.worker`.

Its input is one JSON line at the start (stage, params, root, started, process) and one at the end (status, error). A
stage that ends without the second line was killed. In any case this process ends a bounded time after its stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from io import FileIO
from pathlib import Path
from typing import Any

from swirl.core.layout import Layout
from swirl.mlflow_store.runs import reason
from swirl.mlflow_store.settings import read_settings
from swirl.mlflow_store.stores import warn
from swirl.tracking.delivery import Delivery
from swirl.tracking.recording import Recorder
from swirl.tracking.watching import Watcher

KILLED = {"status": "KILLED", "error": "the process was killed"}
PATIENCE = 600
"""Seconds after which this process is ended if it has not come to look after its stage, or to its own end."""
GLANCE = 0.05
"""Seconds between two looks; short, because training removes its checkpoints soon after the last one."""


def main() -> None:
    """Record one stage. An error here causes one warning only: the stage does not depend on it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the stage gets it, too, and how that ends is to be recorded
    signal.alarm(PATIENCE)
    lines = FileIO(0)  # without a buffer, into which a second line might be read together with the first
    request = json.loads(lines.readline())
    try:
        page = _record(request, lines)
    except Exception as error:
        warn(f"stage {request['stage']} is not recorded in MLflow: {reason(error)}")
        page = ""
    with contextlib.suppress(OSError):  # a stage that was killed does not read it
        print(page, flush=True)


def _record(request: dict[str, Any], lines: FileIO) -> str:
    """Record a stage, and return the address of its parent's page, if it has one."""
    layout, params, stage = Layout(Path(request["root"])), request["params"], request["stage"]
    settings = read_settings(params)
    delivery = Delivery(layout, settings)
    recorder = Recorder(layout, params, delivery.here)
    run = recorder.start_stage(stage, request["started"])
    try:
        watcher = Watcher(layout, settings, delivery.here, run)
        if not delivery.direct:
            delivery.begin(run.parent)
        end = _end(lines, request["process"], watcher)
        watcher.stop()
        recorder.end_stage(run, end, watcher.live)
    finally:
        page = delivery.finish(f"stage {stage}", run.parent)
    return page


def _end(lines: FileIO, stage: int, watcher: Watcher) -> dict[str, str]:
    """Watch the stage until it says how it ended; it was killed, if its process is gone or its line is closed.

    The line alone would not do: a process that the stage has forked may hold it open for ever.
    """
    while not select.select([lines], [], [], GLANCE)[0]:
        signal.alarm(PATIENCE)
        if os.getppid() != stage:
            return KILLED
        watcher.look()
    line = lines.readline()
    return json.loads(line) if line else KILLED


if __name__ == "__main__":
    main()
    # Everything is recorded. An orderly shutdown of MLflow would make the stage wait another 0.7 s.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
