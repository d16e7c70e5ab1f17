"""Comparison of question texts, to find a question that is in two splits."""

from __future__ import annotations

import re
import unicodedata


def leakage_key(text: str) -> str:
    """A question's words in lower case with single blanks and no punctuation; equal results count as one question."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
