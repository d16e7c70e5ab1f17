"""Copies runs, with all that belongs to them, from one MLflow store to another.

A copy is found by a tag with the id of its original, and takes whatever the original has by then. So copying that was
cut short is completed by the next attempt, and doing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.mlflow_store.runs import PARENT, Point, Store, artifact_folder, paged

if TYPE_CHECKING:
    from mlflow.entities import Run

ORIGINAL = "swirl.original"
"""The tag of a copy: the id of the run that it is a copy of."""
LOCAL = "swirl.local."
"""What the names of tags begin with that are not copied."""
COPIED = f"{LOCAL}copied"
"""The tag of a run that was copied: a hash of what it was like then."""


class Copies:
    """The runs of one store as copies in another; originals keep their artifacts on this machine until they are sent.

    Raises what MLflow raises when the other store cannot be reached.
    """

    def __init__(self, here: Store, there: Store) -> None:
        self._here, self._there = here, there
        self.ids: dict[str, str] = {}
        """The id of each run's copy, as far as they are known."""
        self._sent: set[tuple[str, Point]] = set()
        """Points that have arrived, so that a run which is still running does not send them again."""
        self._files: set[Path] = set()
        """The same of artifacts, which stay here until the whole run has arrived: there may be another server then."""

    def bring(self, parent: str) -> None:
        """Make the copies of a run and of those below it what the runs are now; one process at a time may do this.

        The run above it gets a copy, too, which is filled when it is brought itself.
        """
        top, below = self._here.client.get_run(parent), self._here.children(parent)
        above = self._here.find("attributes.run_id", top.data.tags.get(PARENT, ""))
        for run in ([above] if above else []) + [top, *below]:
            if run.info.run_id not in self.ids:
                self.ids[run.info.run_id] = self._found(run) or self._made(run)
        for run in (*below, top):
            if not is_copied(run):
                self._fill(run)

    def _found(self, run: Run) -> str:
        copy = self._there.find(f"tags.`{ORIGINAL}`", run.info.run_id)
        return str(copy.info.run_id) if copy else ""

    def _made(self, run: Run) -> str:
        if run.data.tags.pop(COPIED, ""):  # by a store that has lost it
            self._here.client.delete_tag(run.info.run_id, COPIED)
        above = self.ids.get(run.data.tags.get(PARENT, ""))
        tags = {ORIGINAL: run.info.run_id, **({PARENT: above} if above else {})}
        return self._there.create(run.info.run_name, run.info.start_time / 1000, tags)

    def _fill(self, run: Run) -> None:
        """Bring the copy of a run to the run's state, and note that; files that have arrived are given up here."""
        there, copy = self._there, self._there.client.get_run(self.ids[run.info.run_id])
        tags, copy_id = {name: self._translated(value) for name, value in _copied_tags(run).items()}, copy.info.run_id
        points = self._new_points(run)
        there.log(copy_id, params=run.data.params, points=points, tags=tags)
        self._sent |= {(run.info.run_id, point) for point in points}
        there.log_error(copy, tags.get("error", ""))
        there.log_inputs(copy_id, run.inputs.dataset_inputs if run.inputs else [])
        over, folder = run.info.status != "RUNNING", artifact_folder(run)
        whole = folder if over else folder / "checkpoints"  # which appear at once; others may be half written
        files = sorted(path for path in whole.rglob("*") if path.is_file())
        for path in files:
            if path not in self._files:
                place = path.parent.relative_to(folder)
                there.log_file(copy_id, path, "" if place == Path() else place.as_posix())
                self._files.add(path)
        if over:
            self._copy_traces(run)
        there.end(copy_id, run.info.status, (run.info.end_time or 0) / 1000)
        self._here.log(run.info.run_id, tags={COPIED: _state(run)})
        for path in files if over else ():
            path.unlink()

    def _new_points(self, run: Run) -> list[Point]:
        names, run_id = run.data.metrics, run.info.run_id
        history = [one for name in names for one in self._here.client.get_metric_history(run_id, name)]
        points = [(one.key, one.value, one.timestamp, one.step) for one in history]
        return [point for point in points if (run_id, point) not in self._sent]

    def _copy_traces(self, run: Run) -> None:
        from mlflow.entities import TraceLocation
        from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

        where: list[Any] = [self._here.experiment]
        for trace in paged(
            lambda token: self._here.client.search_traces(locations=where, run_id=run.info.run_id, page_token=token)
        ):
            info = trace.info
            info.trace_location = TraceLocation.from_experiment_id(self._there.experiment)
            info.trace_metadata[TraceMetadataKey.SOURCE_RUN] = self.ids[run.info.run_id]
            for name in [name for name in info.tags if name.startswith("mlflow.") and name != TraceTagKey.TRACE_NAME]:
                del info.tags[name]  # they say where the original is
            self._there.log_trace(trace)

    def _translated(self, text: str) -> str:
        """A text with the ids of copies in place of those of the originals."""
        for original, copy in self.ids.items():
            text = text.replace(original, copy)
        here, there = (f"#/experiments/{store.experiment}/" for store in (self._here, self._there))
        return text.replace(here, there)


def is_copied(run: Run) -> bool:
    """Whether a copy has all that the run has."""
    return run.data.tags.get(COPIED) == _state(run)


def _copied_tags(run: Run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if not name.startswith(LOCAL)}


def _state(run: Run) -> str:
    """A hash of what a run says; artifacts and traces are logged before it ends, which changes the hash."""
    said = [run.info.status, run.info.end_time, sorted(_copied_tags(run).items()), sorted(run.data.metrics.items())]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]
