"""Where the runs of a project are kept in MLflow, and where they wait while that place cannot be reached."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.config.secrets import without_credentials
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store.runs import NOTE, Store, reason
from swirl.mlflow_store.settings import Settings
from swirl.pipeline.temporary import original

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

OWN_PAGES = "http://127.0.0.1:5000"
"""Where `make mlflow` serves the project's own runs."""
ABOUT = (
    "Runs of SWiRL's pipeline: step-wise reinforcement learning for multi-step tool use. A run at the top is one "
    "pipeline, named by the settings that it changed; it has the headline metrics and the report. Below it is a run "
    "for each stage that ran: `evaluate@base`, `@sft` and `@swirl`, side by side, are the paper's table. A trace is "
    "one trajectory."
)
"""The description of an experiment."""


def destination(layout: Layout, settings: Settings) -> Store:
    """The store of MLFLOW_TRACKING_URI, else the project's own, with the experiment that `settings` name.

    A new experiment has its artifacts in `tracking.artifacts`; where that is empty, in `mlartifacts` in the project
    root or, with a server, where the server says. Raises whatever MLflow raises when the store cannot be reached, and
    `SwirlError` when the experiment is deleted, when it has another place for its artifacts, or when what talks to that
    place is not installed.
    """
    uri = tracking_uri(layout)
    own = None if uri.startswith(("http", "databricks")) else (_lasting(layout) / "mlartifacts").as_uri()
    return _opened(layout, uri, settings.experiment, settings.artifacts, own)


def waiting_room(layout: Layout, settings: Settings) -> Store:
    """The store of runs that are to be copied to the destination; nothing outside this machine is asked for it."""
    artifacts = (shared_folder(layout) / "artifacts").as_uri()
    return _opened(layout, f"sqlite:///{_waiting(layout)}", settings.experiment, "", artifacts)


def experiments_waiting(layout: Layout) -> list[Settings]:
    """The experiments in the waiting room that have runs; MLflow makes one, `Default`, that usually has none."""
    if not _waiting(layout).exists():
        return []
    client = connect(f"sqlite:///{_waiting(layout)}")
    found = [one for one in client.search_experiments() if client.search_runs([one.experiment_id], max_results=1)]
    return [Settings(experiment=one.name) for one in found]


def recording_store(layout: Layout, settings: Settings) -> Store:
    """The store to record a run in: the destination, if all of it is on this machine and in order; else the waiting
    room."""
    if is_local(tracking_uri(layout)):
        with contextlib.suppress(Exception):  # said when the run cannot be copied there
            store = destination(layout, settings)
            if is_local(store.artifacts):
                return store
    return waiting_room(layout, settings)


def is_local(uri: str) -> bool:
    """Whether a store or artifacts are files on this machine."""
    return uri.startswith(("sqlite:", "file:")) or not ("://" in uri or uri.startswith("databricks"))


def tracking_uri(layout: Layout) -> str:
    """MLFLOW_TRACKING_URI, or `mlflow.db` in the project root; never in a temporary copy that DVC deletes."""
    root, given = _lasting(layout), os.environ.get("MLFLOW_TRACKING_URI")
    if given and root != layout.root.resolve():
        return resolved(given, root)
    return given or f"sqlite:///{root / 'mlflow.db'}"


def resolved(uri: str, root: Path) -> str:
    """The address of a store, where a relative file path is made absolute from `root`."""
    return re.sub("^(sqlite:///|file:)(?!/)", lambda scheme: f"{scheme[0]}{root}/", uri)


def connect(uri: str) -> MlflowClient:
    """A client of the store at `uri`."""
    return _client()(tracking_uri=uri)


def connected(uri: str, wanted: str) -> MlflowClient:
    """As `connect`. Raises `DataError`, which says what was `wanted`, where the store cannot be opened."""
    try:
        return connect(uri)
    except Exception as error:  # MLflow's own, SQLAlchemy's, or that of a driver that is missing
        raise DataError(f"{wanted} cannot be had from {without_credentials(uri)}: {reason(error)}") from error


def _client() -> type[MlflowClient]:
    """MLflow's client, so that it retries once when a server is down; by default seven times, over several minutes."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient


@contextlib.contextmanager
def everywhere(client: MlflowClient) -> Iterator[None]:
    """Make the parts of MLflow that take no client use this one's store, not a new one in the current folder."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = client.tracking_uri
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def shared_folder(layout: Layout) -> Path:
    """The folder of the waiting room and of locks; in a copy of a project that shares the folder, the project's."""
    folder = _resolved(layout.root)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _resolved(root: Path) -> Path:
    """Where the folder is, found once: a copy that is taken away while its recorder ends is not to be made again."""
    return (root / ".swirl/tracking").resolve()


@contextlib.contextmanager
def locked(layout: Layout, what: str) -> Iterator[None]:
    """Let one process of this project at a time do `what`; the kernel frees the lock of a process that dies."""
    with (shared_folder(layout) / f"{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pages(uri: str, layout: Layout) -> str:
    """The address of MLflow's pages about a store, without credentials: the server's, or what `make mlflow` serves."""
    if uri == f"sqlite:///{_lasting(layout) / 'mlflow.db'}":
        return OWN_PAGES
    return without_credentials(uri).replace("://***@", "://").rstrip("/") if uri.startswith("http") else ""


def warn(sentence: str) -> None:
    """Print a warning to standard error: what goes wrong with MLflow fails nothing."""
    print(f"warning: {sentence}. The pipeline's own files are complete.", file=sys.stderr, flush=True)


def _waiting(layout: Layout) -> Path:
    return shared_folder(layout) / "mlflow.db"


def _lasting(layout: Layout) -> Path:
    """The project root, also when `layout` is a temporary copy of the project."""
    return (original(layout) or layout).root.resolve()


def _opened(layout: Layout, uri: str, name: str, wanted: str, usual: str | None) -> Store:
    """The experiment `name` of the store at `uri`, which is made if need be.

    Its artifacts have to be at `wanted`, if that is not empty; those of a new one are else at `usual` (None: where the
    server says).
    """
    made = _client()  # imported before the lock is taken: that takes seconds
    with locked(layout, "opening") if is_local(uri) else contextlib.nullcontext():  # only one may make the file
        client = made(tracking_uri=uri)
        found = client.get_experiment_by_name(name)
        if found and found.lifecycle_stage == "deleted":
            raise SwirlError(
                f"MLflow's experiment {name!r} is deleted; restore it (mlflow experiments restore --experiment-id "
                f"{found.experiment_id}) or set tracking.experiment in params.yaml to another name"
            )
        place = found.artifact_location if found else wanted
        if wanted not in ("", place):
            raise SwirlError(
                f"MLflow's experiment {name!r} keeps its artifacts in {without_credentials(place)}, for good; set "
                f"tracking.experiment in params.yaml to another name for {wanted}, or tracking.artifacts to ''"
            )
        if place.startswith("s3://") and find_spec("boto3") is None:
            raise SwirlError(f"artifacts in {place} need the extra s3: pip install -c constraints.txt -e '.[s3]'")
        if found is None:
            found = client.get_experiment(client.create_experiment(name, wanted or usual, {NOTE: ABOUT}))
        elif NOTE not in found.tags:
            client.set_experiment_tag(found.experiment_id, NOTE, ABOUT)
    return Store(client, str(found.experiment_id), found.artifact_location, pages(uri, layout))
