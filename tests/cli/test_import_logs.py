"""`swirl import` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import families, tool_templates

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder without weights: importing needs its tokenizer alone."""
    folder = tmp_path / "model"
    families.smollm2().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two requests of one conversation, a line that is none, and an argument as an object."""
    asked: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    called = {"role": "assistant", "content": "", "tool_calls": [call]}
    rows = [
        {"request": {"messages": asked}, "response": {"choices": [{"message": called}]}},
        "nothing",
        {
            "request": {"messages": [*asked, called, {"role": "tool", "tool_call_id": "c", "content": "4"}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": "4 degrees"}}]},
        },
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_it_prints_what_was_found_changed_and_left_out(swirl: Run, model: Path, log: Path, tmp_path: Path) -> None:
    made = swirl("import", str(log), "--model", str(model), "--json", "--changes", "changes.jsonl")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {
        "conversations": 1,
        "groups": 1,
        "trajectories": 1,
        "steps": 2,
        "near_duplicates": 0,
        "cuts": 0,
        "changed": {
            "arguments given as an object: written as JSON text": 1,
            "tools not logged: known by their calls alone": 1,
        },
        "left_out": [
            {"file": str(log), "line": 2, "turn": 0, "unit": "line", "reason": "no format that is known"},
        ],
    }
    assert [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()] == [
        {"file": str(log), "line": 1, "turn": 2, "change": "arguments given as an object: written as JSON text"},
        {"file": str(log), "line": 3, "turn": 4, "change": "tools not logged: known by their calls alone"},
    ]


@pytest.mark.slow
def test_it_says_so_in_words_and_takes_tools_and_models(swirl: Run, model: Path, log: Path, tmp_path: Path) -> None:
    tools = [{"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    made = swirl("import", str(log), "--model", str(model), "--tools", "tools.json", "--by", "gpt")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [
        "1 conversation, 0 trajectories with 0 steps in 0 groups; 0 near-duplicates",
        f"left out          2 steps: written by another model than asked for (first: {log}, line 1, turn 2)",
        f"left out           1 line: no format that is known (first: {log}, line 2)",
    ]


@pytest.mark.slow
def test_it_renders_in_the_model_s_own_format_and_counts_what_its_template_cuts(
    swirl: Run, model: Path, log: Path, tmp_path: Path
) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "4", "reasoning_content": "Four."},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes"},
        ]
    }
    (tmp_path / "thoughts.jsonl").write_text(json.dumps(row) + "\n")
    tool_templates.tokenizer(tool_templates.THINKING).save_pretrained(model)
    native = ("import", "thoughts.jsonl", str(log), "--model", str(model), "--format", "native")
    made = swirl(*native, "--thinking", "strip")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[:2] == [
        "2 conversations, 2 trajectories with 4 steps in 2 groups; 0 near-duplicates",
        "cut             2         states before which the chat template rewrites the past",
    ]
    assert "note: the chat template drops thoughts from past turns: states are as it writes them" in made.stderr


@pytest.mark.slow
def test_a_template_without_tools_is_refused_with_the_way_out(swirl: Run, model: Path, log: Path) -> None:
    made = swirl("import", str(log), "--model", str(model), "--format", "native")
    assert made.returncode == 1
    assert "the chat template leaves out the name of tools: use actions.format: tags" in made.stderr


@pytest.mark.slow
def test_what_is_missing_is_named(swirl: Run, model: Path, log: Path) -> None:
    made = swirl("import", "absent.jsonl", "--model", str(model))
    assert made.returncode == 1 and "swirl: absent.jsonl cannot be read: No such file" in made.stderr
    made = swirl("import", str(log), "--model", "absent")
    assert made.returncode == 1 and "absent holds no model" in made.stderr


@pytest.mark.slow
def test_the_changes_are_not_written_over_the_log(swirl: Run, model: Path, log: Path) -> None:
    before = log.read_bytes()
    made = swirl("import", str(log), "--model", str(model), "--changes", str(log))
    assert made.returncode == 1 and "is one of the files that are read, and would be overwritten" in made.stderr
    assert log.read_bytes() == before
