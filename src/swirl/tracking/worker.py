"""The process beside a running stage that records it: `python -m swirl.tracking.worker`.

Its input is one JSON line at the start (stage, params, root, max_model_mb, started) and one at the end (status,
error). An input that ends without the second line means that the stage was killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from swirl.layout import Layout
from swirl.tracking import _reason, _warn
from swirl.tracking.store import Store

KILLED = {"status": "KILLED", "error": "the process was killed"}


def main() -> None:
    """Record one stage. Whatever goes wrong here is one warning: the stage does not depend on it."""
    request = json.loads(sys.stdin.readline())
    try:
        _record(request)
    except Exception as error:
        _warn(f"stage {request['stage']} is not recorded in MLflow: {_reason(error)}")


def _record(request: dict[str, Any]) -> None:
    store = Store(Layout(Path(request["root"])), request["params"], request["max_model_mb"])
    run = store.start_stage(request["stage"], request["started"])
    line = sys.stdin.readline()
    store.end_stage(run, json.loads(line) if line else KILLED)


if __name__ == "__main__":
    main()
