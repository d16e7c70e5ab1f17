"""`swirl bench overhead`: how much of a run's wall time orchestration, tracking and the gates take.

A run is divided by the times that each stage's process records (`swirl.bench.stage_times`) into parts that add up to
its wall time:

- work: the stages themselves except the gates, including the import of their libraries (see below);
- gates: the three stages that check data with Great Expectations;
- start: from the start of a stage's process until tracking begins: Python, imports, params;
- tracking: how long a stage waits, before and after its work, for the process that writes to MLflow;
- runner: the rest, when no stage's process runs. With `dvc repro` that is DVC: hashing, caching, locking; with the flow
  it is a new DVC process for each stage, Prefect with its server, and opening and closing the parent run in MLflow.

Overhead is the wall time minus the work. Two more costs are reported but not added: the processor time of the tracking
process while the stage works on other cores, and the time to import the large libraries anew in each process (measured
separately).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swirl.bench import stage_times
from swirl.bench.measure import Result
from swirl.bench.stage_times import StageTimes
from swirl.config import presets
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.pipeline.stages import STAGES

GATES = ("check_questions", "check_trajectories", "check_steps")
LIBRARIES = {"torch and transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer; import torch"}
LIBRARIES |= {"Great Expectations": "import great_expectations", "MLflow": "import mlflow.tracking", "nothing": ""}
"""Name -> program that imports these libraries, run in a new process of its own."""

COUNT = sum(max(1, len(stage.items)) for stage in STAGES.values())
"""Number of stage processes in a whole run: one per item of a stage that has items."""


def overhead(root: Path, preset: str, rounds: int) -> Result:
    """Run the whole pipeline of a preset with `dvc repro` and as the flow, `rounds` times in turn, in copies of `root`.

    Nothing in `root` changes. Raises `SwirlError` when a run fails.
    """
    settings = presets.tree(root, preset)
    rows = []
    for number in range(rounds):
        for name, command in (("dvc repro", ["-m", "dvc", "repro"]), ("Prefect flow", ["flows/pipeline.py"])):
            print(f"round {number + 1}/{rounds}: {name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="swirl-overhead-") as folder:
                copy = Path(folder) / "project"
                copy_project(root, copy)
                presets.write(copy, settings, preset)
                seconds, started = _run([sys.executable, *command], Path(folder), copy)
                found = {name: one for name, one in stage_times.read(Layout(copy)).items() if one.started > started}
                rows.append({"name": name, **breakdown(found, started, seconds)})
    return {"bench": "overhead", "preset": preset, "rows": rows, "imports": import_seconds(max(3, rounds))}


def last_run(root: Path) -> Result:
    """The same result for the latest run in `root` itself, from the times that it recorded; nothing is run.

    The runner's time after the last stage is not included. Raises `SwirlError` when there is no such run, or when its
    stages overlapped.
    """
    found = stage_times.read(Layout(root))
    latest = list(found.values())[-1] if found else StageTimes()
    if not latest.run:
        raise SwirlError(
            f"{stage_times.folder(Layout(root))} tells of no run; `dvc repro` and the flow leave their times there"
        )
    found = {name: one for name, one in found.items() if one.run == latest.run}
    row = {"name": "the last run", **breakdown(found, latest.run_started, latest.process_ended - latest.run_started)}
    return {"bench": "overhead", "preset": None, "rows": [row], "imports": {}}


def breakdown(stages: Mapping[str, StageTimes], began: float, wall: float) -> Result:
    """The parts of a run that began at `began` (Unix seconds) and took `wall` seconds.

    Raises `SwirlError` if stages overlap.
    """
    order = sorted(stages.items(), key=lambda item: item[1].process_started)
    between = []
    for (one, a), (other, b) in itertools.pairwise(order):
        between.append(b.process_started - a.process_ended)
        if between[-1] < -0.1:
            raise SwirlError(f"stages {one} and {other} ran at the same time: their times do not add up to the run's")
    seconds = {name: one.ended - one.started for name, one in order}
    start = sum(one.ready - one.process_started for _, one in order)
    tracking = sum(one.started - one.ready + one.process_ended - one.ended for _, one in order)
    gates = sum(seconds.get(name, 0.0) for name in GATES)
    work = sum(seconds.values()) - gates
    first, last = order[0][1].process_started, order[-1][1].process_ended
    parts = {"work": work, "gates": gates, "start": start, "tracking": tracking}
    parts["runner"] = wall - sum(parts.values())
    return {
        "stages": len(order),
        "wall": wall,
        **parts,
        "overhead": wall - work,
        "overhead_percent": 100 * (wall - work) / wall,
        "runner_before": first - began,
        "runner_between": sum(between),
        "runner_after": began + wall - last,
        "tracking_cpu": sum(one.tracking_cpu for _, one in order),
        "stage_seconds": seconds,
    }


def import_seconds(repeats: int) -> dict[str, float]:
    """Median wall time of a new Python process that imports each of LIBRARIES, minus that of one without imports."""
    seconds: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for _ in range(repeats):
        for name, program in LIBRARIES.items():
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            seconds[name].append(time.monotonic() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {name: value - medians["nothing"] for name, value in medians.items() if name != "nothing"}


def as_text(result: Result) -> str:
    """The parts of each run as a Markdown table, and the other measurements as sentences."""
    rows, imports = result["rows"], result["imports"]
    columns = ["name", "stages", "wall", "work", "gates", "start", "tracking", "runner", "overhead"]
    lines = [f"| {' | '.join(columns)} | % |", "|" + "---|" * (len(columns) + 1)]
    for row in rows:
        cells = [f"{row[c]:.1f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append(f"| {' | '.join(cells)} | {row['overhead_percent']:.1f} |")
    lines.append("")
    for row in rows:
        said = f"{row['name']}: the runner took {row['runner_before']:.1f} s before the first stage, "
        said += f"{row['runner_between']:.1f} s between stages, {row['runner_after']:.1f} s after the last one; "
        lines.append(said + f"the tracking processes used {row['tracking_cpu']:.1f} s of processor time")
        if row["stages"] < COUNT:
            lines.append(
                f"{row['name']}: only {row['stages']} of {COUNT} stages ran, so its share is not a whole run's"
            )
    return "\n".join([*lines, *_comparison(rows), *_imports(imports)])


def _comparison(rows: Sequence[Result]) -> Iterator[str]:
    """A sentence on what the flow adds to DVC: the difference of their runner times."""
    named = {name: [row["runner"] for row in rows if row["name"] == name] for name in ("dvc repro", "Prefect flow")}
    if all(named.values()):
        dvc, flow = (statistics.median(values) for values in named.values())
        yield f"Prefect, its server and a DVC for each stage add {flow - dvc:.1f} s to DVC's own {dvc:.1f} s"


def _imports(seconds: Mapping[str, float]) -> Iterator[str]:
    """A sentence on the imports that every new process repeats."""
    if seconds:
        torch = sum(max(1, len(stage.items)) for stage in STAGES.values() if stage.uses_torch)
        yield (
            f"Inside the stages' own time, a new process each: torch and transformers "
            f"{seconds['torch and transformers']:.1f} s in {torch} stages, Great Expectations "
            f"{seconds['Great Expectations']:.1f} s in {len(GATES)}; beside them MLflow {seconds['MLflow']:.1f} s in "
            "each stage"
        )


def copy_project(root: Path, target: Path) -> None:
    """Copy the files that git tracks or would add (no data, models or environments); links stay links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        raise SwirlError(f"{root} is no git repository, so what belongs to the project is not known: {listed.stderr}")
    for name in filter(None, listed.stdout.split("\0")):
        source = root / name
        if source.is_file():  # git also lists files whose deletion is not committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)


def _run(command: Sequence[str], folder: Path, copy: Path) -> tuple[float, float]:
    """Run the pipeline in `copy` with its own stores in `folder`; returns its seconds and its start (Unix seconds)."""
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    environment |= {
        "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(copy / "src"),
    }
    with (folder / "log").open("w", encoding="utf-8") as log:
        started, clock = time.time(), time.monotonic()
        process = subprocess.Popen(command, cwd=copy, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            status = process.wait()
            seconds = time.monotonic() - clock
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if status:
        said = (folder / "log").read_text(encoding="utf-8", errors="replace")
        raise SwirlError(f"{' '.join(command)} failed with exit status {status}:\n{said[-3000:]}")
    return seconds, started


_ELSEWHERE = {"MLFLOW_TRACKING_URI", "PREFECT_API_URL", "SWIRL_RUN_ID", "SWIRL_RESTARTED"}
"""Environment variables that would send records to the user's own stores, or make the run part of another."""
