"""Training speed of each update, for the curves in MLflow.

Times differ between runs, so their file is not an output of DVC.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from swirl.models.flops import Work


class SpeedLog:
    """A file of JSON lines: first the peak FLOPs per second, then one line per update."""

    def __init__(self, path: Path, peak_flops: float) -> None:
        """Start `path` anew; `peak_flops` are the FLOPs per second of all devices together."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"peak_flops": peak_flops}) + "\n", encoding="utf-8")
        self._path = path

    def note(self, step: int, seconds: float, work: Work) -> None:
        """Record the time and the work of the update that led to `step`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": seconds, **dataclasses.asdict(work)}) + "\n")
