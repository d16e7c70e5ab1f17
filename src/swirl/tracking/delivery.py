"""Brings recorded runs to their destination: copies them there, and registers the tuned model.

A run is recorded in a store on this machine, which is the destination itself unless that is a server, or keeps its
artifacts elsewhere. Then copies are made, while the stage runs and at its end; what does not arrive stays for
`swirl track sync`.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store import stores
from swirl.mlflow_store.runs import LOCAL, PARENT, Point, Store, artifact_folder, paged, reason
from swirl.mlflow_store.settings import Settings, read_params, read_settings
from swirl.pipeline.progress import if_slow
from swirl.tracking.recording import TO_REGISTER

if TYPE_CHECKING:
    from mlflow.entities import Run

ORIGINAL = "swirl.original"
"""The tag of a copy: the id of the run that it is a copy of."""
COPIED = f"{LOCAL}copied"
"""The tag of a run that was copied: a hash of what it was like then."""
SLOW = 5.0
"""Seconds that `finish` waits for a server that has never answered."""
PATIENCE = 300.0
"""Seconds that `finish` waits for one that has (copying models takes longest)."""
EVERY = 60.0
"""Seconds between two deliveries while a stage runs."""


class Delivery:
    """The way of one experiment's runs from the store in which they are recorded to their destination.

    A copy is found by a tag with the id of its original, and takes whatever the original has by then. So copying that
    was cut short is completed by the next attempt, and doing it twice changes nothing.
    """

    def __init__(self, layout: Layout, settings: Settings, here: Store | None = None) -> None:
        """`here` is the store of the records; by default the one that `recording_store` chooses."""
        self.here = here or stores.recording_store(layout, settings)
        self.direct = self.here.client.tracking_uri == stores.tracking_uri(layout)
        """Whether the runs are where they are to be."""
        self.ids: dict[str, str] = {}
        """The id of each run's copy, as far as they are known."""
        self._sent = set[Path | tuple[str, Point]]()
        """Files, and points of runs, that have arrived: a run that goes on does not send them again."""
        self._layout, self._settings = layout, settings
        self._there = self.here if self.direct else None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._failure = "the server does not answer"

    def begin(self, parent: str) -> None:
        """Bring the run `parent` now, every so often, and a last time when `finish` is called, all in a thread."""
        self._thread = threading.Thread(target=self._work, args=[parent], daemon=True)
        self._thread.start()

    def _work(self, parent: str) -> None:
        last = False
        while not last:
            last = self._over.is_set()
            try:
                self.copy(parent)
                self.register(parent)
                self._failure = ""
            except Exception as error:
                self._failure = reason(error)
            self._over.wait(EVERY)

    def finish(self, what: str, parent: str) -> str:
        """Bring the rest, and return the address of the run's page, if it has one; warn of what does not arrive."""
        self._over.set()
        if self._thread is None:
            self.begin(parent)
        assert self._thread is not None
        self._thread.join(SLOW)
        if self._there is not None and self._thread.is_alive():
            there = without_credentials(stores.tracking_uri(self._layout))
            print(f"waiting for MLflow at {there} ...", file=sys.stderr, flush=True)
            self._thread.join(PATIENCE)
        if failure := "it takes too long" if self._there and self._thread.is_alive() else self._failure:
            stores.warn(
                f"{what} is not recorded in MLflow: {failure}. It is kept; `swirl track sync` sends it when the server "
                "is there"
            )
        for refusal in self.refused():
            stores.warn(f"of {what} not everything is in MLflow: {refusal}")
        return "" if failure else self._target().page(self.ids.get(parent, parent))

    def refused(self) -> list[str]:
        """What can never be delivered, a sentence each."""
        return list(dict.fromkeys([*self.here.refused, *(self._there.refused if self._there else [])]))

    def waiting(self) -> dict[str, list[Run]]:
        """Runs of which something has not been delivered, by the id of the run above them (or their own).

        One that asks for its tuned model to be registered is under its own. What began last comes first: a run is
        copied before the group that it belongs to.
        """
        found: dict[str, list[Run]] = {}
        for run in reversed(self.here.search()):
            if TO_REGISTER in run.data.tags or not (self.direct or _is_copied(run)):
                own = run.info.run_id
                above = own if TO_REGISTER in run.data.tags else run.data.tags.get(PARENT, own)
                found.setdefault(above, []).append(run)
        return found

    def copy(self, parent: str) -> None:
        """Make the copies of a run and of those below it, if the destination is elsewhere, what the runs are now.

        The run above it gets a copy, too, which is filled when it is copied itself. Raises whatever MLflow raises when
        the destination cannot be reached, and `SwirlError` as `destination` does.
        """
        if self.direct:
            return
        self._target()  # before the lock: whoever waits for it knows whether its server answers
        with stores.locked(self._layout, "copying"):  # or two processes might make a copy each
            top, below = self.here.client.get_run(parent), self.here.children(parent)
            above = self.here.find("attributes.run_id", top.data.tags.get(PARENT, ""))
            for run in ([above] if above else []) + [top, *below]:
                if run.info.run_id not in self.ids:
                    self.ids[run.info.run_id] = self._copy_of(run)
            for run in (*below, top):
                if not _is_copied(run):
                    self._fill(run)

    def register(self, parent: str) -> None:
        """Register the tuned model if a run asks for it; raises whatever MLflow raises when it may succeed later."""
        if TO_REGISTER not in self.here.client.get_run(parent).data.tags:
            return
        with stores.locked(self._layout, "registering"):
            if wanted := self.here.client.get_run(parent).data.tags.get(TO_REGISTER):
                from swirl.registry.model_registry import promote_wanted

                target = self._target()
                with if_slow("registering the tuned model in MLflow ..."):
                    refusal = promote_wanted(target, self._layout, self.ids.get(parent, parent), wanted)
                if refusal:
                    target.refused.append(refusal)
                self.here.client.delete_tag(parent, TO_REGISTER)

    def _target(self) -> Store:
        self._there = self._there or stores.destination(self._layout, self._settings)
        return self._there

    def _copy_of(self, run: Run) -> str:
        """The id of the copy of a run, which is made if need be."""
        there = self._target()
        if copy := there.find(f"tags.`{ORIGINAL}`", run.info.run_id):
            return str(copy.info.run_id)
        if run.data.tags.pop(COPIED, ""):  # by a store that has lost it
            self.here.client.delete_tag(run.info.run_id, COPIED)
        above = self.ids.get(run.data.tags.get(PARENT, ""))
        tags = {ORIGINAL: run.info.run_id, **({PARENT: above} if above else {})}
        return there.create(run.info.run_name, run.info.start_time / 1000, tags)

    def _fill(self, run: Run) -> None:
        """Bring the copy of a run to the run's state, and note that; files that have arrived are given up here."""
        there, original, folder = self._target(), run.info.run_id, artifact_folder(run)
        copy = there.client.get_run(self.ids[original])
        tags = {name: self._translated(value) for name, value in _copied_tags(run).items()}
        history = [one for name in run.data.metrics for one in self.here.client.get_metric_history(original, name)]
        points = [(one.key, one.value, one.timestamp, one.step) for one in history]
        points = [point for point in points if (original, point) not in self._sent]
        there.log(copy.info.run_id, params=run.data.params, points=points, tags=tags)
        self._sent |= {(original, point) for point in points}
        there.log_error(copy, tags.get("error", ""))
        there.log_inputs(copy.info.run_id, run.inputs.dataset_inputs if run.inputs else [])
        over = run.info.status != "RUNNING"
        whole = folder if over else folder / "checkpoints"  # which appear at once; others may be half written
        files = sorted(path for path in whole.rglob("*") if path.is_file())
        for path in files:
            if path not in self._sent:
                place = path.parent.relative_to(folder)
                there.log_file(copy.info.run_id, path, "" if place == Path() else place.as_posix())
                self._sent.add(path)
        if over:
            self._copy_traces(run)
        there.end(copy.info.run_id, run.info.status, (run.info.end_time or 0) / 1000)
        self.here.log(original, tags={COPIED: _state(run)})
        for path in files if over else ():  # not before: what has not arrived whole may go to another server
            path.unlink()

    def _copy_traces(self, run: Run) -> None:
        from mlflow.entities import TraceLocation
        from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

        where, there = [self.here.experiment], self._target()
        search: Any = self.here.client.search_traces
        for trace in paged(lambda token: search(locations=where, run_id=run.info.run_id, page_token=token)):
            info = trace.info
            info.trace_location = TraceLocation.from_experiment_id(there.experiment)
            info.trace_metadata[TraceMetadataKey.SOURCE_RUN] = self.ids[run.info.run_id]
            for name in [name for name in info.tags if name.startswith("mlflow.") and name != TraceTagKey.TRACE_NAME]:
                del info.tags[name]  # they say where the original is
            there.log_trace(trace)

    def _translated(self, text: str) -> str:
        """A text with the ids of copies in place of those of the originals."""
        for original, copy in self.ids.items():
            text = text.replace(original, copy)
        here, there = (f"#/experiments/{store.experiment}/" for store in (self.here, self._target()))
        return text.replace(here, there)


