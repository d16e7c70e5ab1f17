"""JSON up to a fixed depth: the stack lets a deeper value be read at one place of the program and not at another."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 300
"""Objects and lists in one another."""


class TooDeep(Exception):
    """JSON that goes deeper than `DEEPEST`."""


def loads(text: str) -> Any:
    """The value of JSON text. Raises `ValueError` when it is none, and `TooDeep`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise TooDeep from None
    return checked(value) if text.count("[") + text.count("{") > DEEPEST else value


def checked(value: Any) -> Any:
    """The value of JSON. Raises `TooDeep`."""
    if depth(value) > DEEPEST:
        raise TooDeep
    return value


def depth(value: Any) -> int:
    """How many objects and lists lie in one another."""
    levels, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        levels += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return levels
