"""Observes a running stage: checkpoints, speed of updates, load of the machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swirl.core.layout import Layout
from swirl.mlflow_store.copying import artifact_folder
from swirl.mlflow_store.mlflow_runs import Runs
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import reason
from swirl.tracking.contents import fits, grouped, points
from swirl.tracking.recording import CLOCK_TICK, StageRun

GLANCE = 0.05
"""Seconds between two looks for checkpoints; short, because a stage removes them soon after the last one."""


class Watcher:
    """Threads that write to a running stage's run until `stop`: one for training, one for system metrics."""

    def __init__(self, layout: Layout, settings: Settings, runs: Runs, run: StageRun) -> None:
        self.live = -1
        """The step up to which the curves are recorded; -1: none yet."""
        self._settings, self._runs, self._run = settings, runs, run
        self._folder = layout.root / f".swirl/checkpoints/{run.stage.id}"
        self._training = run.stage.name.startswith("train")
        self._artifacts = artifact_folder(runs.client.get_run(run.id))
        self._pace = layout.pace(run.stage.id)
        self._seen: set[str] = set()
        self._told = -1
        self._paced = 0
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start a thread for each thing to observe, if any.

        The monitors are MLflow's, and the calling thread imports it: two threads that import it at once might get in
        each other's way.
        """
        if self._training:
            self._begin(self._follow)
        if self._settings.system_metrics:
            self._begin(self._measure, _monitors())

    def has_news(self) -> bool:
        """Whether the curves have grown since the last call."""
        before, self._told = self._told, self.live
        return self._told > before

    def stop(self) -> None:
        """Take a last look, and end the threads."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        def watch() -> None:
            try:
                work(*arguments)
            except Exception as error:
                self._runs.refused.append(f"it was not watched to its end: {reason(error)}")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _follow(self) -> None:
        """Look for checkpoints until `stop`."""
        while not self._over.wait(GLANCE):
            self._look()
        self._look()
        self._speeds()

    def _measure(self, monitors: list[Any]) -> None:
        """Record system metrics until `stop`."""
        for step in itertools.count():
            over = self._over.is_set()
            self._runs.log(self._run.id, points=_sample(monitors, step))
            if over:
                return
            self._over.wait(self._settings.system_metrics)

    def _look(self) -> None:
        """Record new checkpoints and the part of the curves that they contain."""
        for folder in sorted(self._folder.glob("*/step-*")):
            with contextlib.suppress(OSError):  # the stage has just removed it
                made = folder.stat().st_mtime
                if made < self._run.started - CLOCK_TICK or folder.name in self._seen:
                    continue
                record, small = folder / "record.json", fits(folder, self._settings.max_model_mb)
                if self._settings.checkpoints and not small:
                    self._runs.log(self._run.id, tags={"checkpoints": "above tracking.max_model_mb"})
                elif self._settings.checkpoints:
                    copy = self._artifacts / "checkpoints" / folder.name
                    _link(folder, copy)
                    record = copy / "record.json"
                self._curves(record, folder.name, made)
                self._speeds()

    def _curves(self, record: Path, name: str, made: float) -> None:
        rows = json.loads(record.read_text(encoding="utf-8"))["series"]
        new = [row for row in rows if row["step"] > self.live]
        now = int(made * 1000)
        found = [(key, value, now, step) for key, value, step in points(new)]
        self._seen.add(name)
        self._runs.log(self._run.id, points=found)
        self.live = max([self.live, *(int(row["step"]) for row in new)])

    def _speeds(self) -> None:
        """Record the speed of the updates since the last call."""
        with contextlib.suppress(OSError, ValueError):  # no updates yet, or a half-written line
            if self._pace.stat().st_mtime < self._run.started - CLOCK_TICK:
                return
            first, *updates = [json.loads(line) for line in self._pace.read_text(encoding="utf-8").splitlines()]
            new, now = updates[self._paced :], int(time.time() * 1000)
            self._paced = len(updates)
            found = [(key, value, now, row["step"]) for row in new for key, value in _speed(row, first["peak_flops"])]
            if found:
                self._runs.log(self._run.id, points=found)


def _speed(row: dict[str, float], peak_flops: float) -> list[tuple[str, float]]:
    """Metrics of one update: its seconds, trained tokens per second, and model FLOPs utilisation (MFU)."""
    seconds = max(1e-9, row["seconds"])
    mfu = row["flops"] / seconds / peak_flops
    measured = {"update_seconds": seconds, "tokens_per_second": row["tokens"] / seconds, "mfu": mfu}
    return [(grouped(name), value) for name, value in measured.items()]


def _link(folder: Path, copy: Path) -> None:
    """Hard-link every file, so that it outlives the removal of `folder`; copy where links are not possible.

    The copy appears whole at once.
    """
    partial = copy.parents[2] / f"{copy.name}.partial"  # beside the artifacts
    partial.mkdir(parents=True)
    try:
        for file in folder.iterdir():
            try:
                os.link(file, partial / file.name)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(file, partial / file.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _monitors() -> list[Any]:
    """MLflow's monitors (CPU and memory, disk, any GPU), whose metric names its System metrics page expects."""
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor

    monitors: list[Any] = [made() for made in (cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor)]
    with contextlib.suppress(Exception):  # no driver, or no library for it
        from mlflow.system_metrics.metrics import gpu_monitor

        gpus: Any = gpu_monitor.GPUMonitor
        monitors.append(gpus())
    monitors[0].collect_metrics()  # CPU use is measured since the last call
    monitors[0].clear_metrics()
    return monitors


def _sample(monitors: list[Any], step: int) -> list[tuple[str, float, int, int]]:
    now = int(time.time() * 1000)
    found = []
    for monitor in monitors:
        monitor.collect_metrics()
        found += [(f"system/{name}", float(value), now, step) for name, value in monitor.aggregate_metrics().items()]
        monitor.clear_metrics()
    return found
