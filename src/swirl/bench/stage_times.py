"""When the parts of a stage's process began and ended: what `swirl bench overhead` tells work from overhead by."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core.layout import Layout
from swirl.core.records import from_dict, load_json, save_json

if TYPE_CHECKING:
    import psutil


@dataclass(slots=True)
class StageTimes:
    """One stage that ran to its end. Times are Unix seconds, in this order."""

    run: str = ""
    """The flow or the `dvc repro` that it belongs to; empty for a stage that was started by hand."""
    run_started: float = 0.0
    process_started: float = 0.0
    """Python itself begins."""
    ready: float = 0.0
    """All is imported that starting a stage needs; tracking begins."""
    started: float = 0.0
    """The stage itself, with the libraries that it imports."""
    ended: float = 0.0
    process_ended: float = 0.0
    """MLflow has everything."""
    tracking_cpu: float = 0.0
    """Processor seconds of the process beside the stage that writes to MLflow, most of them while the stage runs."""


def folder(layout: Layout) -> Path:
    """Where each stage leaves its times."""
    return layout.root / ".swirl/stage-times"


@contextlib.contextmanager
def record_times(stage_id: str, layout: Layout) -> Iterator[StageTimes]:
    """StageTimes of this process, to be filled with `started` and `ended` inside; written when nothing was raised."""
    path = folder(layout) / f"{stage_id}.json"
    path.unlink(missing_ok=True)
    times = StageTimes(ready=time.time())
    yield times
    times.process_ended = time.time()
    import psutil

    own = psutil.Process(os.getpid())
    times.process_started = times.process_ended - _age(own)
    times.run, times.run_started = _run(own)
    save_json(asdict(times), path)


def read(layout: Layout) -> dict[str, StageTimes]:
    """StageTimes by stage id, in the order of their start. Raises `DataError` for a file that is none."""
    found = {path.stem: from_dict(StageTimes, load_json(path)) for path in folder(layout).glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: item[1].started))


def _run(own: psutil.Process) -> tuple[str, float]:
    """The run that this process belongs to, and when it began: a flow, which starts a DVC a stage, or one DVC."""
    import psutil

    from swirl.pipeline.dvc_file import invocation

    flow, dvc = os.environ.get("SWIRL_RUN_ID", ""), invocation()
    with contextlib.suppress(psutil.Error):
        runner = psutil.Process(int(dvc.split("-")[0])) if dvc else own
        if flow:  # above DVC: the process that leads its group, then the flow
            runner = (runner.parents()[1:2] or [runner])[0]
        return flow or dvc, time.time() - _age(runner)
    return "", 0.0


def _age(process: psutil.Process) -> float:
    """Seconds since a process started. On Linux by the clock since boot: when that was is known to 1 s only."""
    import psutil

    if hasattr(time, "CLOCK_BOOTTIME"):
        since_boot = process.create_time() - psutil.boot_time()
        return float(time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    return float(time.time() - process.create_time())
