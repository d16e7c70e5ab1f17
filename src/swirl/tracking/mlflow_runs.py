"""Carries out operations in MLflow, through its client alone: the fluent API has global state and starts slower."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.pipeline.temporary import original
from swirl.tracking.ledger import PENDING, locked
from swirl.tracking.operations import (
    PARENT_RUN,
    Child,
    Close,
    End,
    File,
    Inputs,
    Log,
    Note,
    OneTrace,
    Operation,
    Parent,
    Promote,
    Settle,
    Text,
)
from swirl.tracking.settings import Settings, read_settings
from swirl.tracking.summary import NOTE

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

Value = TypeVar("Value")

INVOCATION = "swirl.invocation"
RECORD = "swirl.record"
PARENT = "mlflow.parentRunId"
OWN_PAGES = "http://127.0.0.1:5000"
"""Where `make mlflow` serves the project's own runs."""
CLOSED = "swirl.closed"
"""The tag of a parent run whose flow has ended."""
SECTIONS = ("Results", "Runs", "Up to date")
"""The sections of a parent's description, in their order."""
ABOUT = (
    "Runs of SWiRL's pipeline: step-wise reinforcement learning for multi-step tool use. A run at the top is one "
    "pipeline, named by the settings that it changed; it has the headline metrics and the report. Below it is a run "
    "for each stage that ran: `evaluate@base`, `@sft` and `@swirl`, side by side, are the paper's table. A trace is "
    "one trajectory."
)
"""The description of an experiment."""
FOR_GOOD = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
"""Error codes of requests that fail again however often they are repeated."""


