"""An experiment of an MLflow store, through MLflow's client: its fluent API has global state and starts slower."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from swirl.config.secrets import without_secret

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run, Trace
    from mlflow.tracking import MlflowClient

Point = tuple[str, float, int, int]
"""A point of a metric: (name, value, Unix time in milliseconds, step)."""

Pairs = Mapping[str, str]
NONE: Pairs = {}

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a description, in Markdown."""
LOCAL = "swirl.local."
"""What the names of tags begin with that are not copied to another store."""
FOR_GOOD = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
"""Error codes of requests that fail again however often they are repeated."""


@dataclass(slots=True)
class Store:
    """An experiment and its runs. Every method raises what MLflow raises, if it may succeed at another time."""

    client: MlflowClient
    experiment: str
    """Its id."""
    artifacts: str
    """The address below which its artifacts are."""
    pages: str
    """The address of MLflow's pages about the store; empty when there are none."""
    refused: list[str] = field(default_factory=list)
    """What could not be logged and never can, a sentence each."""

    def page(self, run_id: str) -> str:
        """The address of a run's page; empty when there is none."""
        return f"{self.pages}/#/experiments/{self.experiment}/runs/{run_id}" if self.pages and run_id else ""

    def create(self, name: str, started: float, tags: Pairs) -> str:
        """Create a run that began at `started` (Unix time), and return its id."""
        return str(self.client.create_run(self.experiment, int(started * 1000), dict(tags), name).info.run_id)

    def search(self, where: str = "") -> list[Run]:
        """All runs that a filter of MLflow's search finds, those that began first first."""
        order = ["attributes.start_time ASC"]
        return paged(lambda token: self.client.search_runs([self.experiment], where, order_by=order, page_token=token))

    def find(self, key: str, value: str) -> Run | None:
        """The run of which a key of MLflow's search (`attributes.run_id`, ``tags.`x` ``) has this value, if any."""
        return next(iter(self.search(f"{key} = '{value}'")), None)

    def children(self, parent: str) -> list[Run]:
        """The runs below a run, in the order in which they began."""
        return self.search(f"tags.`{PARENT}` = '{parent}'")

    def log(self, run_id: str, *, params: Pairs = NONE, points: Sequence[Point] = (), tags: Pairs = NONE) -> None:
        """Log everything; MLflow cuts overlong values, and does not double a point that is there already."""
        from mlflow.entities import Metric, Param, RunTag

        with self._forgiving("metrics"):
            self.client.log_batch(run_id, metrics=[Metric(*point) for point in points])
        with self._forgiving("params"):
            self.client.log_batch(run_id, params=[Param(*pair) for pair in params.items()])
        with self._forgiving("tags"):
            self.client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items()])

    def log_error(self, run: Run, error: str) -> None:
        """Set the tag `error` of a run, or remove it where there is none."""
        if error:
            self.log(run.info.run_id, tags={"error": error})
        elif "error" in run.data.tags:
            self.client.delete_tag(run.info.run_id, "error")

    def log_file(self, run_id: str, path: Path, folder: str) -> None:
        """Copy a file, or what is in a folder, into `folder` of the run's artifacts."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        with self._forgiving(str(path)):
            if path.exists():
                log(run_id, str(path), folder)
            else:
                self.refused.append(f"{path} is gone; it was to be an artifact")

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        """Log the data sets that a run reads."""
        with self._forgiving("data sets"):
            if datasets:
                self.client.log_inputs(run_id, datasets)

    def log_trace(self, trace: Trace) -> bool:
        """Log a trace at once, and return whether it was taken: MLflow's exporter does it later, and hides failures."""
        from mlflow.tracing.client import TracingClient

        tracing, taken = TracingClient(self.client.tracking_uri), False
        with self._forgiving(f"trace {trace.info.trace_id}"):
            tracing.start_trace(trace.info)
            tracing.log_spans(self.experiment, trace.data.spans)
            taken = True
        return taken

    def end(self, run_id: str, status: str, at: float) -> None:
        """End a run at a Unix time as FINISHED, FAILED or KILLED; RUNNING lets it run again."""
        if status == "RUNNING":
            self.client.update_run(run_id, status)
        else:
            self.client.set_terminated(run_id, status, int(at * 1000))

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


def paged(fetch: Callable[[str | None], Any]) -> list[Any]:
    """All that a request returns page by page; it is given the token of the page."""
    found, token = list[Any](), None
    while True:
        page = fetch(token)
        found += page
        if not (token := page.token):
            return found


def artifact_folder(run: Run) -> Path:
    """The folder of the artifacts of a run whose experiment keeps them on this machine."""
    return Path(unquote(urlsplit(run.info.artifact_uri).path))


def reason(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters and without secrets."""
    lines = str(error).strip().splitlines()
    return without_secret(lines[0] if lines else type(error).__name__)[:300]
