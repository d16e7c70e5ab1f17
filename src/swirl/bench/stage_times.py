"""When the parts of a stage's process began and ended, for `swirl bench overhead` to tell work from overhead."""

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
    """Times of one stage that ran to its end, as Unix seconds in this order."""

    run: str = ""
    """The flow run or the `dvc repro` that the stage belongs to; empty if it was started by hand."""
    run_started: float = 0.0
    process_started: float = 0.0
    """The Python process starts."""
    ready: float = 0.0
    """Everything that starting a stage needs is imported; tracking begins."""
    started: float = 0.0
    """The stage itself begins, first with the import of its libraries."""
    ended: float = 0.0
    process_ended: float = 0.0
    """MLflow has received everything."""
    tracking_cpu: float = 0.0
    """Processor seconds of the separate process that writes to MLflow, most of them while the stage runs."""


def folder(layout: Layout) -> Path:
    """The folder in which each stage records its times."""
    return layout.root / ".swirl/stage-times"


@contextlib.contextmanager
def record_times(stage_id: str, layout: Layout) -> Iterator[StageTimes]:
    """Record the times of this process; the block sets `started` and `ended`, and nothing is written if it raises."""
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
    """StageTimes by stage id, in the order of their start. Raises `DataError` for a broken file."""
    found = {path.stem: from_dict(StageTimes, load_json(path)) for path in folder(layout).glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: item[1].started))


def _run(own: psutil.Process) -> tuple[str, float]:
    """The run that this process belongs to and its start: a flow, with one DVC process per stage, or a single DVC."""
    import psutil

    from swirl.pipeline.dvc_file import invocation

    flow, dvc = os.environ.get("SWIRL_RUN_ID", ""), invocation()
    with contextlib.suppress(psutil.Error):
        runner = psutil.Process(int(dvc.split("-")[0])) if dvc else own
        if flow:  # the parent of DVC is the leader of its process group, whose parent is the flow
            runner = (runner.parents()[1:2] or [runner])[0]
        return flow or dvc, time.time() - _age(runner)
    return "", 0.0


def _age(process: psutil.Process) -> float:
    """Seconds since a process started.

    On Linux they are measured by the clock since boot, because the time of boot is only known to 1 s.
    """
    import psutil

    if hasattr(time, "CLOCK_BOOTTIME"):
        since_boot = process.create_time() - psutil.boot_time()
        return float(time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    return float(time.time() - process.create_time())
