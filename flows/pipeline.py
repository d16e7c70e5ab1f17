"""The pipeline as a Prefect flow: each DVC stage is a task, in the order and with the dependencies that DVC has.

`python flows/pipeline.py` runs it; Prefect starts a server of its own for the time of the run. What there is to
run, and whether it has to, is for DVC alone to say: a task is `dvc repro --single-item STAGE` and nothing more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Prefect reads its settings when it is imported.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

import psutil
import yaml
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from swirl import tracking
from swirl.errors import DataError
from swirl.layout import Layout
from swirl.records import load_json

NOT_RUN = re.compile(r"Stage '(.+)' (didn't change, skipping|is cached - skipping run)")
"""What DVC says of a stage that is up to date, and of one that it restored from its run cache."""
SHOWN = 20
"""Lines of a failed stage that its state repeats."""
GRACE = 10.0
"""Seconds between asking a stopped stage to end and killing it."""


class ProcessGroups:
    """The stages that are running, each with what it started in a process group of its own.

    Killing DVC alone would leave its stage alive, and the next run would write to the same files.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def lines(self, command: list[str], folder: Path, env: dict[str, str]) -> Iterator[tuple[Any, Iterator[str]]]:
        """The started process, and its output line by line; a progress bar counts as its last state."""
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._running.add(process)
        if self._stopped.is_set():
            self.stop()
        try:
            assert process.stdout is not None
            text = io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="\n")
            yield process, (line.rstrip().split("\r")[-1] for line in text)
            process.wait()
        finally:
            _stop(process)
            self._running.discard(process)

    def stop(self) -> None:
        """End every stage, and each one that is still to start."""
        self._stopped.set()
        for process in list(self._running):
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: a stage may well outlive the DVC that started it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE
        if _alive(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    process.wait()


def _alive(group: int) -> bool:
    """Whether a process of the group still runs; one that has ended and was not waited for does not."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, project: Path, force: bool, run_id: str | None, groups: ProcessGroups) -> State[Any]:
    """Let DVC run one stage if it has to. The state is called `Cached` when nothing had to run."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **({"SWIRL_RUN_ID": run_id} if run_id else {})}
    logger, last, skipped = get_run_logger(), deque[str](maxlen=SHOWN), ""
    with groups.lines(command, project, env) as (process, lines):
        for line in lines:
            if line:
                logger.info(line)
                last.append(line)
            said = NOT_RUN.match(line)
            if said and said.group(1) == name:
                skipped = "up to date" if "change" in said.group(2) else "restored from DVC's run cache"
    if process.returncode:
        return Failed(message=f"stage {name} failed (exit status {process.returncode}):\n" + "\n".join(last))
    return Completed(name="Cached", message=skipped) if skipped else Completed()


@flow(name="swirl-pipeline")  # tasks run in threads, Prefect's default
def pipeline(project: str = ".", target: str | None = None, force: bool = False, parallel: int = 1) -> State[Any]:
    """Run the stages of `project`'s dvc.yaml, or `target` and what it needs, at most `parallel` at a time.

    `force` runs stages that are up to date, too. The first stage that fails ends the flow with its last lines.
    """
    layout = Layout(Path(project).resolve())
    params = _params(layout.root)
    needs = plan(layout.root, target)
    run_id = tracking.open_run(layout, params, f"flow {flow_run.get_name()}")
    groups, states, error = ProcessGroups(), dict[str, State[Any]](), "the flow was stopped"
    try:
        _run(needs, parallel, (layout.root, force, run_id, groups), states)
        error = next((state.message or "failed" for state in states.values() if not state.is_completed()), "")
    finally:
        groups.stop()
        if run_id:
            tracking.log_cached(layout, params, run_id, [name for name in states if states[name].name == "Cached"])
            tracking.close_run(layout, run_id, error)
    _show(layout)
    return Failed(message=error) if error else Completed(message=f"{len(states)} stages are up to date")


def _params(root: Path) -> dict[str, Any]:
    path = root / "params.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def plan(project: Path, target: str | None) -> dict[str, list[str]]:
    """Each stage and the stages that it needs, in DVC's order. Raises `DataError` for an unknown target.

    `train` stands for `train@sft` and `train@swirl`. What `dvc add` tracks is in DVC's graph, too, but there is
    nothing to run for it. DVC's own look-up of targets goes by the current folder, which need not be the project.
    """
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro
    from dvc.stage import PipelineStage

    with Repo(str(project)) as repo:
        graph = repo.index.graph
        known = [stage for stage in graph if isinstance(stage, PipelineStage)]
        wanted = [stage for stage in known if target in (None, stage.name, stage.name.partition("@")[0])]
        if not wanted:
            raise DataError(f"dvc.yaml has no stage {target!r}; it has {', '.join(stage.name for stage in known)}")
        stages = [stage for stage in plan_repro(graph, wanted) if stage in known]
        return {stage.name: [dep.name for dep in graph.successors(stage) if dep in stages] for stage in stages}


Arguments = tuple[Path, bool, str | None, ProcessGroups]
"""Of `run_stage`, after the name."""


def _run(needs: dict[str, list[str]], parallel: int, arguments: Arguments, states: dict[str, State[Any]]) -> None:
    """Run stages as soon as what they need is done and there is room; after a failure start no other.

    `states` is filled with the final states as they come.
    """
    waiting, futures = list(needs), dict[str, PrefectFuture[Any]]()
    running = dict[PrefectFuture[Any], str]()
    while waiting or running:
        ready = [name for name in waiting if all(need in states for need in needs[name])]
        for name in ready[: parallel - len(running)]:
            waiting.remove(name)
            before = [futures[need] for need in needs[name]]
            futures[name] = run_stage.with_options(name=name).submit(
                name, *arguments, wait_for=before, return_state=False
            )
            running[futures[name]] = name
        done = next(as_completed(list(running)))
        done.wait()  # without it `state` is what the server knows, which comes later
        states[running.pop(done)] = done.state
        if not done.state.is_completed():
            waiting.clear()


def _show(layout: Layout) -> None:
    """The results and the gates as artifacts of the flow run, as far as there are any."""
    if layout.results.exists():
        columns = ("benchmark", "model", "with_tools", "n", "accuracy", "ci_low", "ci_high", "p_vs_base")
        rows = [{column: score.get(column) for column in columns} for score in load_json(layout.results)["scores"]]
        create_table_artifact(table=rows, key="results", description="Accuracy with 95% Wilson intervals")
    gates = {path.stem: load_json(path) for path in sorted(layout.quality("").parent.glob("*.json"))}
    if gates:
        lines = [f"| {name} | {'passed' if gate.get('success') else 'FAILED'} |" for name, gate in gates.items()]
        text = "\n".join(["| gate | result |", "|---|---|", *lines])
        create_markdown_artifact(markdown=text, key="quality-gates", description="Great Expectations gates")


def _dry_run(layout: Layout, target: str | None) -> int:
    """Print what a run would do: the plan from params, and the stages that DVC would run now."""
    from dvc.repo import Repo

    from swirl import params, planning
    from swirl.errors import SwirlError

    try:
        wanted = plan(layout.root, target)
        planned = planning.plan(params.load(layout.root / "params.yaml"), layout.root)
    except SwirlError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 1
    with Repo(str(layout.root)) as repo, contextlib.chdir(layout.root):
        stale = {name for name in repo.status() if name in wanted}
    print(planning.text([one for one in planned if one.stage in wanted]))
    print(f"\nOut of date: {', '.join(name for name in wanted if name in stale) or 'nothing'}")
    print("What follows a stage that is out of date runs, too, if what it makes differs from before.")
    return 0


def main() -> int:
    """Run the flow from the command line; 1 when a stage failed."""
    parser = argparse.ArgumentParser(description="Run the SWiRL pipeline (dvc.yaml) as a Prefect flow.")
    parser.add_argument("--project", default=str(Path(__file__).resolve().parents[1]), help="folder with dvc.yaml")
    parser.add_argument("--target", metavar="STAGE", help="run this stage and what it needs (default: all)")
    parser.add_argument("--force", action="store_true", help="run stages that are up to date, too")
    parser.add_argument("--dry-run", action="store_true", help="say what a run would do, and do nothing")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="stages at a time (default: 1)")
    chosen = parser.parse_args()
    if chosen.parallel < 1:
        parser.error("--parallel must be at least 1")
    if chosen.dry_run:
        return _dry_run(Layout(Path(chosen.project).resolve()), chosen.target)
    state = pipeline(chosen.project, chosen.target, chosen.force, chosen.parallel, return_state=True)
    if not state.is_completed():
        print(state.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
