"""The process that records a stage while it runs: `python -m swirl.tracking.worker`.

Its input is one JSON line at the start (stage, params, root, started) and one at the end (status, error). An input
that ends without the second line means that the stage was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from swirl.core.layout import Layout
from swirl.mlflow_store.settings import read_settings
from swirl.mlflow_store.stores import reason, warn
from swirl.tracking.delivery import Delivery, Stopped
from swirl.tracking.recording import Recorder
from swirl.tracking.watching import Watcher

KILLED = {"status": "KILLED", "error": "the process was killed"}


def main() -> None:
    """Record one stage. An error here causes one warning only: the stage does not depend on it."""
    request = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _stop)
    try:
        _record(request)
    except (Exception, Stopped) as error:
        warn(f"stage {request['stage']} is not recorded in MLflow: {reason(error)}")


def _record(request: dict[str, Any]) -> None:
    layout, params, stage = Layout(Path(request["root"])), request["params"], request["stage"]
    settings = read_settings(params)
    delivery = Delivery(layout, settings)
    recorder = Recorder(layout, params, delivery.runs)
    run = recorder.start_stage(stage, request["started"])
    watcher, send, line = Watcher(layout, settings, delivery.runs, run), True, ""
    try:
        watcher.start()
        delivery.begin(run.parent, run.id, watcher.has_news)
        line = sys.stdin.readline()
        watcher.stop()
        recorder.end_stage(run, json.loads(line) if line else KILLED, watcher.live)
    except Stopped:
        send = False
    finally:
        page = delivery.finish(f"stage {stage}", run.parent, send)
    if line:  # otherwise the stage was killed, and nobody reads it
        with contextlib.suppress(OSError):  # the stage has waited long enough, and is gone
            print(page, flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM: the stage has waited long enough. What has not been delivered is kept."""
    raise Stopped


if __name__ == "__main__":
    main()
    # Everything is recorded. An orderly shutdown of MLflow would make the stage wait another 0.7 s.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
