"""Brings recorded runs to their destination: copies them there, and registers the tuned model.

A run is recorded in a store on this machine, which is the destination itself unless that is a server, or keeps its
artifacts elsewhere. Then copies are made, while the stage runs and at its end; what does not arrive stays for
`swirl track sync`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store.copying import Copies, is_copied
from swirl.mlflow_store.mlflow_runs import FOR_GOOD, PARENT, Runs
from swirl.mlflow_store.settings import Settings, read_params, read_settings
from swirl.mlflow_store.stores import (
    destination,
    experiments_waiting,
    locked,
    reason,
    recording_store,
    tracking_uri,
    waiting_room,
    warn,
)
from swirl.pipeline.dvc_file import dvc_hash
from swirl.tracking.recording import TO_REGISTER

if TYPE_CHECKING:
    from mlflow.entities import Run

SLOW = 5.0
"""Seconds that `finish` waits for a server that has not answered yet. It does not try one that took longer to fail."""
LOOK_EVERY = 5.0
"""Seconds between two looks for news to deliver while a stage runs."""
DELIVER_EVERY = 60.0
"""Seconds between two deliveries without such news, as long as they arrive."""


class Stopped(BaseException):
    """Raised when this process is asked to end. No `except Exception` on the way may catch it."""


class Delivery:
    """The way of one experiment's runs from the store in which they are recorded to their destination."""

    def __init__(self, layout: Layout, settings: Settings, runs: Runs | None = None) -> None:
        """`runs` are those recorded; by default in the store that `recording_store` chooses."""
        self.runs = runs or Runs(recording_store(layout, settings))
        self.direct = self.runs.client.tracking_uri == tracking_uri(layout)
        """Whether the runs are where they are to be."""
        self._layout, self._settings = layout, settings
        self._there: Runs | None = self.runs if self.direct else None
        self._copies: Copies | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._slow = False
        self._reason = ""

    def begin(self, parent: str, running: str, has_news: Callable[[], bool]) -> None:
        """Deliver now, when there is news and every so often, in a thread and until `finish`; see `attempt`."""
        if self.direct:
            return

        def deliver() -> None:
            arrived, last = self.attempt(parent, running), time.monotonic()
            while not self._over.wait(LOOK_EVERY):
                if has_news() or (arrived and time.monotonic() - last > DELIVER_EVERY):
                    arrived, last = self.attempt(parent, running), time.monotonic()

        self._thread = threading.Thread(target=deliver, daemon=True)
        self._thread.start()

    def attempt(self, parent: str, running: str = "") -> bool:
        """Deliver what is new of the run `parent` and those below it; return whether all has arrived.

        Of those that still run, only `running` is copied, since each is left to its own process.
        """
        started = time.monotonic()
        try:
            self.copy(parent, lambda run: run.info.status != "RUNNING" or run.info.run_id == running)
            self.register(parent)
        except Exception as error:
            self._reason, self._slow = reason(error), time.monotonic() - started > SLOW
            return False
        self._slow = False
        return True

    def finish(self, what: str, parent: str, send: bool = True) -> str:
        """Deliver the rest, and return the address of the run's page, if it has one; warn of what does not arrive.

        With `send` false, nothing is tried.
        """
        arrived = False
        try:
            arrived = send and self._has_ended() and not self._slow and self.attempt(parent)
        except Stopped:
            send = False
        if not arrived:
            why = self._reason if send else "it took too long"
            warn(
                f"{what} is not recorded in MLflow: {why}. It is kept; `swirl track sync` sends it when the server is "
                "there"
            )
        for refusal in self.refused():
            warn(f"of {what} not everything is in MLflow: {refusal}")
        return self._target().store.page(self._id_there(parent)) if arrived else ""

    def _has_ended(self) -> bool:
        """End what `begin` began, and return whether it has ended."""
        self._over.set()
        if self._thread is None:
            return True
        self._thread.join(None if self._there else SLOW)
        self._reason = self._reason or "the server does not answer"
        return not self._thread.is_alive()

    def refused(self) -> list[str]:
        """What can never be delivered, a sentence each."""
        return list(dict.fromkeys([*self.runs.refused, *(self._there.refused if self._there else [])]))

    def waiting(self) -> dict[str, list[Run]]:
        """Runs of which something has not been delivered, by the id of the run above them (or their own).

        What began last comes first: a run is copied before the group that it belongs to.
        """
        found: dict[str, list[Run]] = {}
        for run in reversed(self.runs.search()):
            if TO_REGISTER in run.data.tags or not (self.direct or is_copied(run)):
                found.setdefault(run.data.tags.get(PARENT, run.info.run_id), []).append(run)
        return found

    def copy(self, parent: str, wanted: Callable[[Run], bool] = lambda run: True) -> None:
        """Copy a run and the `wanted` ones of those below it, as far as they have changed since the last time.

        Raises whatever MLflow raises when the destination cannot be reached, and `SwirlError` as `destination` does.
        """
        if self.direct:
            return
        copies = self._copies = self._copies or Copies(self.runs, self._target())
        with locked(self._layout, "copying"):  # or two processes might make a copy each
            below = copies.make(parent)
        for run in below:
            if wanted(run) and not is_copied(run):
                copies.fill(run)
        with locked(self._layout, "copying"):  # or an older state of the run above might be written last
            if not is_copied(top := self.runs.client.get_run(parent)):
                copies.fill(top)

    def register(self, parent: str) -> None:
        """Register the tuned model if a run asks for it; raises whatever MLflow raises when it may succeed later.

        Nothing is registered when the run is delivered late and another one has trained another model since.
        """
        if TO_REGISTER not in self.runs.client.get_run(parent).data.tags:
            return
        from mlflow.exceptions import MlflowException

        from swirl.registry.model_registry import promote

        target, model = self._target(), self._layout.model("swirl")
        with locked(self._layout, "registering"):
            wanted = self.runs.client.get_run(parent).data.tags.get(TO_REGISTER)
            if wanted is None:  # another process has just done it
                return
            try:
                if model.is_dir() and dvc_hash(model) == wanted:
                    promote(target.store, self._layout, self._id_there(parent))
                else:
                    target.refused.append("models/swirl is of another run by now; it is not registered for this one")
            except (SwirlError, MlflowException) as error:
                if isinstance(error, MlflowException) and error.error_code not in FOR_GOOD:
                    raise
                target.refused.append(f"the tuned model is not registered: {reason(error)}")
            self.runs.client.delete_tag(parent, TO_REGISTER)

    def _target(self) -> Runs:
        self._there = self._there or Runs(destination(self._layout, self._settings))
        return self._there

    def _id_there(self, run_id: str) -> str:
        return self._copies.ids[run_id] if self._copies else run_id


