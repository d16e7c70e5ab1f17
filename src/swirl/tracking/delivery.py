"""Brings recorded runs to their destination: copies them there, and registers the tuned model.

A run is recorded in a store on this machine, which is the destination itself unless that is a server, or keeps its
artifacts elsewhere. Then copies are made, while the stage runs and at its end; what does not arrive stays for
`swirl track sync`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.config.secrets import without_credentials
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store import stores
from swirl.mlflow_store.copying import Copies, is_copied
from swirl.mlflow_store.runs import PARENT, Store, reason
from swirl.mlflow_store.settings import Settings, read_params, read_settings
from swirl.tracking.recording import TO_REGISTER

if TYPE_CHECKING:
    from mlflow.entities import Run

SLOW = 5.0
"""Seconds that `finish` waits for a server that has never answered."""
PATIENCE = 300.0
"""Seconds that `finish` waits for one that has (copying models takes longest)."""
EVERY = 60.0
"""Seconds between two deliveries while a stage runs."""


class Delivery:
    """The way of one experiment's runs from the store in which they are recorded to their destination."""

    def __init__(self, layout: Layout, settings: Settings, here: Store | None = None) -> None:
        """`here` is the store of the records; by default the one that `recording_store` chooses."""
        self.here = here or stores.recording_store(layout, settings)
        self.direct = self.here.client.tracking_uri == stores.tracking_uri(layout)
        """Whether the runs are where they are to be."""
        self._layout, self._settings = layout, settings
        self._there = self.here if self.direct else None
        self._copies: Copies | None = None
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
                self.bring(parent)
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
        if self._there is not None:
            self._thread.join(PATIENCE)
        if failure := "it takes too long" if self._there and self._thread.is_alive() else self._failure:
            stores.warn(
                f"{what} is not recorded in MLflow: {failure}. It is kept; `swirl track sync` sends it when the server "
                "is there"
            )
        for refusal in self.refused():
            stores.warn(f"of {what} not everything is in MLflow: {refusal}")
        return self._target().page(self._id_there(parent)) if not failure else ""

    def refused(self) -> list[str]:
        """What can never be delivered, a sentence each."""
        return list(dict.fromkeys([*self.here.refused, *(self._there.refused if self._there else [])]))

    def waiting(self) -> dict[str, list[Run]]:
        """Runs of which something has not been delivered, by the id of the run above them (or their own).

        What began last comes first: a run is copied before the group that it belongs to.
        """
        found: dict[str, list[Run]] = {}
        for run in reversed(self.here.search()):
            if TO_REGISTER in run.data.tags or not (self.direct or is_copied(run)):
                found.setdefault(run.data.tags.get(PARENT, run.info.run_id), []).append(run)
        return found

    def bring(self, parent: str) -> None:
        """Copy a run and those below it, as far as they have changed since the last time, and register its model.

        Raises whatever MLflow raises when the destination cannot be reached, and `SwirlError` as `destination` does.
        """
        self.copy(parent)
        self.register(parent)

    def copy(self, parent: str) -> None:
        """The first half of `bring`."""
        if not self.direct:
            copies = self._copies = self._copies or Copies(self.here, self._target())
            with stores.locked(self._layout, "copying"):  # or two processes might make a copy each
                copies.bring(parent)

    def register(self, parent: str) -> None:
        """Register the tuned model if a run asks for it; raises whatever MLflow raises when it may succeed later."""
        if TO_REGISTER not in self.here.client.get_run(parent).data.tags:
            return
        with stores.locked(self._layout, "registering"):
            if wanted := self.here.client.get_run(parent).data.tags.get(TO_REGISTER):
                from swirl.registry.model_registry import promote_wanted

                target = self._target()
                if refusal := promote_wanted(target, self._layout, self._id_there(parent), wanted):
                    target.refused.append(refusal)
                self.here.client.delete_tag(parent, TO_REGISTER)

    def _target(self) -> Store:
        self._there = self._there or stores.destination(self._layout, self._settings)
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
            name = delivery.here.client.get_run(parent).info.run_name
            when = datetime.fromtimestamp(runs[-1].info.start_time / 1000).isoformat(" ", "seconds")
            told = f"{name} of {when}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}"
            if not dry_run:
                try:
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
