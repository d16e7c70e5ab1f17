"""What a user who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(name: object, known: Iterable[str]) -> str:
    """`; did you mean X?`, to be appended to an error message, where a known name is close; else empty."""
    known = list(known)
    longer = [one for one in known if name and one.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), known, 1)
    return f"; did you mean {close[0]}?" if close else ""
