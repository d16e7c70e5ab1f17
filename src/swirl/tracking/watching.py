"""Observes a running stage: checkpoints, speed of updates, load of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from swirl.core.layout import Layout
from swirl.mlflow_store.runs import Point, Store, artifact_folder, reason
from swirl.mlflow_store.settings import Settings
from swirl.tracking.contents import fits, grouped, points
from swirl.tracking.recording import CLOCK_TICK, StageRun


class Watcher:
    """Writes to a running stage's run: MLflow's monitor of the machine does, and `look`, for training."""

    def __init__(self, layout: Layout, settings: Settings, store: Store, run: StageRun) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.live = -1
        """The step up to which the curves are recorded; -1: none yet."""
        self._settings, self._store, self._run = settings, store, run
        self._folder = layout.root / f".swirl/checkpoints/{run.stage.id}"
        self._artifacts = artifact_folder(store.client.get_run(run.id)) / "checkpoints"
        self._pace = layout.pace(run.stage.id)
        self._seen: set[str] = set()
        self._paced = 0
        self._looks = run.stage.name.startswith("train")
        make: Any = SystemMetricsMonitor
        self._monitor: Any = None
        if settings.system_metrics:
            try:
                self._monitor = make(run.id, settings.system_metrics, tracking_uri=store.client.tracking_uri)
                self._monitor.start()
            except Exception as error:  # a machine that it cannot read
                store.refused.append(f"the machine was not watched: {reason(error)}")

    def look(self, last: bool = False) -> None:
        """Record checkpoints that are new, and the speed of training at each and at the `last` look."""
        try:
            if self._looks:
                self._look()
                if last:
                    self._speeds()
        except Exception as error:
            self._looks = False
            self._store.refused.append(f"it was not watched to its end: {reason(error)}")

    def stop(self) -> None:
        """Take a last look, and end."""
        self.look(last=True)
        if self._monitor is not None:
            self._monitor.finish()

    def _look(self) -> None:
        """Record new checkpoints, and the part of the curves that they contain."""
        for folder in sorted(self._folder.glob("*/step-*")):
            with contextlib.suppress(OSError):  # the stage has just removed it
                made = folder.stat().st_mtime
                if made < self._run.started - CLOCK_TICK or folder.name in self._seen:
                    continue
                rows = json.loads((folder / "record.json").read_text(encoding="utf-8"))["series"]
                if not self._settings.checkpoints:
                    pass
                elif fits(folder, self._settings.max_model_mb):
                    _link(folder, self._artifacts / folder.name)
                else:
                    self._store.log(self._run.id, tags={"checkpoints": "above tracking.max_model_mb"})
                self._seen.add(folder.name)
                new = [row for row in rows if row["step"] > self.live]
                self._log([(name, value, int(made * 1000), step) for name, value, step in points(new)])
                self.live = max([self.live, *(int(row["step"]) for row in new)])
                self._speeds()

    def _speeds(self) -> None:
        """Record, of the updates since the last call: seconds, trained tokens a second, model FLOPs utilisation."""
        with contextlib.suppress(OSError, ValueError):  # no updates yet, or a half-written line
            if self._pace.stat().st_mtime < self._run.started - CLOCK_TICK:
                return
            first, *updates = [json.loads(line) for line in self._pace.read_text(encoding="utf-8").splitlines()]
            now, found = int(time.time() * 1000), list[Point]()
            for row in updates[self._paced :]:
                seconds = max(1e-9, row["seconds"])
                mfu = row["flops"] / seconds / first["peak_flops"]
                measured = {"update_seconds": seconds, "tokens_per_second": row["tokens"] / seconds, "mfu": mfu}
                found += [(grouped(name), value, now, row["step"]) for name, value in measured.items()]
            self._paced = len(updates)
            self._log(found)

    def _log(self, found: list[Point]) -> None:
        self._store.log(self._run.id, points=found)


def _link(folder: Path, copy: Path) -> None:
    """Hard-link every file, so that it outlives the removal of `folder`; copy where links are not possible.

    The copy appears whole at once.
    """
    partial = copy.parents[2] / f"{copy.name}.partial"  # beside the artifacts
    try:
        shutil.copytree(folder, partial, copy_function=_link_file)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_file(source: str, copy: str) -> None:
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)
