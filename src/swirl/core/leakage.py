"""Comparison of question texts, to find a question that is in two splits."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_QUOTES = str.maketrans("`´\N{MINUS SIGN}\N{EN DASH}", "''--")
"""Quotation marks that Unicode counts among symbols, and what stands for a minus."""
_OPERATOR = re.compile(r"(?<![^\W\d])-(?=\s*[\d(])|(?<=[\d)])\s*[*/%]|[*/%](?=\s*[\d(])|(?<=[^\W\d])#")
"""What Unicode counts among punctuation where a question may turn on it: beside a number, and in C#."""
_SYMBOLS = str.maketrans("-*/%#", "−∗∕℅♯")
"""Symbols of Unicode that stand for them in a key."""


def leakage_key(text: str) -> str:
    """A question's words and symbols (`+`, `<`, a minus) in lower case, single blanks and no other punctuation.

    Equal results count as one question; an empty one, of a text of punctuation alone, counts as no other.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold()
    marked = _OPERATOR.sub(lambda sign: sign[0].translate(_SYMBOLS), plain)
    return " ".join("".join(map(_piece, marked)).split())


@cache
def _piece(character: str) -> str:
    """A character of a word, the marks of letters (as vowel signs) among them; a symbol between blanks; or a blank."""
    kind = unicodedata.category(character)[0]
    if kind == "S":
        return f" {character} "
    return character if kind == "M" or character.isalnum() or character == "_" else " "
