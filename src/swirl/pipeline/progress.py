"""Progress of a long loop: a bar on a terminal, a plain line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """Counts up to `total` under `label`; use as a context manager and call `update`.

    total: number of units in all; 0 when it is not known.
    stream: where to write; standard error when None.
    interval: seconds between two lines in a log; 0 writes a line at every update.
    """

    def __init__(self, total: int, label: str, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._metrics: dict[str, float] = {}
        self._bar: Bar | None = None
        self._started = self._written = time.monotonic()
        self._said = -1

    def __enter__(self) -> Progress:
        self._started = self._written = time.monotonic()
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._bar.start()
            self._bar.add_task(self.label, total=self.total or None, metrics="")
        return self

    def update(self, n: int = 1, **metrics: float) -> None:
        """Count `n` more units as done, and show the latest `metrics` beside them."""
        self.done += n
        self._metrics.update(metrics)
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self.done, metrics=self._shown_metrics())
        elif time.monotonic() - self._written >= self._interval:
            self._write_line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._said != self.done:
            self._write_line()

    def _write_line(self) -> None:
        seconds = time.monotonic() - self._started
        parts = [f"{self.label}: {self.done}"]
        if self.total:
            parts = [f"{self.label}: {self.done}/{self.total} ({100 * self.done // self.total}%)"]
        parts.append(f"{seconds:.0f} s")
        if 0 < self.done < self.total:
            parts.append(f"about {seconds / self.done * (self.total - self.done):.0f} s left")
        if self._metrics:
            parts.append(self._shown_metrics())
        print(", ".join(parts), file=self._stream, flush=True)
        self._written = time.monotonic()
        self._said = self.done

    def _shown_metrics(self) -> str:
        return " ".join(f"{name}={value:.4g}" for name, value in self._metrics.items())


def _bar(stream: TextIO) -> Bar:
    """A rich bar that shows label, count, time left and the latest metrics."""
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[metrics]}"),
        console=Console(file=stream),
    )
