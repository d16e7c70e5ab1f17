"""Signals that ask a program to end, besides Ctrl-C: SIGTERM, and SIGHUP when its terminal closes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_ENDS = (signal.SIGTERM, signal.SIGHUP)


def when_asked_to_end(act: Callable[[int], None]) -> None:
    """Call `act` with the number of the first such signal, and ignore later ones, which would interrupt the clean-up.

    A signal that is already ignored (nohup ignores SIGHUP) stays ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for other in _ENDS:
            signal.signal(other, signal.SIG_IGN)
        act(number)

    for number in _ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
