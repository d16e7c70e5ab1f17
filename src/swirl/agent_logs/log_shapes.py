"""Finds the format of a logged value by its shape, and reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl.agent_logs import event_streams, marks, mlflow_spans, streamed_chunks
from swirl.agent_logs.arguments import schemas_of, to_text, without_nulls
from swirl.agent_logs.chat_messages import MessageReader, why_ended
from swirl.agent_logs.conversation import LoggedTool
from swirl.agent_logs.exchanges import Exchange, Fault, LineFault, LineLeftOut, Turn
from swirl.agent_logs.pairing import pair
from swirl.agent_logs.response_items import ItemReader
from swirl.core.errors import DataError
from swirl.core.nesting import TooDeep, checked, loads
from swirl.core.records import load_json

Json = Mapping[str, Any]

_SESSIONS = ("session_id", "sessionId", "session", "conversation_id", "thread_id", "litellm_session_id")
_ANSWERS = ("answer", "answers", "expected_answer", "expected_response", "ground_truth")
_ITEMS = ("function_call", "function_call_output", "reasoning", "message")
_DEPTH = 3
"""How deep an envelope may wrap a request or a response."""


def read(value: Any, given: Sequence[LoggedTool] = ()) -> list[Exchange]:
    """The requests, or the whole conversation, that one logged value holds; `given` are the tools if it names none.

    Raises `LineLeftOut` for a value that holds nothing to learn from.
    """
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, Mapping):
        raise LineLeftOut(LineFault.SHAPE)
    if trace := mlflow_spans.trace_of(value):
        return _of_trace(trace, given)
    exchange = _of_value(value, given)
    return [dataclasses.replace(exchange, session=_session(value), answers=_answers(value))]


def _of_trace(trace: Json, given: Sequence[LoggedTool]) -> list[Exchange]:
    """The requests of a trace, in the order in which they were sent; one without a response has nothing in it."""
    session, answers = mlflow_spans.session(trace), mlflow_spans.answers(trace)
    exchanges = list[Exchange]()
    if conversation := mlflow_spans.own_trajectory(trace):
        return [dataclasses.replace(_of_value(conversation, given), session=session, answers=answers)]
    for found in mlflow_spans.requests(trace):
        exchange = _of_pair(*found, given) if found else None
        exchange = exchange or Exchange([], [], False, None)
        exchanges.append(dataclasses.replace(exchange, session=session, answers=answers))
    if not exchanges:
        raise LineLeftOut(LineFault.NO_CHAT)
    if not any(exchange.responses or exchange.whole for exchange in exchanges):
        raise LineLeftOut(LineFault.NO_RESPONSE)
    return exchanges


def _of_value(value: Json, given: Sequence[LoggedTool]) -> Exchange:
    """One request with its response in any envelope, or one whole conversation."""
    found = next(_requests(value, 0), None)
    if found is None:
        raise LineLeftOut(LineFault.SHAPE)
    request, enveloped = found
    response = next(_responses(value, request, 0), None) or _said(value)
    if response is None and not _is_conversation(request, enveloped):
        raise LineLeftOut(LineFault.NO_RESPONSE)
    exchange = _of_pair(request, response, given)
    if exchange is None:
        raise LineLeftOut(LineFault.NO_RESPONSE)
    return exchange


def _of_pair(request: Json, response: Any, given: Sequence[LoggedTool]) -> Exchange | None:
    """The exchange of a request and its response (None: it is a whole conversation); None for an unknown response."""
    tools = tools_of(request)
    schemas = schemas_of(tools if tools is not None else given)
    model = str((response.get("model") if isinstance(response, Mapping) else None) or request.get("model") or "")
    writer = model if response is None else ""  # echoes may be another model's
    if "messages" in request:
        reader = MessageReader(schemas, _is_anthropic(request, response), writer)
        raw = request["messages"]
        history = [*_system(request, reader), *reader.read_all(_flat(raw))]
    else:
        history = ItemReader(schemas, writer).read_input(request.get("input"), request.get("instructions"))
        raw = request.get("input") if isinstance(request.get("input"), list) else [None]
    responses = [] if response is None else _read_response(response, MessageReader(schemas, False, model), len(raw) + 1)
    if responses is None:
        return None
    previous = str(request.get("previous_response_id") or "")
    if not previous:
        history, waiting = pair(history)
        if waiting:
            responses = [dataclasses.replace(turn, fault=turn.fault or Fault.UNANSWERED) for turn in responses]
    nulls = any(without_nulls(schema) != schema for _, schema in _offered(request) or ())
    return Exchange(history, responses, response is None, tools, previous=previous, nulls=nulls)


def _read_response(response: Any, reader: MessageReader, number: int) -> list[Turn] | None:
    """The answers in a response, as turn `number`; None where there is no answer in it."""
    if isinstance(response, Mapping) and streamed_chunks.is_chunk(response):
        response = streamed_chunks.completion([response, streamed_chunks.DONE])  # others may stand on other lines
    if isinstance(response, list):  # items without their envelope
        return [ItemReader(reader.schemas, reader.model).read_output(response, number, None)]
    identity = str(response.get("id") or "")
    if isinstance(choices := response.get("choices"), list):
        messages = [
            {**choice["message"], "role": "assistant", "id": identity, "finish_reason": choice.get("finish_reason")}
            for choice in choices
            if isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping)
        ]
    elif isinstance(items := response.get("output"), list):
        turn = ItemReader(reader.schemas, reader.model).read_output(items, number, _ended(response))
        turn.id = identity
        return [turn]
    elif isinstance(inner := response.get("message"), Mapping):
        messages = [{"id": identity, **inner, "finish_reason": why_ended(inner, response), "role": "assistant"}]
    else:
        reader = dataclasses.replace(reader, blocks=response.get("type") == "message" or reader.blocks)
        messages = [{**response, "role": "assistant"}]
    return [reader.read(message, number)[-1] for message in messages] or None


def _ended(response: Json) -> Any:
    """Why a response of items ended; one that was still being made is not whole."""
    cut, status = response.get("incomplete_details"), response.get("status")
    reason = cut.get("reason") if isinstance(cut, Mapping) else None
    return reason or ("incomplete" if status in ("queued", "in_progress") else status)


def _requests(value: Any, depth: int) -> Iterator[tuple[Json, bool]]:
    """The dicts that look like requests, outer ones first, and whether an envelope is around them."""
    value = _opened(value)
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return
    if _is_request(value):
        yield value, depth > 0
    for key, inner in value.items():
        if key not in ("messages", "tools", "input") or not _is_request(value):
            yield from _requests(inner, depth + 1)


def _responses(value: Any, request: Json, depth: int) -> Iterator[Any]:
    """What looks like a response, outer ones first; the request itself is not searched."""
    value = event_streams.assembled(_opened(value))
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return
    if depth and _is_response(value):
        yield value
        return
    inside = value is request
    for key, inner in value.items():
        if not (inside and key in ("messages", "input", "tools")) and (depth or key != "request"):
            yield from _responses(inner, request, depth + 1)
    if not depth and isinstance(value.get("output"), list) and "input" in value:
        yield {"output": value["output"], "id": value.get("id")}


def _said(value: Json) -> Json | None:
    """A response that is a plain text: no JSON, no stream, and no page of a gateway's error."""
    texts = (value.get(key) for key in ("response", "output", "completion"))
    found = (text for text in texts if isinstance(text, str) and text and not text.lstrip().startswith(("{", "[")))
    said = (text for text in found if not (event_streams.is_stream(text) or marks.page(text)))
    return next(({"role": "assistant", "content": text} for text in said), None)


