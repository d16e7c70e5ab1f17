"""Copies runs, with all that belongs to them, from one MLflow store to another.

A copy is found by a tag with the id of its original, and takes whatever the original has by then. So copying that was
cut short is completed by the next attempt, and doing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from swirl.mlflow_store.mlflow_runs import PARENT, Runs

if TYPE_CHECKING:
    from mlflow.entities import Run

ORIGINAL = "swirl.original"
"""The tag of a copy: the id of the run that it is a copy of."""
LOCAL = "swirl.local."
"""What the names of tags begin with that are not copied."""
COPIED = f"{LOCAL}copied"
"""The tag of a run that was copied: a hash of what it was like then."""
MADE_IN = "swirl.made_in"
"""The tag of a run whose traces belong to another run, too: that one's id."""


class Copies:
    """The runs of one store as copies in another; originals keep their artifacts on this machine.

    Every method raises what MLflow raises when the other store cannot be reached.
    """

    def __init__(self, here: Runs, there: Runs) -> None:
        self._here, self._there = here, there
        self.ids: dict[str, str] = {}
        """The id of each run's copy, as far as they are known."""
        self._sent: set[Any] = set()
        """Points and files that have arrived, so that a run which is still running does not send them again."""

    def make(self, parent: str) -> list[Run]:
        """Find or create the copies of a run, of one above it, and of those below it, which are returned.

        Only one process at a time may do this.
        """
        top = self._here.client.get_run(parent)
        if above := self._here.get(top.data.tags.get(PARENT, "")):
            self._find_or_create(above)
        self._find_or_create(top)
        for copy in self._there.children(self.ids[parent]):
            self.ids[copy.data.tags.get(ORIGINAL, "")] = copy.info.run_id
        below = self._here.children(parent)
        for run in below:
            if run.info.run_id not in self.ids:
                self._create(run)
        return below

    def fill(self, run: Run) -> None:
        """Bring the copy of a run to the run's state, and note that; one that has ended then gives up its artifacts."""
        there, copy_id, over = self._there, self.ids[run.info.run_id], run.info.status != "RUNNING"
        copy = there.client.get_run(copy_id)
        params = {name: value for name, value in run.data.params.items() if name not in copy.data.params}
        tags = {name: self._translated(value) for name, value in _copied_tags(run).items()}
        there.log(copy_id, params, self._new_points(run), tags)
        if "error" in copy.data.tags.keys() - tags:
            there.client.delete_tag(copy_id, "error")
        there.log_inputs(copy_id, run.inputs.dataset_inputs if run.inputs else [])
        folder = artifact_folder(run)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files:
            if path not in self._sent and path.exists():  # else another process has just copied the same run
                place = path.parent.relative_to(folder)
                there.log_file(copy_id, path, "" if place == Path() else place.as_posix())
                self._sent.add(path)
        if over:
            self._copy_traces(run)
            there.client.set_terminated(copy_id, run.info.status, run.info.end_time)
        elif copy.info.status != "RUNNING":
            there.resume(copy_id)
        self._here.log(run.info.run_id, tags={COPIED: _state(run)})
        for path in files if over else ():
            path.unlink(missing_ok=True)

    def _find_or_create(self, run: Run) -> None:
        if run.info.run_id in self.ids:
            return
        if found := self._there.find(ORIGINAL, run.info.run_id):
            self.ids[run.info.run_id] = found.info.run_id
        else:
            self._create(run)

    def _create(self, run: Run) -> None:
        tags = {name: self._translated(run.data.tags[name]) for name in run.data.tags.keys() & {PARENT}}
        tags[ORIGINAL] = run.info.run_id
        self.ids[run.info.run_id] = self._there.create(run.info.run_name, run.info.start_time / 1000, tags)
        if run.data.tags.pop(COPIED, ""):  # by a store that has lost it
            self._here.client.delete_tag(run.info.run_id, COPIED)

    def _new_points(self, run: Run) -> list[tuple[str, float, int, int]]:
        names, run_id = run.data.metrics, run.info.run_id
        history = [point for name in names for point in self._here.client.get_metric_history(run_id, name)]
        points = [(point.key, point.value, point.timestamp, point.step) for point in history]
        new = [point for point in points if (run_id, *point) not in self._sent]
        self._sent |= {(run_id, *point) for point in new}
        return new

    def _copy_traces(self, run: Run) -> None:
        from mlflow.entities import TraceLocation
        from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

        made_in, token, more = self.ids.get(run.data.tags.get(MADE_IN, ""), ""), None, True
        while more:
            where: list[Any] = [self._here.store.experiment]
            page = self._here.client.search_traces(locations=where, run_id=run.info.run_id, page_token=token)
            for trace in page:
                info = trace.info
                if info.trace_metadata[TraceMetadataKey.SOURCE_RUN] == run.info.run_id:  # else it goes with its own run
                    info.trace_location = TraceLocation.from_experiment_id(self._there.store.experiment)
                    info.trace_metadata[TraceMetadataKey.SOURCE_RUN] = self.ids[run.info.run_id]
                    for name in [name for name in info.tags if name.startswith("mlflow.")]:
                        if name != TraceTagKey.TRACE_NAME:  # the others say where the original is
                            del info.tags[name]
                    self._there.log_trace(info, trace.data.spans, made_in)
            token = page.token
            more = bool(token)

    def _translated(self, text: str) -> str:
        """A text with the ids of copies in place of those of the originals."""
        for original, copy in self.ids.items():
            text = text.replace(original, copy) if original else text
        here, there = (f"#/experiments/{runs.store.experiment}/" for runs in (self._here, self._there))
        return text.replace(here, there)


def is_copied(run: Run) -> bool:
    """Whether a copy has all that the run has."""
    return run.data.tags.get(COPIED) == _state(run)


def artifact_folder(run: Run) -> Path:
    """The folder of the artifacts of a run whose experiment keeps them on this machine."""
    return Path(unquote(urlsplit(run.info.artifact_uri).path))


def _copied_tags(run: Run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if not name.startswith(LOCAL)}


def _state(run: Run) -> str:
    """A hash of what a run says; artifacts and traces are logged before it ends, which changes the hash."""
    said = [run.info.status, run.info.end_time, sorted(_copied_tags(run).items()), sorted(run.data.metrics.items())]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]
