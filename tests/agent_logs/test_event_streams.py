"""Streams of events as servers send them: told apart from text, and put together to a response."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swirl.agent_logs.event_streams import assembled, is_stream
from swirl.agent_logs.exchanges import LineFault, NoAction
from swirl.agent_logs.logs import Logs

Json = dict[str, Any]

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Oslo?"}]}

CHUNKS = """\
: OPENROUTER PROCESSING

data: {"id": "x", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "4 "}}]}

data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "degrees"}, "finish_reason": "stop"}]}

data: [DONE]
"""
BLOCKS = """\
event: message_start
data: {"type": "message_start", "message": {"id": "msg_1", "model": "m-1", "role": "assistant", "content": [], "stop_reason": null}}

event: content_block_start
data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "4 "}}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "degrees"}}

event: content_block_stop
data: {"type": "content_block_stop", "index": 0}

event: message_delta
data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}

event: message_stop
data: {"type": "message_stop"}
"""  # noqa: E501
ITEMS = """\
event: response.created
data: {"type": "response.created", "response": {"id": "r1", "status": "in_progress", "output": []}}

event: response.output_text.delta
data: {"type": "response.output_text.delta", "output_index": 0, "delta": "4 deg"}

event: response.completed
data: {"type": "response.completed", "response": {"id": "r1", "model": "m-1", "status": "completed", "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4 degrees"}]}]}}
"""  # noqa: E501


def read(path: Path, response: Any, request: Json = ASKED) -> tuple[list[tuple[str, str, int]], list[tuple[str, str]]]:
    """What is learnt from a line (text and model of the answer, how many actions), and what of it is left out."""
    path.write_text(json.dumps({"request": request, "response": response}) + "\n")
    logs = Logs([path])
    logs.read()
    found = [(one.messages[-1].text, one.messages[-1].model, len(one.actions)) for one in logs.conversations()]
    return found, [(one.unit, one.reason) for one in logs.summary.left_out]


@pytest.mark.parametrize("stream", [CHUNKS, BLOCKS, ITEMS], ids=["chunks", "blocks", "items"])
@pytest.mark.parametrize("form", ["text", "blank line before", "carriage returns", "list"])
def test_a_stream_is_the_response_that_it_streams(stream: str, form: str, tmp_path: Path) -> None:
    values = [json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: {")]
    shapes = {"text": stream, "blank line before": "\n " + stream, "carriage returns": stream.replace("\n", "\r\n")}
    found, left_out = read(tmp_path / "log.jsonl", shapes.get(form, values))
    assert found == [("4 degrees", "m-1", 1)] and left_out == []


def test_a_stream_in_a_span_of_mlflow(tmp_path: Path) -> None:
    attributes = {"mlflow.spanType": "CHAT_MODEL", "mlflow.spanInputs": ASKED, "mlflow.spanOutputs": BLOCKS}
    span = {"span_id": "a", "attributes": {key: json.dumps(value) for key, value in attributes.items()}}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"info": {}, "data": {"spans": [span]}}) + "\n")
    logs = Logs([path])
    logs.read()
    assert [one.messages[-1].text for one in logs.conversations()] == ["4 degrees"] and logs.summary.left_out == []


def test_a_call_and_a_thought_in_blocks() -> None:
    def delta(index: int, **given: str) -> Json:
        return {"type": "content_block_delta", "index": index, "delta": given}

    call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    events = [
        {"type": "message_start", "message": {"id": "msg_1", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        delta(0, type="thinking_delta", thinking="Look."),
        delta(0, type="signature_delta", signature="s"),
        {"type": "content_block_start", "index": 1, "content_block": call},
        delta(1, type="input_json_delta", partial_json=""),
        delta(1, type="input_json_delta", partial_json='{"city":'),
        delta(1, type="input_json_delta", partial_json=' "Oslo"}'),
        {"type": "content_block_start", "index": 2, "content_block": {**call, "id": "c2"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    assert assembled(events) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": '{"city": "Oslo"}'},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {}},
        ],
        "stop_reason": "tool_use",
    }


@pytest.mark.parametrize(
    "response",
    [
        "event: message_start\n" + BLOCKS.partition("\n\n")[2],  # its beginning is missing
        ITEMS.partition("event: response.completed")[0],
        "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\"}}\n\n",
        ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n",
        'event: message_start\ndata: {"type": "message_st',
        "<html><head><title>502 Bad Gateway</title></head></html>",
        '\n<?xml version="1.0"?>\n<!DOCTYPE html>\n<HTML></HTML>',
        ' {"error": {"message": "overloaded"}}',
    ],
)  # fmt: skip
def test_what_is_no_response_is_never_text(response: str, tmp_path: Path) -> None:
    assert read(tmp_path / "log.jsonl", response) == ([], [("line", LineFault.NO_RESPONSE)])


def test_a_message_that_broke_off_is_cut(tmp_path: Path) -> None:
    found, left_out = read(tmp_path / "log.jsonl", BLOCKS.partition("event: content_block_stop")[0])
    assert found == [] and left_out == [("step", NoAction.LENGTH)]


PART: Json = {"id": "x", "choices": [{"index": 0, "delta": {"content": "4 deg"}, "finish_reason": None}]}
USAGE: Json = {"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 9}}
STOP: Json = {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("more", "whole"),
    [
        ([], False),
        ([{"id": "x", "object": "chat.completion.chunk", "choices": []}], False),
        ([{"error": {"message": "overloaded"}}, "[DONE]"], False),
        ([{**STOP, "error": {"code": 502}}], False),
        ([USAGE], True),
        (["[DONE]"], True),
        ([STOP], True),
    ],
)
def test_chunks_without_an_end_are_cut(more: list[Any], whole: bool, tmp_path: Path) -> None:
    """The usage or `[DONE]` come after the end alone, so what said why it ended was then not logged."""
    text = "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in [PART, *more])
    expected: Any = ([("4 deg", "m", 1)], []) if whole else ([], [("step", NoAction.LENGTH)])
    assert read(tmp_path / "log.jsonl", text) == expected
    assert read(tmp_path / "log.jsonl", [PART, *more]) == expected


def test_a_chunk_without_an_index_goes_on_with_its_call() -> None:
    def part(**more: Any) -> Json:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [more]}}]}

    events = [
        part(id="c1", function={"name": "weather", "arguments": ""}),
        part(function={"arguments": '{"city":'}),
        part(function={"arguments": ' "Oslo"}'}),
        part(id="c2", function={"name": "time", "arguments": "{}"}),
        STOP,
    ]
    assert assembled(events)["choices"][0]["message"]["tool_calls"] == [
        {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"id": "c2", "function": {"name": "time", "arguments": "{}"}},
    ]


def test_json_after_a_blank_is_json(tmp_path: Path) -> None:
    response = ' {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}]}'
    assert read(tmp_path / "log.jsonl", response) == ([("4", "m", 1)], [])


@pytest.mark.parametrize(
    "text",
    ["data:\n  city: Oslo\n", "event: A party\nBring wine", ":) Of course", "Data: 4", "id: 4\nname: Oslo", "<b>4</b>"],
)
def test_text_that_looks_like_a_stream_or_a_page(text: str, tmp_path: Path) -> None:
    assert not is_stream(text)
    assert read(tmp_path / "log.jsonl", text) == ([(text, "m", 1)], [])
