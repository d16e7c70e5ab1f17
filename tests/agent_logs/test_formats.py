"""Every format and shape that is read, from literal values."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swirl.agent_logs import lines
from swirl.agent_logs.conversation import LoggedConversation, Message, Role
from swirl.agent_logs.exchanges import Change, Exchange, LineFault, Turn
from swirl.agent_logs.log_shapes import read_tools
from swirl.agent_logs.logs import Logs, Summary
from swirl.agent_logs.outcomes import _parting
from swirl.agent_logs.request_tree import RequestTree, Source
from swirl.core.errors import DataError

Json = dict[str, Any]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
ASKED: list[Json] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Oslo?"}]
CALLED: Json = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SEEN: Json = {"role": "tool", "tool_call_id": "c1", "content": "4"}
ANSWER: Json = {"role": "assistant", "content": "4 degrees"}

EXPECTED = [("system", "Be brief."), ("user", "Oslo?"), ("assistant", ""), ("tool", "4"), ("assistant", "4 degrees")]
"""What every format below says."""


def read(path: Path, *lines: Any) -> tuple[list[LoggedConversation], Summary]:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    logs = Logs([path])
    logs.read()
    return list(logs.conversations()), logs.summary


def check(found: list[LoggedConversation], summary: Summary) -> None:
    """The one conversation with its two steps, whatever it was read from."""
    assert summary.left_out == []
    (one,) = found
    assert [(message.role.value, message.text) for message in one.messages] == EXPECTED
    assert [(call.name, call.value) for call in one.messages[2].calls] == [("weather", {"city": "Oslo"})]
    assert one.actions == (2, 4) and one.question == "Oslo?"
    assert [(tool.name, tool.description, json.loads(tool.parameters)) for tool in one.tools] == [
        ("weather", "Weather.", SCHEMA)
    ]


def reply(message: Json, **more: Any) -> Json:
    return {
        "id": "x",
        "object": "chat.completion",
        "model": "m-1",
        "choices": [{"index": 0, "message": message}],
        **more,
    }


ENVELOPES = {
    "request and response": lambda asked, answer: {"request": asked, "response": answer},
    "bodies": lambda asked, answer: {"req": {"method": "POST", "body": asked}, "resp": {"status": 200, "body": answer}},
    "flat": lambda asked, answer: {**asked, "response": answer, "startTime": 1.5},
    "JSON inside": lambda asked, answer: {"input": json.dumps(asked), "output": json.dumps(answer)},
    "message alone": lambda asked, answer: {"request": asked, "response": answer["choices"][0]["message"]},
    "kwargs": lambda asked, answer: {"kwargs": asked, "result": answer, "metadata": {"user": "u"}},
}


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_chat_completions_a_request_a_line(tmp_path: Path, envelope: str) -> None:
    def line(history: list[Json], answer: Json, id: str) -> Json:
        made: Json = ENVELOPES[envelope]({"messages": history, "tools": [TOOL]}, {**reply(answer), "id": id})
        return made

    found, summary = read(
        tmp_path / "log.jsonl",
        line(ASKED, CALLED, "r1"),
        line([*ASKED, {**CALLED, "content": "", "refusal": None}, SEEN], ANSWER, "r2"),
    )
    check(found, summary)
    assert found[0].messages[2].calls[0].arguments == '{"city": "Oslo"}'


def test_chat_completions_a_conversation_a_line(tmp_path: Path) -> None:
    whole = {"messages": [*ASKED, CALLED, SEEN, ANSWER], "tools": [TOOL], "answer": "4"}
    found, summary = read(tmp_path / "log.jsonl", whole)
    check(found, summary)
    assert found[0].answers == ("4",) and summary.changed == {Change.NULL: 1}


def test_a_conversation_that_is_the_beginning_of_another_is_read_once(tmp_path: Path) -> None:
    whole = [*ASKED, CALLED, SEEN, ANSWER]
    found, summary = read(
        tmp_path / "log.jsonl", {"messages": whole[:3], "tools": [TOOL]}, {"messages": whole, "tools": [TOOL]}
    )
    check(found, summary)
    assert summary.changed == {Change.NULL: 1, Change.AGAIN: 1}


def test_streamed_chunks_and_events(tmp_path: Path) -> None:
    def chunk(delta: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "s", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}

    def part(text: str, **more: Any) -> Json:
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}, **more}]}

    first = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}
    chunks = [
        chunk({"role": "assistant", "tool_calls": [first]}),
        chunk(part('{"city":')),
        chunk(part(' "Oslo"}'), "tool_calls"),
    ]
    events = "".join(
        f"data: {json.dumps(one)}\n\n" for one in (chunk({"content": "4 "}), chunk({"content": "degrees"}, "stop"))
    )
    found, summary = read(
        tmp_path / "log.jsonl",
        {"request": {"messages": ASKED, "tools": [TOOL]}, "response": chunks},
        {"request": {"messages": [*ASKED, CALLED, SEEN], "tools": [TOOL]}, "response": events + "data: [DONE]\n\n"},
    )
    check(found, summary)
    assert [message.model for message in found[0].messages] == ["", "", "m-1", "", "m-1"]


def items(*output: Json, id: str = "r") -> Json:
    return {"id": id, "model": "m-1", "output": list(output), "status": "completed"}


FLAT = {"type": "function", "name": "weather", "description": "Weather.", "parameters": SCHEMA}
FETCH = {"type": "function_call", "id": "fc_9", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
FETCHED = {"type": "function_call_output", "call_id": "c1", "output": "4"}
SPOKEN = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4 degrees"}]}
HIDDEN = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}


def test_responses_items(tmp_path: Path) -> None:
    asked = {"instructions": "Be brief.", "tools": [FLAT], "model": "m-1"}
    found, summary = read(
        tmp_path / "log.jsonl",
        {"request": {**asked, "input": "Oslo?"}, "response": items(HIDDEN, FETCH, id="r1")},
        {
            "request": {**asked, "input": [{"role": "user", "content": "Oslo?"}, HIDDEN, FETCH, FETCHED]},
            "response": items(SPOKEN, id="r2"),
        },
    )
    check(found, summary)
    assert found[0].messages[2].withheld and summary.changed == {Change.WITHHELD: 1}
    assert found[0].messages[2].calls[0].id == "c1", "pairs go by call_id"


def test_responses_cut_at_their_limit(tmp_path: Path) -> None:
    cut = {**items(SPOKEN), "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    found, summary = read(tmp_path / "log.jsonl", {"request": {"input": "Oslo?", "model": "m"}, "response": cut})
    assert found == [] and [one.reason for one in summary.left_out] == ["cut at its length limit"]


@pytest.mark.parametrize(
    "response",
    [
        {**items(SPOKEN), "status": "incomplete", "incomplete_details": {}},
        {**items(SPOKEN), "status": "in_progress"},
        items({**SPOKEN, "status": "incomplete"}),
        {"output": [{**SPOKEN, "status": "incomplete"}]},
        {"message": ANSWER, "done": True, "done_reason": "length"},
        {"generations": {"message": ANSWER, "generation_info": {"finish_reason": "length"}}},
        {**ANSWER, "response_metadata": {"finish_reason": "MAX_TOKENS"}},
        {**ANSWER, "response_metadata": {"stopReason": "max_tokens"}},
    ],
)
def test_every_place_that_says_an_answer_is_not_whole(response: Any, tmp_path: Path) -> None:
    found, summary = read(tmp_path / "log.jsonl", {"request": {"messages": ASKED}, "response": {"x": response}})
    assert found == [] and [one.reason for one in summary.left_out] == ["cut at its length limit"]


def test_anthropic_messages(tmp_path: Path) -> None:
    tools = [{"name": "weather", "description": "Weather.", "input_schema": SCHEMA}]
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}
    seen = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "4"}]}
    whole = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": tools,
        "messages": [
            {"role": "user", "content": "Oslo?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Look.", "signature": "s"}, use]},
            {"role": "user", "content": [seen]},
            {"role": "assistant", "content": [{"type": "text", "text": "4 degrees"}]},
        ],
    }
    found, summary = read(tmp_path / "log.jsonl", whole)
    check(found, summary)
    assert found[0].messages[2].thought == "Look." and summary.changed == {Change.THOUGHT: 1}
    answer = {"type": "message", "id": "msg_2", "role": "assistant", "content": whole["messages"][3]["content"]}
    first = {"type": "message", "id": "msg_1", "role": "assistant", "content": [use], "stop_reason": "tool_use"}
    asked = {**whole, "messages": whole["messages"][:1]}
    found, summary = read(
        tmp_path / "requests.jsonl",
        {"request": asked, "response": first},
        {"request": {**whole, "messages": whole["messages"][:3]}, "response": answer},
    )
    check(found, summary)


def test_one_anthropic_message_can_be_results_and_a_turn(tmp_path: Path) -> None:
    uses = [{"type": "tool_use", "id": id, "name": "weather", "input": {}} for id in ("a", "b")]
    seen = [
        {"type": "tool_result", "tool_use_id": "b", "content": "5"},
        {"type": "tool_result", "tool_use_id": "a", "is_error": True, "content": "no"},
        {"type": "text", "text": "And now?"},
    ]
    messages = [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": uses},
        {"role": "user", "content": seen},
        {"role": "assistant", "content": "5"},
    ]
    found, summary = read(tmp_path / "log.jsonl", {"system": "Be brief.", "messages": messages, "tools": []})
    assert [(m.role.value, m.text, m.error) for m in found[0].messages[3:6]] == [
        ("tool", "no", True),
        ("tool", "5", False),
        ("user", "And now?", False),
    ]
    assert [place.turn for place in found[0].places] == [0, 1, 2, 3, 3, 3, 4]
    assert summary.changed == {Change.ORDER: 1}


def span(id: str, parent: str | None, kind: str, inputs: Any, outputs: Any, start: int, **more: Any) -> Json:
    attributes = {"mlflow.spanType": kind, "mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs}
    attributes |= more.pop("attributes", {})
    return {
        "span_id": id,
        "parent_span_id": parent,
        "name": id,
        "start_time_unix_nano": start,
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
        "events": more.get("events", []),
    }


def trace(*spans: Json, **info: Any) -> Json:
    return {"info": {"trace_id": "tr-1", **info}, "data": {"spans": list(spans)}}


def test_mlflow_spans_of_one_trace(tmp_path: Path) -> None:
    asked = {"messages": ASKED, "tools": [TOOL], "model": "m-1"}
    after = {**asked, "messages": [*ASKED, CALLED, SEEN]}
    label = {"assessment_name": "expected_response", "expectation": {"value": "4"}}
    line = trace(
        span("root", None, "AGENT", {"q": 1}, "4 degrees", 1),
        span("late", "root", "CHAT_MODEL", after, reply(ANSWER), 5),
        span("inner", "late", "CHAT_MODEL", after, reply(ANSWER), 6),
        span("early", "root", "CHAT_MODEL", asked, reply(CALLED), 2),
        span("tool", "root", "TOOL", {"city": "Oslo"}, "4", 4),
        trace_metadata={"mlflow.trace.session": "s-1"},
        assessments=[label, {"assessment_name": "good", "feedback": {"value": True}}],
    )
    found, summary = read(tmp_path / "log.jsonl", line)
    check(found, summary)
    assert found[0].session == "s-1" and found[0].answers == ("4",)
    rows = {"trace_id": "tr-1", "trace": json.dumps(line), "state": "OK"}
    check(*read(tmp_path / "rows.jsonl", rows))
    check(*read(tmp_path / "pretty.json", json.dumps(line, indent=2)))
    check(*read(tmp_path / "list.json", json.dumps([line], indent=2)))


def test_mlflow_requests_in_traces_of_their_own(tmp_path: Path) -> None:
    asked = {"messages": ASKED, "tools": [TOOL]}
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(span("b", None, "CHAT_MODEL", {**asked, "messages": [*ASKED, CALLED, SEEN]}, reply(ANSWER), 9)),
        trace(span("a", None, "CHAT_MODEL", asked, reply(CALLED), 1)),
    )
    check(found, summary)


def test_mlflow_a_streamed_call_stands_in_the_events_alone(tmp_path: Path) -> None:
    delta = {"tool_calls": [{"index": 0, "id": "c1", "function": CALL["function"]}]}
    choice = {"index": 0, "delta": delta, "finish_reason": "tool_calls"}
    chunk = {"id": "s", "object": "chat.completion.chunk", "choices": [choice]}
    event = {"name": "mlflow.chunk.item.0", "attributes": {"mlflow.chunk.value": json.dumps(chunk)}}
    asked = {"messages": ASKED, "tools": [TOOL]}
    lost = reply({"role": "assistant", "content": ""})
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(span("a", None, "CHAT_MODEL", asked, lost, 1, events=[event])),
        trace(span("b", None, "CHAT_MODEL", {**asked, "messages": [*ASKED, CALLED, SEEN]}, reply(ANSWER), 9)),
    )
    check(found, summary)


def test_mlflow_response_spans_of_the_agents_sdk(tmp_path: Path) -> None:
    more = {"instructions": "Be brief.", "mlflow.chat.tools": [TOOL], "id": "r1", "model": "m-1"}
    question = [{"role": "user", "content": "Oslo?"}]
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(
            span("a", None, "CHAT_MODEL", question, [FETCH], 1, attributes=more),
            span("b", None, "CHAT_MODEL", [*question, FETCH, FETCHED], [SPOKEN], 2, attributes={**more, "id": "r2"}),
        ),
    )
    check(found, summary)


def test_mlflow_chat_form_with_null_fields(tmp_path: Path) -> None:
    """As LangGraph's models are logged: a list of lists, types for roles, arguments as objects, keys of null."""
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "c1", "type": "tool_call"}
    human = [{"type": "system", "content": "Be brief."}, {"type": "human", "content": "Oslo?", "name": None}]
    ai = {"type": "ai", "content": "", "tool_calls": [call], "invalid_tool_calls": [], "name": None}
    seen = {"type": "tool", "content": "4", "tool_call_id": "c1", "status": "success"}
    last = {"type": "ai", "content": "4 degrees", "tool_calls": []}
    tools = {"mlflow.chat.tools": [TOOL]}
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(
            span(
                "a", None, "CHAT_MODEL", [human], {"generations": [[{"text": "", "message": ai}]]}, 1, attributes=tools
            ),
            span(
                "b",
                None,
                "CHAT_MODEL",
                [[*human, ai, seen]],
                {"generations": [[{"message": last}]]},
                2,
                attributes=tools,
            ),
        ),
    )
    check(found, summary)
    assert summary.changed == {Change.OBJECT: 1}