def _is_copied(run: Run) -> bool:
    """Whether a copy has all that the run has."""
    return run.data.tags.get(COPIED) == _state(run)


def _copied_tags(run: Run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if not name.startswith(LOCAL)}


def _state(run: Run) -> str:
    """A hash of what a run says; artifacts and traces are logged before it ends, which changes the hash."""
    said = [run.info.status, run.info.end_time, sorted(_copied_tags(run).items()), sorted(run.data.metrics.items())]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def sync(layout: Layout, say: Callable[[str], None], dry_run: bool = False) -> int:
    """Deliver every run that waits, and return how many did (`dry_run`: do).

    Raises `SwirlError` when the destination cannot be reached: what has arrived is remembered, and the next call
    resumes there. A policy that cannot be registered waits on, and after all others are delivered a `SwirlError` names
    its run.
    """
    sent, stuck = 0, list[str]()
    for delivery in _deliveries(layout):
        for parent, runs in delivery.waiting().items():
            name = delivery.here.client.get_run(parent).info.run_name
            when = datetime.fromtimestamp(runs[-1].info.start_time / 1000).isoformat(" ", "seconds")
            told = f"{name} of {when}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
            if not dry_run:
                try:
                    with if_slow(f"sending {told} ..."):
                        delivery.copy(parent)
                except SwirlError:
                    raise
                except Exception as error:
                    there = without_credentials(stores.tracking_uri(layout))
                    raise SwirlError(
                        f"cannot send {name} to {there}: {reason(error)}. What has arrived is remembered; start the "
                        "server, or set MLFLOW_TRACKING_URI to another, and run `swirl track sync` again"
                    ) from None
                try:
                    delivery.register(parent)
                except Exception as error:
                    stuck.append(f"{name} has arrived, but its policy cannot be registered: {reason(error)}")
                    continue
            sent += len(runs)
            say(f"{'would send' if dry_run else 'sent'} {told}")
        for refusal in delivery.refused():
            say(f"  not everything: {refusal}")
    if stuck:
        raise SwirlError("; ".join(stuck))
    return sent


def _deliveries(layout: Layout) -> Iterator[Delivery]:
    """What may have something to deliver: each experiment that waits, and the project's own store."""
    for one in stores.experiments_waiting(layout):
        yield Delivery(layout, one, stores.waiting_room(layout, one))
    if Path(stores.tracking_uri(layout).removeprefix("sqlite:///")).exists():
        own = Delivery(layout, read_settings(read_params(layout)))
        if own.direct:
            yield own
