"""Runs one stage: locked against a second run, timed, and tracked in MLflow."""

from __future__ import annotations

import fcntl
import importlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from swirl.bench.stage_times import record_times
from swirl.cli import launch
from swirl.core.distributed import rank_and_count
from swirl.core.errors import SwirlError
from swirl.core.flights import OutOfMemoryError, out_of_memory, smaller_flights
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.pipeline import finished_work
from swirl.pipeline.dvc_file import DvcStage, read_stages
from swirl.pipeline.steady import Steady
from swirl.pipeline.temporary import keep_in_original

if TYPE_CHECKING:
    from swirl.config.params import Params

SHARED = ("train",)
"""Stages that several processes can run together."""
LOWER = {
    "base_model": "base_model.token_budget or base_model.batch_size",
    "reward_model": "reward_model.token_budget or reward_model.batch_size",
    "train": "train.token_budget, or set train.gradient_checkpointing: true",
}
"""Stage -> what its memory depends on besides flights; of the others, `OTHERS_LOWER`."""
OTHERS_LOWER = "runtime.workers if it is above 1, or take smaller models"


def run_stage(name: str, item: str | None, params: Params, layout: Layout) -> None:
    """Run `swirl.stages.NAME` for `item` (None: the stage has no items).

    Raises `SwirlError` when the same stage is still running elsewhere, and when at the end something that it depends on
    is no longer what it was at the start; and whatever the stage raises.
    """
    from swirl.tracking import stage_run

    stage_id = f"{name}-{item}" if item else name
    module = importlib.import_module(f"swirl.stages.{name}")
    arguments = (params, layout, item) if item else (params, layout)
    rank, count = rank_and_count()
    if count > 1 and name not in SHARED:
        raise SwirlError(f"stage {name} runs in one process, not {count}; only {', '.join(SHARED)} can be shared")
    if count == 1 < params.runtime.processes and name in SHARED:
        _launch(params.runtime.processes, ["stage", name, *(["--item", item] if item else [])])
    if rank > 0:  # rank 0 holds the lock, measures the time and reports to MLflow
        _run(name, module.run, arguments)
        return
    keep_in_original(layout)
    listed = _as_dvc_lists_it(name, item, params, layout)
    with _alone(stage_id, layout.root / f".swirl/locks/{stage_id}"), record_times(stage_id, layout) as times:
        steady = Steady(listed, layout.root, params.model_dump())
        finished_work.settle(stage_id, listed.outs, layout)
        with stage_run(stage_id, params, layout) as recorded, _timed(layout.timing(stage_id)):
            times.started = time.time()
            _run(name, module.run, arguments)
            _refuse_changes(steady, stage_id, layout)
            finished_work.note(stage_id, listed.outs, layout)
            times.ended, before = time.time(), _cpu_of_children()
        times.tracking_cpu = _cpu_of_children() - before
        _refuse_changes(steady, stage_id, layout)  # tracking can take minutes
        if name == "report":
            from swirl.reporting import provenance

            provenance.note(layout, recorded.page)


def _run(name: str, stage: Callable[..., None], arguments: Sequence[object]) -> None:
    """Run a stage; where memory runs out elsewhere than in a flight, raise `OutOfMemoryError` with what to set."""
    try:
        stage(*arguments)
    except Exception as error:
        if not out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0]
        lower = LOWER.get(name, OTHERS_LOWER)
        raise OutOfMemoryError(f"stage {name}: out of memory ({said}); lower {lower}") from error


def _as_dvc_lists_it(name: str, item: str | None, params: Params, layout: Layout) -> DvcStage:
    """The stage in dvc.yaml; one without deps and outputs if dvc.yaml does not have it."""
    full = f"{name}@{item}" if item else name
    return read_stages(layout.root, params.model_dump()).get(full, DvcStage(full, (), (), ()))


def _refuse_changes(steady: Steady, stage_id: str, layout: Layout) -> None:
    """Raise `SwirlError` if what the stage depends on has changed; its journals and checkpoints are kept then."""
    try:
        steady.check()
    except SwirlError:
        finished_work.take_up(stage_id, layout)
        raise


def _launch(processes: int, arguments: list[str]) -> NoReturn:
    """Replace this process by a launcher of several processes that run `swirl` with these arguments."""
    sys.stdout.flush()
    os.execv(sys.executable, launch.command(processes, arguments))


@contextmanager
def _alone(stage_id: str, lock: Path) -> Iterator[None]:
    """Hold `lock` while the stage runs: one that outlives its killed `dvc` would write to the same files."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            raise SwirlError(
                f"stage {stage_id} is still running as process {pid}; wait for it or stop it: kill {pid}"
            ) from None
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Write the seconds, peak memory (MB), start time (Unix) and flights of the block to `path`, if it does not raise.

    Flights are those that memory made smaller, here and in workers that made blocks for the stage.
    """
    started, clock = time.time(), time.monotonic()
    yield
    measured = {"started": started, "seconds": time.monotonic() - clock, "peak_rss_mb": _peak_rss_mb()}
    save_json({**measured, **smaller_flights()}, path)


def _peak_rss_mb() -> float:
    """The peak of this process's resident memory so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the memory of the parent that this was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def _cpu_of_children() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