def test_mlflow_traces_of_judges_and_without_a_chat(tmp_path: Path) -> None:
    asked = {"messages": ASKED, "tools": [TOOL]}
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(
            span("a", None, "CHAT_MODEL", asked, reply(ANSWER), 1), tags={"mlflow.trace.sourceScorer": "correctness"}
        ),
        trace(span("a", None, "TOOL", {"x": 1}, "y", 1)),
    )
    assert found == []
    assert [one.reason for one in summary.left_out] == [LineFault.JUDGE, LineFault.NO_CHAT]


def test_mlflow_spans_deep_inside_one_another(tmp_path: Path) -> None:
    """A request below a thousand spans is read, one below more is left out; other spans may lie deeper."""

    def nested(levels: int) -> list[Json]:
        return [span(str(level), str(level - 1) if level else None, "TOOL", 1, 1, level) for level in range(levels)]

    asked = {"messages": ASKED, "tools": [TOOL]}
    after = {**asked, "messages": [*ASKED, CALLED, SEEN]}
    first = span("first", "999", "CHAT_MODEL", asked, reply(CALLED), 1)
    found, summary = read(
        tmp_path / "log.jsonl",
        trace(*nested(3000), first, span("last", None, "CHAT_MODEL", after, reply(ANSWER), 2)),
        trace(*nested(1001), span("below", "1000", "CHAT_MODEL", asked, reply(CALLED), 1)),
    )
    assert [(one.place.line, one.unit, one.reason) for one in summary.left_out] == [(2, "line", LineFault.DEEP)]
    summary.left_out.clear()
    check(found, summary)


