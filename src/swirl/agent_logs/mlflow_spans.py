"""MLflow's traces as values: the requests to chat models in their spans. Knows nothing of the library.

Every attribute is JSON inside JSON. A trace is what `Trace.to_json` writes, a row of `search_traces`, or its spans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from swirl.agent_logs import event_streams, marks
from swirl.agent_logs.exchanges import LineFault, LineLeftOut
from swirl.core.nesting import loads

Json = Mapping[str, Any]

_TYPES = ("CHAT_MODEL", "LLM")
_SCORER = "mlflow.trace.sourceScorer"
_SESSION = "mlflow.trace.session"
_CHUNK = "mlflow.chunk.item."
_EXPECTED = ("expected_response", "expected_answer", "answer", "ground_truth", "expected_output")
_CLOSING = re.compile(r"<?</([^\s<>/]+)>>?")
"""A closing tag, its brackets single or doubled."""
_LEVELS = 1000
"""Spans around a request to a chat model; a trace with more is left out."""


def trace_of(value: Json) -> Json | None:
    """The trace that a value is or holds, as `{"info", "data": {"spans"}}`; None for anything else."""
    inner = _opened(value.get("trace"))
    if isinstance(inner, Mapping):
        return trace_of(inner)
    data = _opened(value.get("data"))
    if isinstance(data, Mapping) and isinstance(data.get("spans"), list):
        info = _opened(value.get("info"))
        return {"info": info if isinstance(info, Mapping) else {}, "data": data}
    spans = _opened(value.get("spans"))
    if isinstance(spans, list) and all(isinstance(span, Mapping) and "attributes" in span for span in spans):
        return {"info": value, "data": {"spans": spans}}
    return None


def session(trace: Json) -> str:
    """The session of a trace; empty without one."""
    return str(_metadata(trace).get(_SESSION) or "")


def answers(trace: Json) -> tuple[str, ...]:
    """Golden answers: the expectations among the trace's assessments, and those that traces of our own runs have."""
    found = list[str]()
    for one in trace["info"].get("assessments") or ():
        if not isinstance(one, Mapping):
            continue
        name = one.get("assessment_name") or one.get("name")
        expectation = one.get("expectation")
        if isinstance(expectation, Mapping) and name in _EXPECTED:
            given = expectation.get("value")
            inner = expectation.get("serialized_value")
            given = _opened(inner.get("value")) if given is None and isinstance(inner, Mapping) else given
            found += [str(answer) for answer in (given if isinstance(given, list) else [given]) if answer is not None]
    own = list[str]()  # each by itself, where our expectation joins them
    for span in trace["data"]["spans"]:
        accepted = _attribute(span, "accepted")
        own += [str(answer) for answer in accepted] if isinstance(accepted, list) else []
    return tuple(dict.fromkeys(own or found))


def requests(trace: Json) -> list[tuple[Json, Any] | None]:
    """The requests to chat models with their responses, in the order in which they were sent; None: it has no response.

    Of chat spans inside one another, the outermost that can be read counts: they are one request. Raises `LineLeftOut`
    for the trace of a judge, and for one that is nested too deeply.
    """
    if _metadata(trace).get(_SCORER):
        raise LineLeftOut(LineFault.JUDGE)
    spans = [span for span in trace["data"]["spans"] if isinstance(span, Mapping)]
    around = {str(span.get("span_id")): str(_parent(span) or "") for span in spans}
    chats = [span for span in spans if _attribute(span, "mlflow.spanType") in _TYPES]
    above = {identity: _above(identity, around) for identity in (str(span.get("span_id")) for span in chats)}
    chats.sort(key=lambda span: len(above[str(span.get("span_id"))]))
    exchanges = {str(span.get("span_id")): _exchange(span) for span in chats}
    around_read = {outer for one, exchange in exchanges.items() if exchange is not None for outer in above[one]}
    found: dict[str, tuple[int, tuple[Json, Any] | None]] = {}
    for span in chats:
        identity = str(span.get("span_id"))
        inside = any(outer in found for outer in above[identity])
        if not inside and (exchanges[identity] is not None or identity not in around_read):
            found[identity] = _started(span), exchanges[identity]
    return [exchange for _, exchange in sorted(found.values(), key=lambda one: one[0])]


def own_trajectory(trace: Json) -> Json | None:
    """The conversation of a trace that a run of this project logged: actions in tags, observations as user turns.

    Raises `LineLeftOut` where an action calls in a model's own tool format: neither its tools nor its results as turns
    of their own are in the trace.
    """
    spans = trace["data"]["spans"]
    steps = [span for span in spans if _attribute(span, "step") is not None and _attribute(span, "kind")]
    roots = [span for span in spans if not _parent(span)]
    asked = _attribute(roots[0], "mlflow.spanInputs") if roots else None
    if not steps or not isinstance(asked, Mapping) or not isinstance(asked.get("messages"), list):
        return None
    model = _attribute(roots[0], "model")
    messages: list[Json] = list(asked["messages"])
    for span in sorted(steps, key=lambda span: int(_attribute(span, "step"))):
        given, seen = _attribute(span, "mlflow.spanInputs") or {}, _attribute(span, "mlflow.spanOutputs") or {}
        if "call" in given and not _in_tags(str(given.get("action", "")), str(given["call"])):
            raise LineLeftOut(LineFault.NATIVE)
        messages.append({"role": "assistant", "content": str(given.get("action", "")), "model": model})
        if observation := seen.get("observation"):
            messages.append({"role": "user", "content": observation})
    return {"messages": messages, "tools": []}