class Store:
    """The MLflow runs of one project. The constructor and every method raise whatever MLflow raises."""

    def __init__(self, layout: Layout, params: dict[str, Any]) -> None:
        """Of `params` (nested plain values) only the section `tracking` counts. Raises as `_experiment` does."""
        uri, settings = tracking_uri(layout), read_settings(params)
        self.layout = layout
        self.address = without_credentials(uri)
        with contextlib.nullcontext() if uri.startswith("http") else locked(layout):  # only one may create the file
            self.client = connect(tracking_uri(layout))
            self.experiment = _experiment(self.client, layout, settings, uri)

    def apply(self, operation: Operation, runs: dict[str, str]) -> str:
        """Carry out one operation; `runs` maps run names to MLflow's ids, and a run that it opens is added.

        Returns why the operation can never succeed, empty otherwise. Raises whatever MLflow raises when a later attempt
        may succeed.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._apply(operation, runs)
        except MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            reason = (str(error).strip().splitlines() or ["no reason"])[0]
            return without_credentials(f"{type(operation).__name__} was refused: {reason}")[:300]

    def page(self, run_id: str) -> str:
        """The address of a run's page: at the server, or where `make mlflow` shows the project's own runs."""
        shown = self.address.replace("://***@", "://")
        own = f"sqlite:///{_lasting(self.layout) / 'mlflow.db'}"
        place = OWN_PAGES if shown == own else shown if shown.startswith("http") else ""
        return f"{place.rstrip('/')}/#/experiments/{self.experiment}/runs/{run_id}" if place else ""

    def _apply(self, operation: Operation, runs: dict[str, str]) -> str:
        if isinstance(operation, Parent):
            runs[PARENT_RUN] = self._parent(operation)
            return ""
        if isinstance(operation, Promote):  # left to `promotion`, once everything else has arrived
            return ""
        run_id = runs.get(PARENT_RUN if isinstance(operation, Child | Note | Settle | Close) else operation.run)
        if run_id is None:
            return f"{type(operation).__name__} belongs to a run that was not made"
        match operation:
            case Child():
                runs[operation.record] = self._child(operation, run_id)
            case Settle():
                self._settle(run_id, operation)
            case Close():
                self._close(run_id, operation)
            case Log():
                self._log(run_id, {}, operation.points, operation.tags)
            case Note():
                self._note(run_id, operation.heading, operation.text)
            case File():
                path = Path(operation.path)
                if not path.exists():
                    return f"{path} is gone; it was to be an artifact"
                (self.client.log_artifacts if path.is_dir() else self.client.log_artifact)(
                    run_id, operation.path, operation.folder
                )
            case Text():
                self._text(run_id, operation)
            case Inputs():
                self._inputs(run_id, operation)
            case OneTrace():
                self._trace(run_id, operation)
            case End():
                self.client.set_terminated(run_id, operation.status, int(operation.time * 1000))
        return ""

    def _parent(self, wanted: Parent) -> str:
        """Find the run by id, else by its tag, or create it; `Parent` says when one that has ended is reopened."""
        from mlflow.exceptions import MlflowException

        runs: list[Run] = []
        if wanted.given:
            try:
                runs = [self.client.get_run(wanted.given)]
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # of another server, or removed: go by the tag
                    raise
        runs = runs or self._search(f"tags.`{INVOCATION}` = '{wanted.key}'")
        if runs:
            run = runs[0]
        else:
            tags = _cut({**wanted.tags, INVOCATION: wanted.key})
            run = self.client.create_run(self.experiment, int(wanted.started * 1000), tags, wanted.name)
        self._log_missing(run, wanted.params)
        of_flow = bool(wanted.given) or wanted.key.startswith(PENDING)
        over = ("FINISHED", "FAILED", "KILLED") if of_flow else ("FINISHED",)
        if run.info.status in over and CLOSED not in run.data.tags:
            self.client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _child(self, wanted: Child, parent: str) -> str:
        runs = self._search(f"tags.`{RECORD}` = '{wanted.record}'")
        if runs:
            run = runs[0]
        else:
            tags = _cut({**wanted.tags, RECORD: wanted.record, PARENT: parent})
            run = self.client.create_run(self.experiment, int(wanted.started * 1000), tags, wanted.name)
        self._log_missing(run, wanted.params)
        return str(run.info.run_id)

    def _settle(self, parent: str, end: Settle) -> None:
        """Nobody knows which stage is the last, so the parent ends after each one and the next one reopens it."""
        self._list_children(parent)
        run = self.client.get_run(parent)
        if CLOSED in run.data.tags:
            return
        if end.error:
            self._log(parent, tags={"error": end.error})
        if end.status != "FINISHED":
            self.client.set_terminated(parent, end.status, int(end.time * 1000))
        elif run.info.status == "RUNNING" and not any(
            child.info.status == "RUNNING" for child in self._children(parent)
        ):
            self.client.set_terminated(parent, "FINISHED", int(end.time * 1000))

    def _close(self, parent: str, end: Close) -> None:
        for child in self._children(parent):
            if child.info.status == "RUNNING":
                self.client.set_terminated(child.info.run_id, "KILLED", int(end.time * 1000))
        self._list_children(parent)
        if not end.failed and "error" in self.client.get_run(parent).data.tags:  # left by a stage that then succeeded
            self.client.delete_tag(parent, "error")
        status = "KILLED" if end.killed else "FAILED" if end.failed else "FINISHED"
        self.client.set_terminated(parent, status, int(end.time * 1000))
        self.client.set_tag(parent, CLOSED, "true")

    def _list_children(self, parent: str) -> None:
        """Link the runs below a parent in its description, in the order in which they began."""
        lines = []
        for run in sorted(self._children(parent), key=lambda run: run.info.start_time):
            said = {"FAILED": " (failed)", "KILLED": " (killed)"}.get(run.info.status, "")
            said += " (up to date)" if run.data.tags.get("cached") == "true" else ""
            lines.append(f"- [{run.info.run_name}](#/experiments/{self.experiment}/runs/{run.info.run_id}){said}")
        if lines:
            self._note(parent, "Runs", "\n".join(lines))

    def _note(self, run_id: str, heading: str, text: str) -> None:
        """Replace one section of a run's description, or add it; what stands before the sections stays."""
        first, *rest = self.client.get_run(run_id).data.tags.get(NOTE, "").split("\n\n### ")
        sections = dict(part.split("\n\n", 1) for part in rest) | {heading: text}
        said = [f"{one}\n\n{sections[one]}" for one in SECTIONS if sections.get(one)]
        self._log(run_id, tags={NOTE: "\n\n### ".join([first, *said])})

    def _text(self, run_id: str, wanted: Text) -> None:
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        self.client.log_text(run_id, wanted.text, wanted.name)
        if wanted.text.startswith('{"columns"'):  # `log_table` sets this tag for the Evaluation view
            self.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": wanted.name, "type": "table"}]))

    def _inputs(self, run_id: str, wanted: Inputs) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        inputs = []
        for one in wanted.datasets:
            source = json.dumps({"uri": one["path"]})  # `mlflow.data.get_source` reads it as a local file
            dataset = Dataset(one["name"], one["digest"], "local", source, one["schema"], one["profile"])
            inputs.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, one["context"])]))
        self.client.log_inputs(run_id, inputs)

    def _trace(self, run_id: str, wanted: OneTrace) -> None:
        """Send a trace with its spans and verdicts right away: MLflow's exporter sends later and hides its failures."""
        from mlflow.tracing.client import TracingClient

        from swirl.tracking.traces import trace_info, trace_spans

        tracing = TracingClient(self.client.tracking_uri)
        info = trace_info(wanted.trace, self.experiment, run_id)
        tracing.start_trace(info)
        tracing.log_spans(self.experiment, trace_spans(wanted.trace))
        for made in self._search(f"tags.`{RECORD}` = '{wanted.made_in}'") if wanted.made_in else []:
            self.client.link_traces_to_run([info.trace_id], made.info.run_id)

    def _log_missing(self, run: Run, params: dict[str, str]) -> None:
        """Log the parameters that a run lacks: they are sent in batches, between which a server may go away.

        A run that has other values keeps them all: the parent of a group of experiments has those of the first one.
        """
        if not run.data.params.items() <= params.items():
            return
        self._log(run.info.run_id, {name: value for name, value in params.items() if name not in run.data.params})

    def _log(
        self,
        run_id: str,
        params: dict[str, str] | None = None,
        points: Sequence[Sequence[Any]] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        """Log everything, in batches as large as MLflow accepts; overlong values are cut."""
        from mlflow.entities import Metric, Param, RunTag

        for some in _batches(points, 1000):
            metrics = [Metric(name, value, now, step) for name, value, now, step in some]
            self.client.log_batch(run_id, metrics=metrics)
        for pairs in _batches(list((params or {}).items()), 100):
            self.client.log_batch(run_id, params=[Param(name, value[:5000]) for name, value in pairs])
        for pairs in _batches(list(_cut(tags or {}).items()), 100):
            self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in pairs])

    def _children(self, parent: str) -> list[Run]:
        return self._search(f"tags.`{PARENT}` = '{parent}'")

    def _search(self, where: str) -> list[Run]:
        return list(self.client.search_runs([self.experiment], where, max_results=1000))


