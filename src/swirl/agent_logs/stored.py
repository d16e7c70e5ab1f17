"""Logged conversations as text, so that a later stage need not read the logs again."""

from __future__ import annotations

import json

from swirl.agent_logs.conversation import LoggedConversation
from swirl.core.records import from_dict, to_dict


def to_content(conversation: LoggedConversation) -> tuple[str, bool]:
    """A conversation as JSON text that can be written as UTF-8, and whether a half character had to be made a `?`.

    JSON can escape half of a surrogate pair, which is no character, and which no tokenizer reads.
    """
    content = json.dumps(to_dict(conversation), ensure_ascii=False, separators=(",", ":"))
    try:
        content.encode()
    except UnicodeEncodeError:
        return content.encode("utf-8", "replace").decode(), True
    return content, False


def from_content(content: str) -> LoggedConversation:
    """The conversation that `to_content` wrote."""
    return from_dict(LoggedConversation, json.loads(content))
