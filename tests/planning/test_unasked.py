"""Settings of servers that no stage asks are said, and with which name they may have been meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.planning.unasked import lines

ROOT = Path(__file__).parents[2]
CLIENT = presets.tree(ROOT, "mini")["clients"]["default"]


def params(name: str, **changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_presets_have_no_such_settings(name: str) -> None:
    assert list(lines(params(name))) == []


def test_an_entry_for_no_server_is_said_with_the_one_that_was_meant() -> None:
    entries = ["http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1#google/gemma-2-9b", "http://127.0.0.1:9/v1"]
    said = list(lines(params("gemma-2-9b", clients={"default": CLIENT, **dict.fromkeys(entries, CLIENT)})))
    so = "so its entry counts for commands alone that are given this server, as `swirl evaluate`"
    assert said[0] == (
        f"clients: no stage asks {entries[1]}, {so}; did you mean http://127.0.0.1:8000/v1#google/gemma-2-9b-it?"
    )
    assert said[1].startswith(f"clients: no stage asks {entries[2]}, {so}")
    assert len(said) == 2


def test_a_server_of_a_model_that_is_not_evaluated_is_said() -> None:
    server = presets.tree(ROOT, "gemma-2-9b")["synthesize"]["server"]
    chosen = params("mini", train={"methods": ["swirl"]}, evaluate={"servers": {"sft": server, "swirl": server}})
    assert list(lines(chosen)) == [
        "evaluate.servers: sft is not evaluated, so its server is not asked; train.methods is [swirl]"
    ]


def test_options_of_a_tool_that_no_task_has_are_said() -> None:
    tools = {"options": {"mcp:files": {"command": ["files"]}, "units:Convertor": {"digits": 2}}}
    tasks = presets.tree(ROOT, "mini")["tasks"]
    tasks["calculate"]["tools"].append("units:Converter")
    assert list(lines(params("mini", tools=tools, tasks=tasks))) == [
        "tools.options: no task has the tool mcp:files, so its options are not read",
        "tools.options: no task has the tool units:Convertor, so its options are not read; did you mean "
        "units:Converter?",
    ]
