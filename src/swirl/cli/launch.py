"""Starts several processes that run one `swirl` command together, by accelerate's launcher; names one that fails."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any


def command(processes: int, arguments: list[str]) -> list[str]:
    """The command line that runs `swirl` with these arguments in several processes of this machine."""
    return [sys.executable, "-m", "swirl.cli.launch", str(processes), *arguments]


def launch(processes: int, arguments: list[str]) -> int:
    """Run `swirl` with these arguments in several processes; returns the exit status, 0 if all have ended well.

    When one fails or is killed, the others are stopped, and a line names it.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--multi_gpu", "--num_processes", str(processes)]
    # Without these options accelerate warns; port 0 is any free one.
    options += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    try:
        launch_command(launch_command_parser().parse_args([*options, "-m", "swirl", *arguments]))
    except ChildFailedError as error:
        print(f"swirl: {told(error.failures, processes)}", file=sys.stderr, flush=True)
        return 1
    return 0


def told(failures: Mapping[int, Any], processes: int) -> str:
    """Which process failed, and how; `failures` are torch's, by rank.

    One that was killed takes the others' connections with it, so it is the cause where others failed as well; but the
    launcher itself ends the others by SIGTERM, so that one counts as any failure, after those of the same second.
    """

    def order(rank: int) -> tuple[bool, int, bool, int]:
        status = failures[rank].exitcode
        return status >= 0 or status == -signal.SIGTERM, failures[rank].timestamp, status < 0, rank

    rank = min(failures, key=order)
    first = failures[rank]
    killed = f"was killed by {first.signal_name()}" if first.exitcode < 0 else f"ended with status {first.exitcode}"
    return (
        f"the process of rank {rank}, of {processes} that run together, {killed}, so the others were stopped; started "
        "again, training goes on from its newest checkpoint, with this or another number of processes"
    )


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