def _in_tags(action: str, call: str) -> bool:
    """Whether an action's last tags of ours are around this call's payload, or the last of several."""
    closings = list(_CLOSING.finditer(action))
    if not closings:
        return False
    closing = closings[-1]
    _, opening, payload = action[: closing.start()].rpartition(f"<{closing[1]}>")
    return bool(opening) and call.strip().endswith(payload.removeprefix(">").strip())


def _exchange(span: Json) -> tuple[Json, Any] | None:
    """The request and response of a chat span; None where it has none that can be read."""
    given = _attribute(span, "mlflow.spanInputs")
    response = event_streams.assembled(_attribute(span, "mlflow.spanOutputs"))
    if isinstance(given, list):
        given = _as_request(given, _are_items(response))
    if isinstance(given, str):
        given = {"input": given}
    if not isinstance(given, Mapping) or not ("messages" in given or "input" in given):
        return None
    request = dict(given)
    for key, attribute in (("tools", "mlflow.chat.tools"), ("tools", "tools"), ("instructions", "instructions")):
        if request.get(key) is None and (value := _attribute(span, attribute)) is not None:
            request[key] = value
    for key in ("previous_response_id", "model"):
        if request.get(key) is None and isinstance(value := _attribute(span, key), str):
            request[key] = value
    if not _says_something(response):
        response = _streamed(span)
    if isinstance(response, list) and "input" in request:
        ended = _attribute(span, "incomplete_details")
        response = {"output": response, "id": _attribute(span, "id"), "incomplete_details": ended}
    response = _as_message(response)
    return (request, response) if isinstance(response, Mapping) else None


def _as_request(given: Sequence[Any], answered: bool) -> Json:
    """A list of messages or of items as the request that has it; `answered`: it was answered with items."""
    flat = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    return {"input": flat} if answered or _are_items(flat) else {"messages": flat}


def _are_items(values: Any) -> bool:
    """Whether a list holds items of Responses."""
    kinds = [one.get("type") for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []
    return any(kind in ("message", "function_call", "function_call_output", "reasoning") for kind in kinds)


def _as_message(response: Any) -> Any:
    """A response in the forms that frameworks give: a message, generations around one, a list with one, or a text."""
    if isinstance(response, Mapping) and isinstance(response.get("generations"), list):
        response = response["generations"]
    while isinstance(response, list) and len(response) >= 1:
        response = response[0]
    if isinstance(response, str) and response and not marks.page(response):
        return {"role": "assistant", "content": response}
    if isinstance(response, Mapping) and isinstance(response.get("messages"), list) and response["messages"]:
        response = response["messages"][-1]
    if isinstance(response, Mapping) and response.get("type") == "ai":
        return {**response, "role": "assistant"}
    return response


def _says_something(response: Any) -> bool:
    """Whether the outputs hold an answer; a streamed call can be missing there and stand in the chunks alone."""
    if not response:
        return False
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if not isinstance(choices, list):
        return True
    messages = [choice.get("message") or {} for choice in choices if isinstance(choice, Mapping)]
    return any(message.get(key) for message in messages for key in ("content", "tool_calls", "refusal"))


def _streamed(span: Json) -> Json | None:
    """The response of the chunks in a span's events; None without any."""
    chunks = []
    for event in span.get("events") or ():
        if isinstance(event, Mapping) and str(event.get("name")).startswith(_CHUNK):
            values = event.get("attributes")
            chunks.append(_opened(_opened(values).get("mlflow.chunk.value")) if values else None)
    whole = event_streams.assembled(chunks)
    return whole if isinstance(whole, Mapping) and whole else None


def _metadata(trace: Json) -> dict[str, Any]:
    """The trace's metadata and tags, under whatever name this version of MLflow has them."""
    found: dict[str, Any] = {}
    for name in ("tags", "request_metadata", "trace_metadata"):
        given = _opened(trace["info"].get(name))
        found.update(given if isinstance(given, Mapping) else {})
    return found


def _attribute(span: Json, name: str) -> Any:
    attributes = span.get("attributes")
    return _opened(attributes.get(name)) if isinstance(attributes, Mapping) else None


def _opened(value: Any) -> Any:
    """The value of JSON text; a text that is no JSON, or a JSON number, as it is."""
    if isinstance(value, str):
        try:
            return loads(value)
        except ValueError:
            return value
    return value


def _parent(span: Json) -> Any:
    return span.get("parent_span_id") or span.get("parent_id")


def _started(span: Json) -> int:
    return int(span.get("start_time_unix_nano") or span.get("start_time") or 0)


def _above(identity: str, parents: Mapping[str, str]) -> set[str]:
    """The spans around a span; a circle ends it. Raises `LineLeftOut` for more than `_LEVELS`."""
    found, outer = set[str](), parents.get(identity, "")
    while outer and outer != identity and outer not in found:
        found.add(outer)
        if len(found) > _LEVELS:
            raise LineLeftOut(LineFault.DEEP)
        outer = parents.get(outer, "")
    return found
