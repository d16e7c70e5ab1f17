"""The pipeline as a Prefect flow: each DVC stage is a task, with the order and dependencies that DVC gives.

`python flows/pipeline.py` runs it, with a Prefect server that lives as long as the run. prefect.yaml deploys it. DVC
alone decides which stages there are and whether they have to run: a task is `dvc repro --single-item STAGE` and nothing
more. Overrides run in a worktree (`swirl.orchestration.worktrees`) and never touch the project's files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

# Prefect reads its settings when it is imported, and puts only this folder on the import path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS", "http://127.0.0.1")  # its own pages need none
os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from flows import artifacts
from flows.graph import direct, opened, plan
from flows.retries import asks_network
from swirl import tracking
from swirl.config import overrides as laid_over
from swirl.config.secrets import plain
from swirl.config.yaml_text import read
from swirl.core.errors import ParamsError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.mlflow_store.stores import resolved
from swirl.orchestration.dvc_lock import remove_torn
from swirl.orchestration.ends import when_asked_to_end
from swirl.orchestration.groups import Groups
from swirl.orchestration.worktrees import sweep, worktree
from swirl.pipeline.dvc_file import read_stages
from swirl.pipeline.environment import bypass_proxy_for_localhost
from swirl.pipeline.user_errors import sentence

bypass_proxy_for_localhost()  # Prefect's server, or MLflow's, may be on this machine

NOT_RUN = re.compile(r"Stage '(.+)' (didn't change, skipping|is cached - skipping run)")
"""What DVC prints for a stage that is up to date, and for one that it restored from its run cache."""
STOPPED = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C, and a terminal that closes (`end_with_server`), raise in a flow. Prefect would call it crashed."""
KEPT = "the flow was stopped; what its stages have finished is kept, and the next run goes on"
SHOWN = 20
"""Last lines of a failed stage's output that its state repeats."""


def _targets(root: Path) -> list[str]:
    """The stages of a project's dvc.yaml, and what stands for several of them, as `train`.

    None where its files cannot be read: a run says why, and importing this module must not fail before.
    """
    try:
        stages = read_stages(root, _params(root))
    except SwirlError:
        return []
    return list(dict.fromkeys(name for stage in stages for name in (stage.partition("@")[0], stage)))


def _params(root: Path) -> dict[str, Any]:
    """The settings of params.yaml, none without that file. Raises `ParamsError` where it cannot be read."""
    path = root / "params.yaml"
    params = (read(path) or {}) if path.exists() else {}
    if not isinstance(params, dict):
        raise ParamsError(f"{path} holds no settings")
    return params


Target = Annotated[str, Field(json_schema_extra={"enum": _targets(Path(__file__).resolve().parents[1])})]
"""Prefect's page offers these; others, as `sub/dvc.yaml:train`, may be written."""
Parallel = Annotated[int, Field(ge=1)]
Retries = Annotated[int, Field(ge=0)]
Delay = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Settings:
    """Which stages to run, and how."""

    targets: tuple[str, ...] = ()
    force: bool = False
    parallel: int = 1
    retries: int = 2
    retry_delay: float = 10.0
    """Seconds before the first retry, doubled before each further one."""


@dataclass(frozen=True)
class Outcome:
    """The result of a pipeline run."""

    error: str
    """The message of the first stage that failed; empty when all is well."""
    stages: int
    results: Mapping[str, Any] | None = None
    """Content of reports/results.json, when this run made it or found it up to date."""
    experiment: str = ""
    """The DVC experiment that holds the results of a run with overrides."""


@dataclass
class Invocation:
    """A pipeline run in progress."""

    root: Path
    """Where the stages run: the project, or its copy with overrides."""
    settings: Settings
    params: Mapping[str, Any]
    env: Mapping[str, str]
    groups: Groups = field(default_factory=Groups)
    states: dict[str, State[Any]] = field(default_factory=dict)
    """Stage -> its final state, for stages that have ended."""


