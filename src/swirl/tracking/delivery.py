"""Sends a journal while it grows; what does not arrive stays for `swirl track sync`."""

from __future__ import annotations

import time
from typing import Any

from swirl.core.layout import Layout
from swirl.tracking import _reason, _warn
from swirl.tracking.mlflow_runs import Store
from swirl.tracking.operations import PARENT_RUN
from swirl.tracking.outbox import Journal
from swirl.tracking.promotion import promote_if_due

PAUSE = 30.0
"""Seconds after a failure during which `attempt` does nothing; `finish` tries all the same."""
SLOW = 5.0
"""Seconds. `finish` does not try a server that took longer than this to fail: the stage would wait for it."""


class Stopped(BaseException):
    """Raised when this process is asked to end; it then keeps what it has not sent.

    No `except Exception` on the way may catch it.
    """


class Delivery:
    """Sends one journal, in several attempts."""

    def __init__(self, layout: Layout, params: dict[str, Any], journal: Journal) -> None:
        self._layout, self._params, self._journal = layout, params, journal
        self._store: Store | None = None
        self._failed: float | None = None
        self._slow = False
        self._reason = ""

    def attempt(self) -> bool:
        """Send what the journal holds so far, and return whether all of it has arrived."""
        if self._failed is not None and time.monotonic() - self._failed < PAUSE:
            return False
        return self._try()

    def finish(self, what: str, send: bool = True) -> str:
        """Send the rest and delete the journal; if that fails, keep the journal, warn, and return why.

        With `send` false, keep it without another attempt.
        """
        arrived = False
        try:
            arrived = send and not self._slow and self._try()
        except Stopped:
            send = False
        if not send:
            self._reason = "it took too long"
        if arrived:
            self._journal.remove()
        else:
            self._journal.hold()
            self._journal.close()
            _warn(
                f"{what} is not recorded in MLflow: {self._reason}. It is kept; `swirl track sync` sends it when the "
                "server is there"
            )
        for refusal in self._journal.given_up:
            _warn(f"of {what} not everything is in MLflow: {refusal}")
        return "" if arrived else self._reason

    @property
    def page(self) -> str:
        """The address of the parent run's page; empty when it was not sent, or MLflow has no pages there."""
        run = self._journal.runs.get(PARENT_RUN, "")
        return self._store.page(run) if self._store and run else ""

    def _try(self) -> bool:
        started = time.monotonic()
        try:
            self._store = self._store or Store(self._layout, self._params)
            self._journal.send(self._store)
            promote_if_due(self._journal, self._store)
        except Exception as error:
            self._reason, self._failed = _reason(error), time.monotonic()
            self._slow = time.monotonic() - started > SLOW
            return False
        self._failed, self._slow = None, False
        return True
