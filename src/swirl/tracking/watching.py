"""What can be seen of a stage while it runs: its checkpoints, and what the machine is doing. No MLflow runs here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from swirl.layout import Layout
from swirl.tracking.contents import fits, points
from swirl.tracking.journal import Journal
from swirl.tracking.operations import File, Log
from swirl.tracking.recording import CLOCK_TICK, StageRun
from swirl.tracking.settings import Settings

GLANCE = 0.05
"""Seconds between two looks for checkpoints: a stage removes them soon after its last one."""


class Watcher:
    """A thread that writes to the journal of a running stage until `stop`."""

    def __init__(
        self, layout: Layout, params: dict[str, Any], settings: Settings, journal: Journal, run: StageRun
    ) -> None:
        self.live = -1
        """The step up to which the curves are recorded."""
        self._settings, self._journal, self._run = settings, journal, run
        self._folder = layout.root / f".swirl/checkpoints/{run.stage.id}"
        self._training = run.stage.name.startswith("train")
        self._batch = _actions_an_update(params, run.stage.item)
        self._seen: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to look; nothing to look for means no thread."""
        if self._training or self._settings.system_metrics:
            self._thread.start()

    def stop(self) -> None:
        """A last look, and no more after it."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        every = self._settings.system_metrics
        monitors = _monitors() if every else []
        due, step = time.monotonic(), 0
        while True:
            over = self._over.is_set()
            if self._training:
                self._look()
            if monitors and (time.monotonic() >= due or over):
                self._journal.add(Log(self._run.record, _sample(monitors, step)))
                due, step = time.monotonic() + every, step + 1
            if over:
                return
            self._over.wait(GLANCE if self._training else max(0.0, due - time.monotonic()))

    def _look(self) -> None:
        """Record checkpoints that are new, with the part of the curves that they hold."""
        for folder in sorted(self._folder.glob("step-*")):
            with contextlib.suppress(OSError):  # it went away under our eyes
                made = folder.stat().st_mtime
                if made < self._run.started - CLOCK_TICK or folder.name in self._seen:
                    continue
                record, small = folder / "record.json", fits(folder, self._settings.max_model_mb)
                if self._settings.checkpoints and not small:
                    self._journal.add(Log(self._run.record, tags={"checkpoints": "above tracking.max_model_mb"}))
                elif self._settings.checkpoints:
                    copy = self._journal.room() / folder.name
                    _link(folder, copy)
                    self._journal.add(File(self._run.record, str(copy), f"checkpoints/{folder.name}", owned=True))
                    record = copy / "record.json"
                self._curves(record, folder.name, made)

    def _curves(self, record: Path, name: str, made: float) -> None:
        rows = json.loads(record.read_text(encoding="utf-8"))["series"]
        new = [row for row in rows if row["step"] > self.live]
        now = int(made * 1000)
        found = [(key, value, now, step) for key, value, step in points(new)]
        sampled = sum(row.get("action_tokens") or 0.0 for row in new) * self._batch
        if self._seen and sampled:
            last = max(self._seen.values())
            found.append(("tokens_per_second", sampled / max(1e-3, made - last), now, int(rows[-1]["step"])))
        self._seen[name] = made
        self._journal.add(Log(self._run.record, found))
        self.live = max([self.live, *(int(row["step"]) for row in new)])


def _actions_an_update(params: dict[str, Any], item: str) -> int:
    """How many actions step-wise RL samples in one update; 0 for what samples none."""
    section = (params.get("train") or {}).get(item) or {}
    return int(section.get("states") or 0) * int(section.get("samples") or 0)


def _link(folder: Path, copy: Path) -> None:
    """A second name for every file, which the removal of the first one leaves; a copy where there are no such names."""
    copy.mkdir()
    for file in folder.iterdir():
        try:
            os.link(file, copy / file.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(file, copy / file.name)


def _monitors() -> list[Any]:
    """MLflow's own, by which its page of system metrics knows the names: processor, memory, and a GPU if there is."""
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor

    monitors: list[Any] = [made() for made in (cpu_monitor.CPUMonitor, disk_monitor.DiskMonitor)]
    with contextlib.suppress(Exception):  # no driver, or no library for it
        from mlflow.system_metrics.metrics import gpu_monitor

        gpus: Any = gpu_monitor.GPUMonitor
        monitors.append(gpus())
    monitors[0].collect_metrics()  # the processor's use is that since the last time
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