@flow(name="swirl-pipeline")  # tasks run in threads, Prefect's default
def pipeline(
    overrides: dict[str, Any] = {},  # noqa: B006
    targets: list[Target] = [],  # noqa: B006
    force: bool = False,
    parallel: Parallel = 1,
    retries: Retries = 2,
    retry_delay: Delay = 10.0,
    project: str = ".",
) -> State[Any]:
    """Run the stages of dvc.yaml that are not up to date. The first failure ends the run, which shows its last lines.

    Args:
        overrides: Settings by dotted key, such as {"filter.strategy": "outcome", "seed": 1}. They are checked before
            anything starts. The run then uses a temporary worktree: params.yaml stays as it is.
        targets: Run these stages, such as report or train@swirl, and those they need; if empty, all stages.
        force: Run stages that are up to date, too.
        parallel: Maximum number of independent stages that run at the same time.
        retries: Retries of a stage that uses the network; 0: none. Other stages are never retried.
        retry_delay: Seconds before the first retry; doubled before each further one.
        project: The folder with dvc.yaml; a relative path is resolved where the worker starts the flow.
    """
    settings = Settings(tuple(targets), force, parallel, retries, retry_delay)
    try:
        outcome = run(Path(project).resolve(), overrides, settings, flow_run.get_name() or "flow")
    except STOPPED:
        return Cancelled(message=KEPT)
    except Exception as error:
        if not (said := sentence(error)):
            raise
        return Failed(message=said)
    if outcome.error:
        return Failed(message=outcome.error)
    kept = f"; dvc exp apply {outcome.experiment} brings them here" if outcome.experiment else ""
    return Completed(message=f"{outcome.stages} stages are up to date{kept}")


def run(root: Path, overrides: Mapping[str, Any], settings: Settings, name: str, group: str = "") -> Outcome:
    """Run the pipeline of the project `root` inside a flow run; `group` is the MLflow run that becomes its parent.

    Raises `SwirlError`, before anything starts, for overrides or targets that are not valid.
    """
    tags = {f"override.{key}": json.dumps(value) for key, value in plain(overrides).items()}
    tags |= {"mlflow.parentRunId": group} if group else {}
    with store_of(root):
        sweep(root)
        if not overrides:
            params = _params(root)
            plan(root, settings.targets)
            run_id = _open(root, params, name, tags)
            return _run(Invocation(root, settings, params, {}), run_id)
        laid_over.checked(root / "params.yaml", overrides)
        plan(root, settings.targets)
        with worktree(root, overrides) as copy:
            logger = get_run_logger()
            logger.info("With %s, in the worktree %s", laid_over.text(overrides), copy.root)
            params = _params(copy.root)
            run_id = _open(root, params, name, tags)
            outcome = _run(Invocation(copy.root, settings, params, copy.environment()), run_id)
            if outcome.error:
                return outcome
            copy.finished = True
            kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "run"  # a user may choose any name
            failure = copy.save_experiment(kept)
            if failure:
                logger.warning("The results are not kept as a DVC experiment, but in DVC's run cache: %s", failure)
                return outcome
            logger.info(
                "Kept as the DVC experiment %s: `dvc exp apply %s` brings settings and results here", kept, kept
            )
            return Outcome("", outcome.stages, outcome.results, kept)


def _open(root: Path, params: Mapping[str, Any], name: str, tags: Mapping[str, str]) -> str:
    """Open the MLflow run of this flow run, link to it, and return its id."""
    opened = tracking.open_run(Layout(root), params, f"flow {name}", tags)
    artifacts.link_run(opened.page)
    return opened.run_id


