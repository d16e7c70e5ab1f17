"""Blocks that are made on threads of this process: what Ctrl-C leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from swirl.core.journal import Journal
from swirl.core.types import Verdict

COMMAND = """
import signal
from pathlib import Path
import typer
from swirl.cli import main
from swirl.config.execution import Execution
from tests.scripted_blocks import Scripted, make

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this may ignore it
main.app = typer.Typer()

@main.app.command()
def work(here: Path) -> None:
    local = Execution(engine="local", address="local", workers=1, gpus_per_worker=0.0)
    make(Scripted(here, held=("1a", "2a"), at_once=2), local, here / "journal")

main.main()
"""


def test_ctrl_c_waits_for_no_block_and_keeps_those_that_are_made(tmp_path: Path, root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path)], cwd=root, start_new_session=True)
    made = tmp_path / "journal/mark/block-000000.parquet"
    deadline = time.monotonic() + 300
    try:
        while not (made.exists() and [*tmp_path.glob("1a.*")] and [*tmp_path.glob("2a.*")]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130  # a held block would go on for 300 seconds
    finally:
        process.kill()
        process.wait()
    assert [one.trajectory_id for one in Journal(tmp_path / "journal", "mark").records(0, Verdict)] == ["0a", "0b"]
