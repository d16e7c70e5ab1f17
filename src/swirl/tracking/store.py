"""Runs in MLflow, through its client alone (the fluent API keeps global state and costs more to start)."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.layout import Layout
from swirl.records import load_json
from swirl.tracking.contents import flat, numbers, read_contents, without_credentials
from swirl.tracking.pipeline import Stage, invocation, read_stages, upstream

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Value = TypeVar("Value")

EXPERIMENT = "swirl"
INVOCATION = "swirl.invocation"
PARENT = "mlflow.parentRunId"
CLOCK_TICK = 0.05
"""Seconds that a file's time may lag behind the clock."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """The child run of a stage that is under way."""

    id: str
    parent: str
    stage: Stage
    started: float
    """Unix time."""


class Store:
    """The runs of one project. Opening it, and every method, raises whatever MLflow raises."""

    def __init__(self, layout: Layout, params: dict[str, Any], max_model_mb: float = 0) -> None:
        """`params` are nested plain values; `max_model_mb` as in `stage_run`."""
        self.layout = layout
        self.params = params
        self.max_model_mb = max_model_mb
        self.stages = read_stages(layout.root, params)
        with _lock(layout):  # the first process creates the database
            self.client = _connect(layout)
            self.experiment = _experiment(self.client, layout)

    def open_parent(self, name: str, key: str = "") -> str:
        """Create a parent run and log the whole of the parameters there; `key` is what it is found by."""
        tags = {"git.commit": _commit(self.layout.root), **({INVOCATION: key} if key else {})}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags)
        self._log(run.info.run_id, flat(self.params))
        return str(run.info.run_id)

    def close_parent(self, run_id: str, error: str) -> None:
        """End a parent run, and as killed its children that nobody ended."""
        for child in self._children(run_id):
            if child.info.status == "RUNNING":
                self.client.set_terminated(child.info.run_id, "KILLED")
        self._terminate(run_id, "FAILED" if error else "FINISHED", error)

    def start_stage(self, stage_id: str, started: float) -> StageRun:
        """Find or make the parent, log there what DVC had cached of the stages before this one, begin the child."""
        name = stage_id.replace("-", "@", 1)
        stage = self.stages.get(name, Stage(name, (), (), ()))
        key = invocation()
        with _lock(self.layout):
            parent = self._parent(key, stage_id)
            if (key or "SWIRL_RUN_ID" in os.environ) and name in self.stages:
                self.log_cached(parent, upstream(name, self.stages))
        tags = {**self._tags(stage, cached=False), PARENT: parent}
        run = self.client.create_run(self.experiment, int(started * 1000), tags, name)
        self._log(run.info.run_id, flat(self.params, stage.params))
        return StageRun(run.info.run_id, parent, stage, started)

    def end_stage(self, run: StageRun, end: dict[str, str]) -> None:
        """Log what the stage wrote, then end its run and, unless another stage is running, its parent."""
        try:
            if end["status"] == "FINISHED":
                self._log_timing(run)
                self._log_files(run.id, run.parent, run.stage, max_mb=self.max_model_mb)
            else:  # what is older than this attempt is not its work, and half a model is not worth a copy
                self._log_files(run.id, run.parent, run.stage, since=run.started - CLOCK_TICK)
        finally:
            self._terminate(run.id, end["status"], end["error"])
            with _lock(self.layout):
                self._settle_parent(run, end)

    def log_cached(self, parent: str, names: Collection[str]) -> None:
        """Log stages that did not run in this invocation, from their files, as children tagged `cached`.

        A stage with a child already, or without all of its outputs, is left out. Models are logged as checksums:
        the run that made them holds the bytes.
        """
        logged = {child.data.tags.get("stage") for child in self._children(parent)}
        for stage in self.stages.values():
            complete = stage.outs and all((self.layout.root / out).exists() for out in stage.outs)
            if stage.name in names and stage.name not in logged and complete:
                tags = {**self._tags(stage, cached=True), PARENT: parent}
                run = self.client.create_run(self.experiment, run_name=stage.name, tags=tags)
                self._log(run.info.run_id, flat(self.params, stage.params))
                self._log_files(run.info.run_id, parent, stage)
                self.client.set_terminated(run.info.run_id)

    def _parent(self, key: str, stage_id: str) -> str:
        """The parent by SWIRL_RUN_ID, else by invocation, else a new one; running again if it had ended well."""
        given = os.environ.get("SWIRL_RUN_ID")
        if given:
            runs = [self.client.get_run(given)]
        else:
            runs = self._search(f"tags.`{INVOCATION}` = '{key}'") if key else []
        if not runs:
            return self.open_parent("dvc repro" if key else f"stage {stage_id}", key)
        run = runs[0]
        if run.info.status == "FINISHED":
            self.client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _settle_parent(self, run: StageRun, end: dict[str, str]) -> None:
        """Nobody knows which stage is the last, so the parent ends after each one and the next one reopens it."""
        if end["status"] != "FINISHED":
            self._terminate(run.parent, end["status"], f"{run.stage.name}: {end['error']}")
        elif self.client.get_run(run.parent).info.status == "RUNNING" and not any(
            child.info.status == "RUNNING" for child in self._children(run.parent)
        ):
            self.client.set_terminated(run.parent)

    def _log_timing(self, run: StageRun) -> None:
        path = self.layout.timing(run.stage.id)
        if path.exists() and path.stat().st_mtime >= run.started - CLOCK_TICK:
            measured = {name: value for name, value in numbers(load_json(path)).items() if name != "started"}
            self._log(run.id, metrics=measured, tags={name: f"{value:.1f}" for name, value in measured.items()})

    def _log_files(self, run_id: str, parent: str, stage: Stage, since: float = 0, max_mb: float = 0) -> None:
        contents = read_contents(stage, self.layout, since, max_mb)
        self._log(run_id, {}, contents.metrics, contents.tags, contents.series)
        self._log(parent, metrics=contents.headline)
        for path, folder in contents.artifacts:
            send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            send(run_id, str(path), folder)
        for name, text in contents.checksums:
            self.client.log_text(run_id, text, name)

    def _log(
        self,
        run_id: str,
        params: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        series: Sequence[tuple[str, float, int]] = (),
    ) -> None:
        """Send everything in batches as large as MLflow takes; over-long values are cut."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        points = [*((name, value, 0) for name, value in (metrics or {}).items()), *series]
        for some in _batches(points, 1000):
            self.client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value, step in some])
        for pairs in _batches(list((params or {}).items()), 100):
            self.client.log_batch(run_id, params=[Param(name, value[:5000]) for name, value in pairs])
        for pairs in _batches(list((tags or {}).items()), 100):
            self.client.log_batch(run_id, tags=[RunTag(name, value[:5000]) for name, value in pairs])

    def _terminate(self, run_id: str, status: str, error: str) -> None:
        if error:
            self._log(run_id, tags={"error": without_credentials(error)})
        self.client.set_terminated(run_id, status)

    def _tags(self, stage: Stage, cached: bool) -> dict[str, str]:
        tags = {"stage": stage.name, "cached": str(cached).lower(), "git.commit": _commit(self.layout.root)}
        return {**tags, "item": stage.item} if stage.item else tags

    def _children(self, parent: str) -> list[Run]:
        return self._search(f"tags.`{PARENT}` = '{parent}'")

    def _search(self, where: str) -> list[Run]:
        return list(self.client.search_runs([self.experiment], where, max_results=1000))


def _batches(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _connect(layout: Layout) -> MlflowClient:
    """A client of MLFLOW_TRACKING_URI, or of `mlflow.db` in the project root.

    A server that is down is asked twice, not the seven times over minutes that MLflow sets out to.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{layout.root.resolve() / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri)


def _experiment(client: MlflowClient, layout: Layout) -> str:
    """The id of the experiment; without a server its artifacts go to `mlartifacts` in the project root."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found:
        return str(found.experiment_id)
    served = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    location = None if served else (layout.root.resolve() / "mlartifacts").as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


@contextlib.contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    """One process of this project at a time; the kernel frees the lock of a process that dies."""
    path = layout.root / ".swirl/tracking.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def _commit(root: Path) -> str:
    """The git commit that is checked out, or `unknown`."""
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
