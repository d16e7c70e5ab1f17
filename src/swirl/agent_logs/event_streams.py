"""Streams of server-sent events, logged as text or as a list of events, put together to the response they stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swirl.agent_logs import streamed_blocks, streamed_chunks
from swirl.core.nesting import loads

_BEGINNING = re.compile(r"(?:event|data|id|retry)?:")
"""Of a line; one that begins with a colon is a comment, which servers send to keep a connection."""
_FIELD = re.compile(r"(?:event|data|id|retry):|:(?:\s|$)")
"""The beginning of a line that is told from text without others."""
_DATA = re.compile(r"^data:[ \t]*[{\[]", re.MULTILINE)
_ENDS = tuple(f"response.{one}" for one in ("completed", "incomplete", "failed", "cancelled"))
"""The events of Responses that have the whole response."""


def is_stream(text: str) -> bool:
    """Whether a text is a stream of events: it begins with a line of one, and has data in JSON or no other lines."""
    begun = text.strip()
    if not _BEGINNING.match(begun):
        return False
    return bool(_DATA.search(begun)) or all(_FIELD.match(line) for line in begun.splitlines() if line.strip())


def events_of(text: str) -> list[Any]:
    """The values of a stream of events (`data: {...}` lines) and `DONE`; others that are no JSON are left out."""
    found = list[Any]()
    for line in text.strip().split("\n"):
        if line.startswith("data:"):
            body = line[5:].strip()
            try:
                found.append(body if body == streamed_chunks.DONE else loads(body))
            except ValueError:
                continue
    return found


def assembled(value: Any) -> Any:
    """The response of a stream, given as text or as a list of events; any other value as it is.

    {} for a text that is a stream from which no response can be put together.
    """
    stream = isinstance(value, str) and is_stream(value)
    events = events_of(value) if stream else value
    if not isinstance(events, list):
        return value
    if any(map(streamed_chunks.is_chunk, events)):
        return streamed_chunks.completion(events)
    if any(map(streamed_blocks.is_event, events)):
        return streamed_blocks.message(events)
    if any(map(_of_responses, events)):
        return next((event["response"] for event in reversed(events) if _ends(event)), {})
    return {} if stream else value


def _of_responses(event: Any) -> bool:
    return isinstance(event, Mapping) and str(event.get("type")).startswith("response.")


def _ends(event: Any) -> bool:
    return _of_responses(event) and event["type"] in _ENDS and isinstance(event.get("response"), Mapping)