def _run(invocation: Invocation, run_id: str) -> Outcome:
    """Run the stages, record them below the MLflow run `run_id`, and show the results."""
    layout, states = Layout(invocation.root), invocation.states
    error, stopped = "the flow was stopped", True
    invocation.env = {**invocation.env, "SWIRL_RUN_ID": run_id}
    try:
        _run_stages(plan(invocation.root, invocation.settings.targets), invocation)
        error = next((state.message or "failed" for state in states.values() if not state.is_completed()), "")
        stopped = False
    finally:
        invocation.groups.stop()
        cached = [name for name, state in states.items() if state.name == "Cached"]
        tracking.close_run(layout, invocation.params, run_id, error, killed=stopped, cached=cached)
    try:
        artifacts.show(layout, states)
    except Exception as failure:  # showing results never fails a run
        get_run_logger().warning("The artifacts of this run are not complete: %s", failure)
    reported = "report" in states and not error and layout.results.exists()
    return Outcome(error, len(states), load_json(layout.results) if reported else None)


@contextlib.contextmanager
def store_of(root: Path) -> Iterator[None]:
    """Record all runs in one MLflow store: that of MLFLOW_TRACKING_URI, else the project's own.

    A relative path is resolved in the project, as in `dvc repro`, even when stages run in a worktree.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = resolved(given or "sqlite:///mlflow.db", root)
    try:
        yield
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
        if given is not None:
            os.environ["MLFLOW_TRACKING_URI"] = given


@task(task_run_name="{name}", cache_policy=NO_CACHE)
def run_stage(name: str, invocation: Invocation) -> State[Any]:
    """Let DVC run one stage if it is not up to date. The state is named `Cached` when nothing had to run."""
    force = ["--force"] if invocation.settings.force else []
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *force, name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **invocation.env}
    if name.startswith("check_"):  # a report of an earlier failure
        (invocation.root / f".swirl/quality/{name.removeprefix('check_')}.failed.json").unlink(missing_ok=True)
    remove_torn(invocation.root)  # left by a flow that was killed
    logger, last, skipped = get_run_logger(), deque[str](maxlen=SHOWN), ""
    progress = artifacts.Progress(name)
    with invocation.groups.lines(command, invocation.root, env) as (process, lines):
        for line in lines:
            if line:
                logger.info(line)
                last.append(line)
                progress.read(line)
            said = NOT_RUN.match(line)
            if said and said.group(1) == name:
                skipped = "up to date" if "change" in said.group(2) else "restored from DVC's run cache"
    if not process.returncode:
        progress.end()
    if process.returncode and invocation.groups.stopped:
        return Cancelled(message="the flow was stopped; what this stage has finished is kept, and the next run goes on")
    if process.returncode:
        return Failed(message=f"stage {name} failed (exit status {process.returncode}):\n" + "\n".join(last))
    return Completed(name="Cached", message=skipped) if skipped else Completed()


def _run_stages(needs: Mapping[str, list[str]], invocation: Invocation) -> None:
    """Run each stage when the stages it needs are done, `parallel` at the same time; after a failure start no other."""
    states, above = invocation.states, direct(needs)
    waiting, futures = list(needs), dict[str, PrefectFuture[Any]]()
    running = dict[PrefectFuture[Any], str]()
    while waiting or running:
        ready = [name for name in waiting if all(need in states for need in needs[name])]
        for name in ready[: invocation.settings.parallel - len(running)]:
            waiting.remove(name)
            before = [futures[need] for need in above[name]]
            futures[name] = _task(name, invocation).submit(name, invocation, wait_for=before, return_state=False)
            running[futures[name]] = name
        done = next(as_completed(list(running)))
        done.wait()  # without this, `state` is what the server knows, which lags behind
        states[running.pop(done)] = done.state
        if not done.state.is_completed():
            waiting.clear()


def _task(name: str, invocation: Invocation) -> Any:
    """The task of a stage, with retries where they are safe."""
    settings = invocation.settings
    if not settings.retries or not asks_network(name, invocation.params, invocation.root):
        return run_stage.with_options(name=name)
    return run_stage.with_options(
        name=name,
        retries=settings.retries,
        retry_delay_seconds=[settings.retry_delay * 2**number for number in range(settings.retries)],
        retry_condition_fn=lambda *_: not invocation.groups.stopped,
    )


def _dry_run(layout: Layout, overrides: Mapping[str, Any], targets: tuple[str, ...]) -> int:
    """Print what a run would do: the plan from params, and the stages that DVC would run now."""
    from swirl.planning import estimates, footprint, keys, signal, unasked

    wanted = plan(layout.root, targets)
    params = laid_over.checked(layout.root / "params.yaml", overrides)
    planned = [one for one in estimates.plan(params, layout.root) if one.stage in wanted]
    print(estimates.text(planned, keys.lines(params, layout.root, wanted), signal.lines(params, wanted)))
    print("\n".join(["", *footprint.lines(params, layout.root, None, wanted)]))
    for line in unasked.lines(params):
        print(f"\n{line}")
    if overrides:
        return 0
    with opened(layout.root) as repo, contextlib.chdir(layout.root):
        stale = {name for name in repo.status() if name in wanted}
    print(f"\nOut of date: {', '.join(name for name in wanted if name in stale) or 'nothing'}")
    print("What follows a stage that is out of date runs, too, if what it makes differs from before.")
    return 0


def end_with_server() -> None:
    """On SIGTERM or SIGHUP, exit as usual, so that the server that Prefect started for this program ends, too."""
    when_asked_to_end(lambda number: sys.exit(128 + number))


def start_server() -> None:
    """Start the server that Prefect would start for this program, if none is named, so that Ctrl-C does not reach it.

    A terminal sends Ctrl-C to both, and the flow has to tell the server how it ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child inherits it
    try:
        get_client(sync_client=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def ended(state: State[Any]) -> int:
    """The program's exit code: 0, or 1 when the flow failed.

    Of one that was cancelled the program ends by Ctrl-C, too, so that a shell's loop over flows stops. Raises
    `KeyboardInterrupt` then, which prints nothing.
    """
    if state.is_cancelled():
        sys.excepthook = lambda *_: None
        raise KeyboardInterrupt
    return 0 if state.is_completed() else 1


def main() -> int:
    """Run the flow from the command line; returns 1 when it failed."""
    parser = argparse.ArgumentParser(description="Run the SWiRL pipeline (dvc.yaml) as a Prefect flow.")
    parser.add_argument("--project", default=str(Path(__file__).resolve().parents[1]), help="folder with dvc.yaml")
    parser.add_argument(
        "--target", metavar="STAGE", action="append", default=[], help="run this stage and what it needs (default: all)"
    )
    parser.add_argument("--force", action="store_true", help="run stages that are up to date, too")
    parser.add_argument("--dry-run", action="store_true", help="say what a run would do, and do nothing")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="stages at a time (default: 1)")
    parser.add_argument(
        "-S", "--set", metavar="KEY=VALUE", action="append", default=[],
        help="override a setting for this run alone, as filter.strategy=outcome; VALUE is YAML",
    )  # fmt: skip
    chosen = parser.parse_args()
    end_with_server()
    if chosen.parallel < 1:
        parser.error("--parallel must be at least 1")
    try:
        overrides = laid_over.parsed(chosen.set)
    except ParamsError as error:
        parser.error(f"--set {error}")
    layout = Layout(Path(chosen.project).resolve())
    try:
        _params(layout.root)  # DVC would say in a traceback that it cannot be read
        plan(layout.root, tuple(chosen.target))
        if overrides:
            laid_over.checked(layout.root / "params.yaml", overrides)
        if chosen.dry_run:
            return _dry_run(layout, overrides, tuple(chosen.target))
    except Exception as error:
        if not (said := sentence(error)):
            raise
        print(f"swirl: {said}", file=sys.stderr)
        return 1
    start_server()
    state = pipeline(overrides, chosen.target, chosen.force, chosen.parallel, project=chosen.project, return_state=True)
    if not state.is_completed():
        print(state.message, file=sys.stderr)
    return ended(state)


if __name__ == "__main__":
    sys.exit(main())