def sync(layout: Layout, say: Callable[[str], None], dry_run: bool = False) -> int:
    """Deliver every run that waits, and return how many did (`dry_run`: do).

    Raises `SwirlError` when the destination cannot be reached: what has arrived is remembered, and the next call
    resumes there. A policy that cannot be registered waits on, and after all others are delivered a `SwirlError` names
    its run.
    """
    sent, stuck = 0, list[str]()
    for delivery in _deliveries(layout):
        for parent, runs in delivery.waiting().items():
            name = delivery.runs.client.get_run(parent).info.run_name
            when = datetime.fromtimestamp(runs[-1].info.start_time / 1000).isoformat(" ", "seconds")
            told = f"{name} of {when}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
            if not dry_run:
                try:
                    delivery.copy(parent)
                except SwirlError:
                    raise
                except Exception as error:
                    raise SwirlError(
                        f"cannot send {name} to {without_credentials(tracking_uri(layout))}: {reason(error)}. What has "
                        "arrived is remembered; start the server, or set MLFLOW_TRACKING_URI to another, and run "
                        "`swirl track sync` again"
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
    for one in experiments_waiting(layout):
        yield Delivery(layout, one, Runs(waiting_room(layout, one)))
    if Path(tracking_uri(layout).removeprefix("sqlite:///")).exists():
        own = Delivery(layout, read_settings(read_params(layout)))
        if own.direct:
            yield own
