"""Chunks of a streamed Chat Completion, put together to the completion that they stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DONE = "[DONE]"
"""What a server sends after its last chunk."""
_JOINED = ("content", "reasoning_content", "reasoning", "refusal")


def is_chunk(value: Any) -> bool:
    """Whether a value is one chunk: choices with a delta in place of a message."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list):
        return False
    deltas = bool(choices) and isinstance(choices[0], Mapping) and isinstance(choices[0].get("delta"), Mapping)
    return deltas or value.get("object") == "chat.completion.chunk"


def completion(chunks: Iterable[Any]) -> dict[str, Any]:
    """The completion of these chunks, as a response without streaming has it; {} without any chunk.

    What an error ended stops as `error`. A choice for which no chunk says why it ended stops as `incomplete`, unless
    the server came to its end: then the chunk that said it was not logged.
    """
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    ended = failed = False
    for chunk in chunks:
        ended = ended or _ends(chunk)
        failed = failed or (isinstance(chunk, Mapping) and bool(chunk.get("error")))
        if not is_chunk(chunk):
            continue
        for key in ("id", "model"):
            whole.setdefault(key, chunk.get(key))
        for choice in chunk["choices"]:
            if isinstance(choice, Mapping):
                number = int(choice.get("index") or 0)
                _add(choices.setdefault(number, {"message": {"role": "assistant", "content": None}}), choice)
    if choices:
        whole["choices"] = [choices[number] for number in sorted(choices)]
        for choice in whole["choices"]:
            if failed or not (ended or choice.get("finish_reason")):
                choice["finish_reason"] = "error" if failed else "incomplete"
            if calls := choice["message"].get("tool_calls"):
                choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls)]
    return whole if choices else {}


def _ends(chunk: Any) -> bool:
    """Whether a server sends this at its end alone: `DONE`, or the usage without a choice."""
    return chunk == DONE or (isinstance(chunk, Mapping) and not chunk.get("choices") and bool(chunk.get("usage")))


def _add(into: dict[str, Any], choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta")
    message = into["message"]
    for key in _JOINED:
        if isinstance(delta, Mapping) and isinstance(delta.get(key), str):
            message[key] = (message.get(key) or "") + delta[key]
    for call in (delta.get("tool_calls") or ()) if isinstance(delta, Mapping) else ():
        calls = message.setdefault("tool_calls", {})
        function = call.get("function") or {}
        index = call.get("index")
        if index is None:  # more of the last call, unless it begins another
            index = max(calls) if calls and not (call.get("id") or function.get("name")) else len(calls)
        known = calls.setdefault(int(index), {"id": "", "function": {"name": "", "arguments": ""}})
        known["id"] = known["id"] or call.get("id") or ""
        known["function"]["name"] += function.get("name") or ""
        known["function"]["arguments"] += function.get("arguments") or ""
    if choice.get("finish_reason"):
        into["finish_reason"] = choice["finish_reason"]
