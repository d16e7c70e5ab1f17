"""What a request over HTTP may have: a question, and no setting that would be ignored."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.types.responses import ResponsesAgentRequest

from swirl.core.errors import DataError
from swirl.serving.responses import _question


def asked(**settings: Any) -> str:
    return _question(ResponsesAgentRequest(input=[{"role": "user", "content": "Who?"}], **settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 1.0),
        ("top_p", 0.5),
        ("max_output_tokens", 5),
        ("tools", [{"type": "function", "name": "f", "parameters": {}}]),
        ("tool_choice", "none"),
        ("tool_choice", {"type": "function", "name": "search"}),
        ("reasoning", {"effort": "high"}),
        ("text", {"format": {"type": "json_object"}}),
        ("text", {"verbosity": "low"}),
    ],
)
def test_a_setting_that_would_not_be_obeyed_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"^{name} cannot be chosen: the agent answers greedily, in plain text and"):
        asked(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict.fromkeys(["temperature", "top_p", "max_output_tokens", "tools", "tool_choice", "reasoning", "text"]),
        {"temperature": 0.0, "top_p": 1.0, "tools": [], "tool_choice": "auto"},
        {"text": {}, "reasoning": {}},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}, "reasoning": {"effort": None}},
        {"stream": True, "store": False, "truncation": "disabled", "parallel_tool_calls": True, "user": "me"},
    ],
)
def test_what_clients_send_by_default_passes(settings: dict[str, Any]) -> None:
    assert asked(**settings) == "Who?"
