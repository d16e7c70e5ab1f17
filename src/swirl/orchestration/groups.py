"""Commands that end as a whole: each runs with all that it starts in a process group of its own.

Killing DVC alone would leave its stage alive, and the next run would write to the same files. So a small process,
this file run as a script, leads the group and reads from a pipe that the flow holds. When the pipe ends, because the
flow was cancelled, crashed or was killed, it ends the group and what else descends from it.
"""

from __future__ import annotations

import contextlib
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
"""The module, as its command names it, that records a stage from a session of its own."""

_ENDING = threading.Lock()


class Groups:
    """The commands of one flow that are running."""

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
        """The started command, and its output line by line; a progress bar counts as its last state.

        The exit status is known when the context has ended; so is that no process of the group is left.
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
        """End every command, and each one that is still to start."""
        self._stopped.set()
        running = list(self._running)
        for process in running:
            _close(process)
        for process in running:
            process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Let the leader know that its group is to end."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def main(command: list[str]) -> int:
    """Lead the group: run a command until it ends or standard input does, then end what is left. Its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # goes to the whole group, and a handler is not inherited
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, daemon=True).start()
    status = process.wait()
    _end_all()
    return status if status >= 0 else 128 - status


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    _end_all()


def _end_all() -> None:
    """Ask all that was started to end, also what is in a session of its own; kill what does not in `GRACE` seconds."""
    with _ENDING:  # when the command ends because we ask it to, the main thread comes here, too, and waits
        away = _away(psutil.Process())
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + GRACE
            for process in _running(away):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            while _running(away) and time.monotonic() < deadline:
                time.sleep(0.05)


def _away(parent: psutil.Process) -> list[psutil.Process]:
    """What has descended from a process, but for the tracking of a stage: that still has to say how the stage ended.

    Its parents known, a process in a session of its own (an MCP server, a worker of torchrun) is found. When they
    have ended it is not, so this is asked before anything ends.
    """
    found = []
    for child in parent.children():
        with contextlib.suppress(psutil.Error):
            if TRACKING not in child.cmdline():
                found += [child, *_away(child)]
    return found


def _running(away: list[psutil.Process]) -> list[psutil.Process]:
    """Those of this group, but for this one, and of `away`; one that has ended and was not waited for does not run."""
    found = []
    for process in {*psutil.process_iter(), *away}:
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            ours = process in away or (process.pid != os.getpid() and os.getpgid(process.pid) == os.getpgrp())
            if ours and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
