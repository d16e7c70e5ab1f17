"""Text of models, tools and files, made safe to show in a page or a terminal."""

from __future__ import annotations

import re

_ACTIVE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Text that is safe to show: control and direction characters and lone surrogates become U+FFFD."""
    return _ACTIVE.sub("\ufffd", text)
