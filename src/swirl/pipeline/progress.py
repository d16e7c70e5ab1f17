"""Progress of a long loop: a bar on a terminal, a plain line every ten seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Item = TypeVar("Item")

SHORT = 5.0
"""Seconds that a loop may take without a word, if it may be short."""

_shown: Bars | None = None
"""The bars on the terminal; a loop inside another one adds its own."""


class Progress:
    """Counts up to `total` under `label`, with the rate and the time left; use as a context manager, call `update`.

    total: number of units in all; 0 when it is not known.
    stream: where to write; standard error when None.
    interval: seconds between two lines in a log; 0 writes a line at every update.
    after: seconds that must have passed before anything is written.
    """

    def __init__(
        self, total: int, label: str, stream: TextIO | None = None, interval: float = 10.0, after: float = 0.0
    ) -> None:
        self.total = total
        self.label = label
        self.done = 0
        self._before = 0
        self._stream = stream if stream is not None else sys.stderr
        self._interval, self._after = interval, after
        self._metrics: dict[str, float] = {}
        self._task: TaskID | None = None
        self._bars: Bars | None = None
        """Those that this loop has started, and has to stop."""
        self._started = self._written = time.monotonic()
        self._said = -1

    def __enter__(self) -> Progress:
        self._started = self._written = time.monotonic()
        self._show()
        return self

    def already(self, n: int) -> None:
        """Count `n` units as done before, by an earlier run: they tell nothing of this one's rate."""
        self._before += n
        self.update(n)

    def update(self, n: int = 1, **metrics: float) -> None:
        """Count `n` more units as done, and show the latest `metrics` beside them."""
        self.done += n
        self._metrics.update(metrics)
        self._show()
        now = time.monotonic()
        if self._task is not None and _shown is not None:
            _shown.update(self._task, completed=self.done, rate=self._rate(), left=self._left(), said=self._words())
        elif not self._on_terminal() and now - self._written >= self._interval and now - self._started >= self._after:
            self._write_line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _shown
        if self._bars is not None:
            self._bars.stop()
            _shown = None
        elif self._task is not None and _shown is not None:
            _shown.remove_task(self._task)
        elif self._said != self.done and time.monotonic() - self._started >= self._after and not self._on_terminal():
            self._write_line()

    def _on_terminal(self) -> bool:
        return self._stream.isatty()

    def _show(self) -> None:
        """Put a bar on the terminal, if there is one and it is time."""
        global _shown
        if self._task is not None or not self._on_terminal() or time.monotonic() - self._started < self._after:
            return
        if _shown is None:
            _shown = self._bars = _bars(self._stream)
            _shown.start()
        self._task = _shown.add_task(self.label, total=self.total or None, rate="", left="", said="")

    def _write_line(self) -> None:
        seconds = time.monotonic() - self._started
        parts = [f"{self.label}: {self.done}"]
        if self.total:
            parts = [f"{self.label}: {self.done}/{self.total} ({100 * self.done // self.total}%)"]
        parts += [f"{seconds:.0f} s", self._rate(), self._left(), self._words()]
        print(", ".join(part for part in parts if part), file=self._stream, flush=True)
        self._written = time.monotonic()
        self._said = self.done

    def _rate(self) -> str:
        seconds, made = time.monotonic() - self._started, self.done - self._before
        if not made or seconds < 1:
            return ""
        return f"{made / seconds:.3g}/s" if made > seconds else f"{seconds / made:.3g} s each"

    def _left(self) -> str:
        """The time left at the rate of this run."""
        made = self.done - self._before
        if not made or self.done >= self.total:
            return ""
        left = (time.monotonic() - self._started) / made * (self.total - self.done)
        return f"about {left:.0f} s left" if left < 600 else f"about {left / 60:.0f} min left"

    def _words(self) -> str:
        return " ".join(f"{name}={value:.4g}" for name, value in self._metrics.items())


def counted(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items, under a `Progress` that says nothing in the first `SHORT` seconds."""
    with Progress(total, label, after=SHORT) as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def if_slow(words: str) -> Iterator[None]:
    """Say `words` on standard error if the block takes longer than `SHORT` seconds."""
    timer = threading.Timer(SHORT, lambda: print(words, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def megabytes(bar: Progress) -> Callable[[int], None]:
    """A function that counts bytes, for a bar whose unit is a megabyte."""
    rest = 0

    def count(size: int) -> None:
        nonlocal rest
        whole, rest = divmod(rest + size, 1_000_000)
        if whole:
            bar.update(whole)

    return count


def _bars(stream: TextIO) -> Bars:
    """Rich's bars, each with label, count, rate, time and the latest metrics."""
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TextColumn("{task.fields[left]}"),
        progress.TextColumn("{task.fields[said]}"),
        console=Console(file=stream),
    )
