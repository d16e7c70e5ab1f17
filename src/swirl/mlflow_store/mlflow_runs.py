"""Writes runs to an MLflow store, through its client alone: the fluent API has global state and starts slower."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.mlflow_store.stores import NOTE, Store, reason

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run, TraceInfo
    from mlflow.entities.span import Span

Value = TypeVar("Value")
Point = tuple[str, float, int, int]
"""A point of a metric: (name, value, Unix time in milliseconds, step)."""

PARENT = "mlflow.parentRunId"
SECTIONS = ("Results", "Runs", "Up to date")
"""The sections of a parent's description, in their order."""
FOR_GOOD = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
"""Error codes of requests that fail again however often they are repeated."""


class Runs:
    """The runs of one experiment. Every method raises what MLflow raises, if it may succeed at another time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.client = store.client
        self.refused: list[str] = []
        """What could not be logged and never can, a sentence each."""

    def create(self, name: str, started: float, tags: Mapping[str, str]) -> str:
        """Create a run that began at `started` (Unix time), and return its id."""
        run = self.client.create_run(self.store.experiment, int(started * 1000), _cut(tags), name)
        return str(run.info.run_id)

    def get(self, run_id: str) -> Run | None:
        """A run by its id, which need not exist."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None

    def search(self, where: str = "") -> list[Run]:
        """All runs that a filter of MLflow's search finds, those that began first first."""
        found, token = list[Any](), None
        while True:
            page = self.client.search_runs(
                [self.store.experiment], where, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += page
            if not (token := page.token):
                return found

    def find(self, tag: str, value: str) -> Run | None:
        """The run with this tag."""
        return next(iter(self.search(f"tags.`{tag}` = '{value}'")), None)

    def children(self, parent: str) -> list[Run]:
        """The runs below a run, in the order in which they began."""
        return self.search(f"tags.`{PARENT}` = '{parent}'")

    def log(
        self,
        run_id: str,
        params: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log everything, in batches as large as MLflow accepts; overlong values are cut.

        A point that is there already is not doubled.
        """
        from mlflow.entities import Metric, Param, RunTag

        for some in _batches(points, 1000):
            with self._forgiving("metrics"):
                self.client.log_batch(run_id, metrics=[Metric(*point) for point in some])
        for pairs in _batches(list((params or {}).items()), 100):
            with self._forgiving("params"):
                self.client.log_batch(run_id, params=[Param(name, value[:5000]) for name, value in pairs])
        for pairs in _batches(list(_cut(tags or {}).items()), 100):
            with self._forgiving("tags"):
                self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in pairs])

    def log_note(self, run_id: str, heading: str, text: str) -> None:
        """Replace one section of a run's description, or add it; what stands before the sections stays."""
        first, *rest = self.client.get_run(run_id).data.tags.get(NOTE, "").split("\n\n### ")
        sections = dict(part.split("\n\n", 1) for part in rest) | {heading: text}
        said = [f"{one}\n\n{sections[one]}" for one in SECTIONS if sections.get(one)]
        self.log(run_id, tags={NOTE: "\n\n### ".join([first, *said])})

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Copy a file, or what is in a folder, into `folder` of the run's artifacts."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        with self._forgiving(str(path)):
            if path.exists():
                log(run_id, str(path), folder)
            else:
                self.refused.append(f"{path} is gone; it was to be an artifact")

    def log_text(self, run_id: str, name: str, text: str) -> None:
        """Make a text an artifact."""
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        with self._forgiving(name):
            self.client.log_text(run_id, text, name)
        if text.startswith('{"columns"'):  # `log_table` sets this tag for the Evaluation view
            self.log(run_id, tags={MLFLOW_LOGGED_ARTIFACTS: json.dumps([{"path": name, "type": "table"}])})

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        """Log the data sets that a run reads."""
        with self._forgiving("data sets"):
            if datasets:
                self.client.log_inputs(run_id, datasets)

    def log_trace(self, info: TraceInfo, spans: list[Span], made_in: str = "") -> None:
        """Log a trace at once (MLflow's exporter does it later and hides failures), and link it to run `made_in`."""
        from mlflow.tracing.client import TracingClient

        tracing = TracingClient(self.client.tracking_uri)
        with self._forgiving(f"trace {info.trace_id}"):
            tracing.start_trace(info)
            tracing.log_spans(self.store.experiment, spans)
            if made_in:
                self.client.link_traces_to_run([info.trace_id], made_in)

    def end(self, run_id: str, status: str, at: float) -> None:
        """End a run at a Unix time as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status, int(at * 1000))

    def resume(self, run_id: str) -> None:
        """Let a run that has ended run again."""
        self.client.update_run(run_id, status="RUNNING")

    @contextlib.contextmanager
    def _forgiving(self, what: str) -> Iterator[None]:
        """Note that `what` was refused for good instead of raising: the rest of the run is worth having."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            self.refused.append(f"{what} refused: {reason(error)}")


def dataset_inputs(tables: Sequence[Mapping[str, str]]) -> list[DatasetInput]:
    """What `swirl.tracking.inputs.datasets` returns, in MLflow's own types."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = []
    for one in tables:
        source = json.dumps({"uri": one["path"]})  # `mlflow.data.get_source` reads it as a local file
        dataset = Dataset(one["name"], one["digest"], "local", source, one["schema"], one["profile"])
        inputs.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, one["context"])]))
    return inputs


def _batches(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    """The values in their order, at most `size` at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:5000] for name, value in tags.items()}
