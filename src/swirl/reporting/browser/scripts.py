"""Data as scripts: a page opened from disk may load scripts beside it, but fetch nothing."""

from __future__ import annotations

import json
from typing import Any

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "<": "\\x3c"})


def encoded(value: Any) -> str:
    """`value` as JSON in ASCII: U+2028 and lone surrogates are escaped. Raises `ValueError` for NaN and infinity."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def script(function: str, *values: str) -> str:
    """A script that calls `function` with each of `values`, JSON that `encoded` made, as text for it to parse.

    Each is one string literal without `<`: whatever is in it, nothing of it is run or ends the script.
    """
    literals = ",".join(f"'{value.translate(_ESCAPES)}'" for value in values)
    return f"{function}({literals});\n"
