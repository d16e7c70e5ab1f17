"""When two questions are the same question."""

from __future__ import annotations

import re
import unicodedata


def normalised(text: str) -> str:
    """A question as leakage is looked for: words in lower case, single blanks, no punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
