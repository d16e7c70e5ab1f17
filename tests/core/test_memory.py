"""Giving freed memory back, seen from outside: by what the system says the process holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swirl.pipeline.environment import ALLOCATOR

SCRIPT = """
import os
from swirl.core.memory import GivenBack, give_back
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
blocks = [bytearray(b"x" * 1_000_000) for _ in range(200)]
last = bytearray(b"x" * 1_000_000)  # behind them, so that the heap cannot simply shrink
del blocks
before = held()
{call}
print(before, held())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("give_back()", True),
        ("memory = GivenBack(); memory._last -= 6; memory.after_step()", True),
        ("memory = GivenBack(); memory.after_step()", False),
    ],
    ids=["at once", "after a while", "not after each step"],
)
def test_freed_memory_goes_back_to_the_system(call: str, given: bool) -> None:
    env = {**os.environ, **ALLOCATOR}
    script = SCRIPT.replace("{call}", call)
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 200e6
    assert (after < before - 150e6) is given
