"""Chunks of a streamed Chat Completion, put together to the completion that they stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_JOINED = ("content", "reasoning_content", "reasoning", "refusal")


def is_chunk(value: Any) -> bool:
    """Whether a value is one chunk: choices with a delta in place of a message."""
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list):
        return False
    deltas = bool(choices) and isinstance(choices[0], Mapping) and isinstance(choices[0].get("delta"), Mapping)
    return deltas or value.get("object") == "chat.completion.chunk"


def completion(chunks: Iterable[Any]) -> dict[str, Any]:
    """The completion of these chunks, as a response without streaming has it; {} without any chunk."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
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
            if calls := choice["message"].get("tool_calls"):
                choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls)]
    return whole if choices else {}


def _add(into: dict[str, Any], choice: Mapping[str, Any]) -> None:
    delta = choice.get("delta")
    message = into["message"]
    for key in _JOINED:
        if isinstance(delta, Mapping) and isinstance(delta.get(key), str):
            message[key] = (message.get(key) or "") + delta[key]
    for call in (delta.get("tool_calls") or ()) if isinstance(delta, Mapping) else ():
        calls = message.setdefault("tool_calls", {})
        index = call.get("index")
        known = calls.setdefault(
            len(calls) if index is None else int(index), {"id": "", "function": {"name": "", "arguments": ""}}
        )
        function = call.get("function") or {}
        known["id"] = known["id"] or call.get("id") or ""
        known["function"]["name"] += function.get("name") or ""
        known["function"]["arguments"] += function.get("arguments") or ""
    if choice.get("finish_reason"):
        into["finish_reason"] = choice["finish_reason"]
