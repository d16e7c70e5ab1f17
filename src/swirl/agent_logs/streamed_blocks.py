"""Events of a streamed message of Anthropic's, put together to the message that they stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_EVENTS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"
)  # fmt: skip
_JOINED = ("text", "thinking", "partial_json")


def is_event(value: Any) -> bool:
    """Whether a value is one event of such a stream."""
    return isinstance(value, Mapping) and value.get("type") in _EVENTS


def message(events: Iterable[Any]) -> dict[str, Any]:
    """The message of these events, as a response without streaming has it; {} where its beginning is missing.

    One whose end is missing stops as `incomplete`.
    """
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    stopped: Any = None
    for event in filter(is_event, events):
        kind, index = event["type"], int(event.get("index") or 0)
        if kind == "message_start":
            whole = {**event["message"], "type": "message", "role": "assistant"}
        elif kind == "content_block_start":
            blocks[index] = dict(event["content_block"])
        elif kind == "content_block_delta":
            if index not in blocks:
                return {}
            _add(blocks[index], event["delta"])
        elif kind == "message_delta":
            stopped = event["delta"].get("stop_reason") or stopped
        elif kind == "message_stop":
            stopped = stopped or "end_turn"
    if not whole:
        return {}
    content = [_with_input(blocks[index]) for index in sorted(blocks)]
    return {**whole, "content": content, "stop_reason": stopped or "incomplete"}


def _add(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for key in _JOINED:
        if isinstance(delta.get(key), str):
            block[key] = (block.get(key) or "") + delta[key]


def _with_input(block: dict[str, Any]) -> dict[str, Any]:
    """A block of a call with its arguments as the JSON text that was streamed; others as they are."""
    given = block.pop("partial_json", "")
    return {**block, "input": given} if given else block
