"""How fast training goes, update by update, for the curves in MLflow. Times differ between runs: no output of DVC."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from swirl.models.flops import Work


class Pace:
    """A file of JSON lines: first what the devices could compute, then one line an update."""

    def __init__(self, path: Path, peak_flops: float) -> None:
        """Begin `path` anew. `peak_flops` are FLOPs a second of all devices together."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"peak_flops": peak_flops}) + "\n", encoding="utf-8")
        self._path = path

    def note(self, step: int, seconds: float, work: Work) -> None:
        """The update that led to `step` took so long and did so much."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "seconds": seconds, **dataclasses.asdict(work)}) + "\n")