def _is_conversation(request: Json, enveloped: bool) -> bool:
    """Whether messages without a response are a whole conversation, not a request whose response is missing."""
    messages = [one for one in _flat(request.get("messages") or ()) if isinstance(one, Mapping)]
    said = [one.get("role") in ("assistant", "model") or one.get("type") == "ai" for one in messages]
    return any(said[-1:] if enveloped else said)


def _is_request(value: Json) -> bool:
    messages, items = value.get("messages"), value.get("input")
    if isinstance(messages, list):
        return bool(messages) and all(isinstance(one, Mapping | list) for one in messages)
    if isinstance(items, list):
        return bool(items) and all(
            isinstance(one, Mapping) and ("role" in one or one.get("type") in _ITEMS) for one in items
        )
    return isinstance(items, str) and bool({"instructions", "previous_response_id", "model", "tools"} & value.keys())


def _is_response(value: Json) -> bool:
    choices = value.get("choices")
    if isinstance(choices, list):
        return bool(choices) and isinstance(choices[0], Mapping) and bool({"message", "delta"} & choices[0].keys())
    if isinstance(value.get("output"), list):
        return all(isinstance(one, Mapping) and "type" in one for one in value["output"])
    if isinstance(inner := value.get("message"), Mapping):
        return inner.get("role") == "assistant"
    return value.get("role") == "assistant" and ("content" in value or "tool_calls" in value)