@pytest.mark.parametrize("quote", ["", '"'])
def test_given_tools_that_are_nested_too_deeply(quote: str, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    schema = quote + "[" * 600 + "]" * 600 + quote
    path.write_text('[{"name": "weather", "parameters": ' + schema + "}]")
    with pytest.raises(DataError, match=r"tools\.json holds a tool whose schema is nested too deeply"):
        read_tools(path)


def test_a_trace_may_have_more_requests_than_65535() -> None:
    tree = RequestTree(lambda source: pytest.fail("is not read"))
    turns = [Turn(Message(Role.USER, "?"), 1), Turn(Message(Role.ASSISTANT, "4"), 2)]
    assert tree.add(Exchange(turns, [], whole=True, tools=None), line=0, number=70_000)
    assert tree.sources(1) == [Source(0, 70_000, 1)]


def test_mlflow_a_failed_request_is_said(tmp_path: Path) -> None:
    """A request that failed and was sent again, inside a span that says nothing of either."""
    asked = {"messages": ASKED, "tools": [TOOL]}
    after = {**asked, "messages": [*ASKED, CALLED, SEEN]}
    retried = [
        span("outer", None, "CHAT_MODEL", None, None, 1),
        span("failed", "outer", "CHAT_MODEL", asked, None, 2),
        span("sent", "outer", "CHAT_MODEL", asked, reply(CALLED), 3),
        span("last", None, "CHAT_MODEL", after, reply(ANSWER), 4),
    ]
    found, summary = read(tmp_path / "log.jsonl", trace(*retried), trace(retried[1]))
    assert [(one.place.line, one.unit, one.reason) for one in summary.left_out] == [
        (1, "line", LineFault.NO_RESPONSE),
        (2, "line", LineFault.NO_RESPONSE),
    ]
    summary.left_out.clear()
    check(found, summary)


def test_a_document_gives_the_lines_of_its_elements(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(
        '\n[\n {"messages": [{"role": "user", "content": "é"},\n {"role": "assistant", "content": "a"}]},\n\n'
        ' {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "b"}]}\n]\n'
    )
    logs = Logs([path])
    logs.read()
    found = list(logs.conversations())
    assert [(one.places[1].line, one.messages[1].text) for one in found] == [(3, "a"), (6, "b")]


@pytest.mark.parametrize(
    ("data", "name"), [(b"\x1f\x8b\x08", "gzip"), (b"PAR1x", "Parquet"), (b'[{"messages": ', "none")]
)
def test_files_that_are_no_lines_are_refused_by_name(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / "log.bin"
    path.write_bytes(data)
    with pytest.raises(DataError, match=name):
        Logs([path]).read()
    with pytest.raises(DataError, match="No such file"):
        Logs([tmp_path / "absent"]).read()


def test_a_document_on_one_line_that_is_too_large_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_DOCUMENT", 1000)
    path = tmp_path / "log.json"
    rows = [json.dumps([{"role": "user", "content": f"{number:900}"}]) for number in range(2)]
    path.write_text("\n".join(rows))
    assert [piece.data.decode() for piece in lines.pieces(path)] == rows  # lines may be more than that together
    long = json.dumps({"messages": [{"role": "user", "content": "x" * 2000}]})
    path.write_text(f"{long}\n{long}\n")
    assert [piece.data.decode() for piece in lines.pieces(path)] == [long, long]
    path.write_text(f"\n [{rows[0]}, {rows[1]}]")
    monkeypatch.setattr(lines, "json", None)
    with pytest.raises(DataError, match="is one JSON document of more than 1,000 bytes; write it as JSON lines"):
        list(lines.pieces(path))


def test_groups_hold_sessions_first_turns_and_near_duplicates(tmp_path: Path) -> None:
    def line(question: str, answer: str, **more: Any) -> Json:
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}

    long = "My parcel has not arrived, although it was promised for Tuesday. Where is it, and when will it be here?"
    found, summary = read(
        tmp_path / "log.jsonl",
        line(long, "It is on its way.", session_id="a"),
        line("How do I cancel?", "Press cancel.", session_id="b"),
        line("Where can I see my bill?", "Under bills.", session_id="b"),
        line(long.lower().replace(",", ""), "it is on its way!"),
        line("Do you deliver to Norway?", "Yes, we do."),
        line("Do you deliver to Norway?", "No."),
        line(long, "It is on its way", session_id="c"),
    )
    assert len(found) == 7
    assert summary.group_of == [0, 1, 1, 0, 2, 2, 0]
    assert (summary.groups, summary.near_duplicates) == (3, 2), "two answers to one request are no duplicates"


def test_a_history_that_is_the_beginning_of_another_parts_at_its_end() -> None:
    paths = {1: [0, 1], 2: [0, 1, 2], 3: [0, 3]}
    tree: Any = SimpleNamespace(path=paths.__getitem__)
    assert [_parting(tree, node, 2) for node in (3, 1)] == [3, 1]
