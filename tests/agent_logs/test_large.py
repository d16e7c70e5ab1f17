"""A large log is read with little memory: hashes and offsets are kept, texts are not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from swirl.agent_logs.logs import Logs

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
logs = Logs([Path(sys.argv[1])])
logs.read()
for conversation in logs.conversations():
    pass
found = logs.summary
peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([found.conversations, found.trajectories, found.steps, len(found.left_out), peak,
                  time.process_time() - started]))
"""
TURNS = 10
SIZE = 100_000_000


def requests(path: Path, size: int) -> tuple[int, int]:
    """Writes requests of support conversations, each with its whole history; how many conversations and requests."""
    draw = random.Random(0)
    words = [f"{draw.choice('bdfgklmnprst')}{draw.choice('aeiou')}{n}" for n in range(2000)]

    def text(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    schema = {"type": "object", "properties": {"query": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "search", "description": text(20), "parameters": schema}}]
    written, conversations, lines = 0, 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            history: list[Any] = [{"role": "system", "content": text(200)}, {"role": "user", "content": text(60)}]
            for turn in range(TURNS):
                call = {"id": "c", "function": {"name": "search", "arguments": json.dumps({"query": text(10)})}}
                answer: dict[str, Any] = {"role": "assistant", "content": text(40)}
                if turn + 1 < TURNS:
                    answer["tool_calls"] = [call]
                row = {"request": {"messages": history, "tools": tools}, "response": {"choices": [{"message": answer}]}}
                written += file.write(json.dumps(row) + "\n")
                lines += 1
                history += [answer, {"role": "tool", "tool_call_id": "c", "content": text(300)}]
            conversations += 1
    return conversations, lines


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_the_texts(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    conversations, lines = requests(path, SIZE)
    out = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    found, trajectories, steps, left_out, peak, seconds = json.loads(out.stdout)
    assert (found, trajectories, steps, left_out) == (conversations, conversations, lines, 0)
    assert peak < 40_000_000 < SIZE / 2, f"{peak:,} bytes for a log of {SIZE:,}, in {seconds:.0f} s"
