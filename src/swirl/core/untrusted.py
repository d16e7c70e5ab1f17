"""What text and JSON from outside may hold and nothing here can: halves of characters, numbers that are none."""

from __future__ import annotations

import math
from typing import NoReturn


def writable(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can name, and no file and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def finite(value: object) -> float | None:
    """A number of JSON as a float; None for anything else, and for NaN, infinity, and integers beyond every float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, as `parse_constant` of a JSON reader. Raises `ValueError`."""
    raise ValueError(f"{name} is no JSON")
