"""Which of the libraries' own bars a person sees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

NAME = "HF_HUB_DISABLE_PROGRESS_BARS"
PROGRAM = """
from swirl.pipeline.environment import set_up_process
set_up_process(1)
from huggingface_hub.utils import are_progress_bars_disabled as hidden
from transformers.utils.logging import is_progress_bar_enabled
bars = ("huggingface_hub.http_get", "huggingface_hub.snapshot_download.transfer")
print([not hidden(name) for name in bars], is_progress_bar_enabled())
"""


@pytest.mark.parametrize(
    ("terminal", "given", "shown"),
    [
        (True, {}, "[True, True] False"),
        (False, {}, "[False, False] False"),
        (True, {NAME: "1"}, "[False, False] False"),
        (True, {NAME: "0"}, "[True, True] True"),
    ],
)
def test_downloads_are_shown_on_a_terminal_and_the_loading_of_models_nowhere(
    terminal: bool, given: dict[str, str], shown: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (NAME, "SWIRL_RESTARTED")} | given
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=slave if terminal else subprocess.DEVNULL,
            text=True,
            check=True,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout == f"{shown}\n"
