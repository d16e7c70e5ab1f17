"""Where training goes on after a kill: at its last look at the development questions, or at what it saved since."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.core.checkpoints import Checkpoints
from swirl.core.distributed import Processes
from swirl.core.records import from_dict, to_dict
from swirl.core.types import Draw
from swirl.models.masters import Masters

Series = list[dict[str, float]]

BETWEEN_S = 240.0
"""Seconds without a checkpoint after which one is saved, so that a kill costs less than five minutes."""
_SHARE = 0.05
"""Saving between looks takes at most this share of the time, however large the model."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a training run's checkpoints are."""

    looks: Checkpoints
    """At looks: the guard goes back to these alone."""
    between: Checkpoints

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> Places:
        """Open them in `folder` and a folder beside it; see `Checkpoints`."""
        beside = folder.with_name(f"{folder.name}-between")
        return cls(Checkpoints(folder, fingerprint), Checkpoints(beside, fingerprint))

    def finish(self) -> None:
        """Mark the run as finished; see `Checkpoints.finish`."""
        for one in (self.looks, self.between):
            one.finish()


class Resuming:
    """One run's weights, moments, metrics and draws, saved and restored; with several processes all call alike."""

    def __init__(self, places: Places, masters: Masters, optimizer: Any, processes: Processes) -> None:
        self._places, self._masters, self._optimizer, self._processes = places, masters, optimizer, processes
        self._saved, self._took = time.monotonic(), 0.0
        self._look = BETWEEN_S
        """Seconds that the last look took; before the first one they are not known."""
        self.looked_already = True
        """Whether the look that may follow what was restored is in it."""

    def resume(self) -> tuple[int, Series, list[Draw]]:
        """Restore the newest checkpoint that can be read: its step, 0 without one, the metrics so far and the draws."""
        places = [self._places.between, self._places.looks]  # of one step, the one that has its look
        newest = self._newest(places)
        if newest is None:
            return 0, [], []
        step, place = newest
        if self._processes.main:
            print(f"resuming after {step}")
        self.looked_already = places[place] is self._places.looks
        record = self._restore(places[place], step)
        return step, record["series"], [from_dict(Draw, row) for row in record["draws"]]

    def back(self) -> int | None:
        """Restore the weights of the newest look that can be read, and return its step; None without one."""
        newest = self._newest([self._places.looks])
        if newest is None:
            return None
        self._restore(self._places.looks, newest[0])
        self._processes.wait()  # the first one deletes the checkpoints, which all must have read by then
        return newest[0]

    def looked(self, step: int, series: Series, draws: Sequence[Draw] = ()) -> None:
        """Save a checkpoint to which the guard may go back."""
        self._save(self._places.looks, step, series, draws)

    def timed(self, look: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What a look measures, which takes some time that no checkpoint cuts short."""
        began = time.monotonic()
        measured = look()
        self._look = time.monotonic() - began
        return measured

    def worked(self, step: int, series: Series, draws: Sequence[Draw] = (), look: bool = False) -> None:
        """Save a checkpoint if the last one is long ago, or will be after the `look` that comes now."""
        since = time.monotonic() - self._saved + (self._look if look else 0.0)
        due = since > max(BETWEEN_S, self._took / _SHARE)
        if self._processes.from_main(due if self._processes.main else None):
            self._save(self._places.between, step, series, draws)

    def _newest(self, places: Sequence[Checkpoints]) -> tuple[int, int] | None:
        """(step, number of the place) of the newest checkpoint."""
        if not self._processes.main:
            return self._processes.from_main(None)
        found = [(step, place) for place, one in enumerate(places) if (step := one.newest()) is not None]
        return self._processes.from_main(max(found, default=None))

    def _restore(self, place: Checkpoints, step: int) -> dict[str, Any]:
        record = place.restore(step, self._masters.named, [self._optimizer])
        self._masters.publish()
        return record

    def _save(self, place: Checkpoints, step: int, series: Series, draws: Sequence[Draw]) -> None:
        """Save whole tensors, and wait until every process can read them."""
        began = time.monotonic()
        if self._processes.main:
            record = {"series": series, "draws": [to_dict(draw) for draw in draws]}
            place.save(step, self._masters.named, [self._optimizer], record)
        else:
            place.attend(self._masters.named, [self._optimizer])
        self._processes.wait()
        self._saved = time.monotonic()
        self._took = self._saved - began
