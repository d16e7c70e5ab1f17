"""The process that records a stage while it runs: `python -m swirl.tracking.worker`.

Its input is one JSON line at the start (stage, params, root, started) and one at the end (status, error). An input
that ends without the second line means that the stage was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from swirl.core.layout import Layout
from swirl.tracking import _reason, _warn
from swirl.tracking.delivery import Delivery, Stopped
from swirl.tracking.outbox import Journal
from swirl.tracking.recording import Recorder
from swirl.tracking.settings import read_settings
from swirl.tracking.watching import Watcher

KILLED = {"status": "KILLED", "error": "the process was killed"}
SEND_EVERY = 5.0
"""Seconds between two deliveries while the stage runs."""


def main() -> None:
    """Record one stage. An error here causes one warning only: the stage does not depend on it."""
    request = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _stop)
    try:
        _record(request)
    except Exception as error:
        _warn(f"stage {request['stage']} is not recorded in MLflow: {_reason(error)}")


def _record(request: dict[str, Any]) -> None:
    layout, params, stage = Layout(Path(request["root"])), request["params"], request["stage"]
    settings = read_settings(params)
    journal = Journal.create(layout, stage, settings.experiment)
    recorder = Recorder(layout, params, journal)
    delivery = Delivery(layout, params, journal)
    send = True
    try:
        run = recorder.start_stage(stage, request["started"])
        watcher = Watcher(layout, settings, journal, run)
        try:
            watcher.start()  # before sending: a silent server can take longer than the stage
            delivery.attempt()
            while not select.select([sys.stdin], [], [], SEND_EVERY)[0]:
                delivery.attempt()
        except Stopped:  # while sending; by then the stage has told how it ended
            send = False
        line = sys.stdin.readline() if select.select([sys.stdin], [], [], 0)[0] else ""
        watcher.stop()
        recorder.end_stage(run, json.loads(line) if line else KILLED, watcher.live)
    except Stopped:
        delivery.finish(f"stage {stage}", send=False)
    except BaseException:
        delivery.finish(f"stage {stage}")
        raise
    else:
        arrived = not delivery.finish(f"stage {stage}", send)
        if arrived and line:  # otherwise the stage was killed, and nobody reads it
            with contextlib.suppress(OSError):  # the stage has waited long enough, and is gone
                print(delivery.page, flush=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM: the stage has waited long enough, so what has not been sent is kept."""
    raise Stopped


if __name__ == "__main__":
    main()
    # Everything is sent or kept. An orderly shutdown of MLflow would make the stage wait another 0.7 s.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
