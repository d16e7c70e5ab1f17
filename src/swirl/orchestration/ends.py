"""What asks a program to end, beside Ctrl-C: SIGTERM, and SIGHUP when its terminal closes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_ENDS = (signal.SIGTERM, signal.SIGHUP)


def when_asked_to_end(act: Callable[[int], None]) -> None:
    """Call `act` with the signal's number, once: a second signal would break into the clean-up.

    A signal that is ignored already (as nohup ignores SIGHUP) stays ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for other in _ENDS:
            signal.signal(other, signal.SIG_IGN)
        act(number)

    for number in _ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
