"""When two messages are the same: hashes of what the model reads, whatever form a log gives it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from swirl.agent_logs.arguments import unglued
from swirl.agent_logs.conversation import Call, LoggedTool, Message
from swirl.core.nesting import TooDeep, loads


def hash_of(*parts: object) -> int:
    """64 bits of text and numbers."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def of_message(message: Message) -> int:
    """The hash of a message's role, text and calls: null equals "", arguments are compared as JSON with sorted keys.

    Left out are thoughts, ids (results stand in the order of their calls) and whatever else differs between a response
    and its echo in later requests.
    """
    calls = [part for call in message.calls for part in _of_call(call)]
    return hash_of(message.role.value, message.text, calls)


def of_tools(tools: Sequence[LoggedTool] | None) -> int:
    """The hash of the tools that a request offers, in any order; 0 where none were logged."""
    if tools is None:
        return 0
    return hash_of(sorted((tool.name, tool.description, _sorted(tool.parameters)) for tool in tools))


def _of_call(call: Call) -> list[tuple[str, str]]:
    """Name and arguments; glued arguments count as the calls that they may be, as an echo may have them split."""
    return [(one.name, _sorted(one.arguments)) for one in unglued(call) or (call,)]


def _sorted(text: str) -> str:
    """JSON with sorted keys, or the text itself where it is none."""
    try:
        return json.dumps(loads(text), sort_keys=True, ensure_ascii=False)
    except (ValueError, TooDeep):
        return text
