"""Comparison of question texts, to find a question that is in two splits."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_OPERATORS = "-*/%#"
"""What Unicode counts among punctuation and a question may turn on, as on its symbols."""
_QUOTES = str.maketrans("`´", "''")
"""Quotation marks that Unicode counts among symbols."""
_DASHES = re.compile("[\N{HYPHEN}-\N{HORIZONTAL BAR}\N{MINUS SIGN}]")
_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d])")
"""Between two letters, where it is no minus."""


def leakage_key(text: str) -> str:
    """A question's words and symbols (`+`, `<`, `-`) in lower case with single blanks and without other punctuation.

    Equal results count as one question; an empty one, of a text of punctuation alone, counts as no other.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold()
    return " ".join("".join(map(_piece, _HYPHEN.sub(" ", _DASHES.sub("-", plain)))).split())


@cache
def _piece(character: str) -> str:
    """A character of a word, the marks of letters (as vowel signs) among them; a symbol between blanks; or a blank."""
    kind = unicodedata.category(character)[0]
    if kind == "S" or character in _OPERATORS:
        return f" {character} "
    return character if kind == "M" or character.isalnum() or character == "_" else " "