def _opened(value: Any) -> Any:
    """JSON inside JSON as a value; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return loads(value)
        except ValueError:
            return value
    return value


def _flat(messages: Sequence[Any]) -> list[Any]:
    """The messages; LangChain logs them in a list of lists with one list in it."""
    return list(messages[0]) if len(messages) == 1 and isinstance(messages[0], list) else list(messages)


def _system(request: Json, reader: MessageReader) -> list[Turn]:
    """The system turn that Anthropic's requests have beside their messages."""
    given = request.get("system")
    if not given or not isinstance(given, str | list):
        return []
    turn = reader.read({"role": "system", "content": given}, 0)[-1]
    return [turn]


def _is_anthropic(request: Json, response: Any) -> bool:
    """Whether content in blocks and arguments as objects are the format's own."""
    if "system" in request or (isinstance(response, Mapping) and response.get("type") == "message"):
        return True
    if any(isinstance(tool, Mapping) and "input_schema" in tool for tool in request.get("tools") or ()):
        return True
    blocks = [
        (part.get("type"), "tool_calls" in message and bool(message["tool_calls"]))
        for message in request["messages"]
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping)
    ]
    called = any(kind in ("tool_use", "tool_result", "thinking", "redacted_thinking") for kind, _ in blocks)
    return called and not any(both for _, both in blocks)


def tools_of(request: Json) -> tuple[LoggedTool, ...] | None:
    """The tools that a request offers, in whatever form; None where it names none."""
    offered = _offered(request)
    if offered is None:
        return None
    return tuple(
        LoggedTool(tool["name"], str(tool.get("description") or ""), to_text(without_nulls(schema)))
        for tool, schema in offered
    )


def read_tools(path: Path) -> tuple[LoggedTool, ...]:
    """The tools of a file, for logs that name none. Raises `DataError` when it holds none."""
    try:
        tools = tools_of({"tools": checked(load_json(path))})
    except TooDeep:
        raise DataError(f"{path} holds a tool whose schema is nested too deeply") from None
    if not tools:
        raise DataError(f'{path} must hold a JSON list of tools, as a request\'s "tools"')
    return tools


def _offered(request: Json) -> list[tuple[Json, Json]] | None:
    """Each tool that a request offers, and the schema of its arguments as it was logged; None where it names none."""
    given = _opened(request.get("functions") if request.get("tools") is None else request["tools"])
    if not isinstance(given, list):
        return None
    found = []
    for one in given:
        inner = one.get("function") if isinstance(one, Mapping) else None
        tool = inner if isinstance(inner, Mapping) else one
        if isinstance(tool, Mapping) and isinstance(tool.get("name"), str):
            schema = _opened(tool.get("parameters") or tool.get("input_schema") or tool.get("inputSchema") or {})
            found.append((tool, schema if isinstance(schema, Mapping) else {}))
    return found


def _session(value: Json) -> str:
    """The session that an envelope, its metadata or its request names; empty without one."""
    places = [value, *(inner for inner in value.values() if isinstance(inner, Mapping))]
    places += [place["metadata"] for place in places if isinstance(place.get("metadata"), Mapping)]
    found = (place.get(key) for place in places for key in _SESSIONS)
    return next((str(one) for one in found if isinstance(one, str | int) and one != ""), "")


def _answers(value: Json) -> tuple[str, ...]:
    """The golden answers that a line names."""
    for key in _ANSWERS:
        given = value.get(key)
        many = given if isinstance(given, list) else [given]
        if found := tuple(str(one) for one in many if isinstance(one, str | int | float) and str(one)):
            return found
    return ()
