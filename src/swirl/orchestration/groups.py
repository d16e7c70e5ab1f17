"""Commands that end together with all the processes they start: each has a process group of its own.

Killing DVC alone would leave its stage alive, and the next run would write to the same files. So a small process,
this file run as a script, leads the group and reads from a pipe that the flow keeps open. When the pipe closes, because
the flow was cancelled, crashed or was killed, that process ends the group and its other descendants. When the command
ends by itself, it ends what is left of them, too: a daemon might hold the output, and the flow would wait for its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

GRACE = 10.0
"""Seconds between asking a group to end and killing it; Prefect's worker gives a flow 30."""
TRACKING = "swirl.tracking.worker"
"""The module that records a stage, in a session of its own; its command line contains this name."""

_SUBREAPER = 36
"""What Linux's prctl calls PR_SET_CHILD_SUBREAPER."""
_ENDING = threading.Lock()


class Groups:
    """The running commands of one flow."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    @contextlib.contextmanager
    def lines(
        self, command: list[str], folder: Path, env: dict[str, str]
    ) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[str]]]:
        """Start a command, and yield it and the lines of its output; of a progress bar only the last state.

        After the context has ended, the exit status is known and no process of the group is left.
        """
        process = subprocess.Popen(
            [sys.executable, __file__, *command],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running.add(process)
        if self.stopped:
            _close(process)
        try:
            assert process.stdout is not None
            text = io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="\n")
            yield process, (line.rstrip().split("\r")[-1] for line in text)
        except BaseException:
            _close(process)
            raise
        finally:
            process.wait()
            self._running.discard(process)

    def stop(self) -> None:
        """End every running command, and each one that starts later."""
        self._stopped.set()
        running = list(self._running)
        for process in running:
            _close(process)
        for process in running:
            process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the leader's standard input, so that it ends its group."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def main(command: list[str]) -> int:
    """Lead the group: run a command until it or standard input ends, end what is left, return the exit status."""
    # SIGTERM goes to the whole group, and the leader has to survive it. Children do not inherit a handler.
    signal.signal(signal.SIGTERM, lambda *_: None)
    _adopt_orphans()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, daemon=True).start()
    status = process.wait()
    _end_all()
    return status if status >= 0 else 128 - status


def _adopt_orphans() -> None:
    """Become the parent of each descendant whose own has ended, such as a daemon; only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    _end_all()


def _end_all() -> None:
    """Ask all started processes to end, also in other sessions; kill those that still run after `GRACE` seconds."""
    with _ENDING:  # the command ends when asked to, and the main thread then gets here, too, and waits
        away = _away(psutil.Process())
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + GRACE
            for process in _running(away):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            while _running(away) and time.monotonic() < deadline:
                time.sleep(0.05)


def _away(parent: psutil.Process) -> list[psutil.Process]:
    """All descendants of a process except a stage's tracking worker, which still has to record how the stage ended.

    A process in a session of its own (an MCP server, a worker of torchrun) is found through its parents only: those it
    has now, or this process, which is given it when they end.
    """
    found = []
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if TRACKING not in child.cmdline():
                found += [child, *_away(child)]
    return found


def _running(away: list[psutil.Process]) -> list[psutil.Process]:
    """The running processes of this group and of `away`, without this process and without zombies."""
    found = []
    for process in {*psutil.process_iter(), *away}:
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            ours = process in away or (process.pid != os.getpid() and os.getpgid(process.pid) == os.getpgrp())
            if ours and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
