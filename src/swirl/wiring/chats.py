"""From params and a model's folder to the chat in which the policy acts."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from swirl.config.params import Params
from swirl.models.loading import load_chat, load_native_chat
from swirl.models.native_chat import AnyChat


def policy_chat(params: Params, folder: Path) -> AnyChat:
    """The chat of a model's folder in the format of `actions`, which says once what its template does to past turns.

    Raises `ModelError` for a template that cannot be used with it.
    """
    thinking, strip = params.actions.thinking != "none", params.actions.thinking == "strip"
    load = load_native_chat if params.actions.format == "native" else load_chat
    chat: AnyChat = load(folder, thinking, strip)
    for note in chat.notes:
        _say(note)
    return chat


@cache
def _say(note: str) -> None:
    print(f"note: {note}", file=sys.stderr, flush=True)