def _cut(tags: dict[str, str]) -> dict[str, str]:
    return {name: value[:5000] for name, value in tags.items()}


def _batches(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def tracking_uri(layout: Layout) -> str:
    """MLFLOW_TRACKING_URI, or `mlflow.db` in the project root; never in a temporary copy that DVC deletes."""
    root, given = _lasting(layout), os.environ.get("MLFLOW_TRACKING_URI")
    if given and root != layout.root.resolve():
        return re.sub("^(sqlite:///|file:)(?!/)", lambda scheme: f"{scheme[0]}{root}/", given)
    return given or f"sqlite:///{root / 'mlflow.db'}"


def _lasting(layout: Layout) -> Path:
    """The project root, also when `layout` is a temporary copy of the project."""
    return (original(layout) or layout).root.resolve()


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server at `uri` that retries once when the server is down.

    MLflow's default is seven retries over several minutes.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: MlflowClient, layout: Layout, settings: Settings, uri: str) -> str:
    """The id of the experiment, which is created if need be.

    Its artifacts go to `tracking.artifacts`; where that is empty, to `mlartifacts` in the project root or, with a
    server, where the server says. Raises `SwirlError` when it is deleted, when it has another place for them, or when
    what talks to that place is not installed.
    """
    name = settings.experiment
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise SwirlError(
            f"MLflow's experiment {name!r} is deleted; restore it (mlflow experiments restore --experiment-id "
            f"{found.experiment_id}) or set tracking.experiment in params.yaml to another name"
        )
    place = found.artifact_location if found else settings.artifacts
    if settings.artifacts not in ("", place):
        raise SwirlError(
            f"MLflow's experiment {name!r} keeps its artifacts in {without_credentials(place)}, for good; set "
            f"tracking.experiment in params.yaml to another name for {settings.artifacts}, or tracking.artifacts to ''"
        )
    if place.startswith("s3://") and find_spec("boto3") is None:
        raise SwirlError(f"artifacts in {place} need the extra s3: pip install 'swirl[s3]'")
    if found:
        if NOTE not in found.tags:
            client.set_experiment_tag(found.experiment_id, NOTE, ABOUT)
        return str(found.experiment_id)
    served = uri.startswith("http")
    location = None if served else (_lasting(layout) / "mlartifacts").as_uri()
    return str(client.create_experiment(name, settings.artifacts or location, {NOTE: ABOUT}))
