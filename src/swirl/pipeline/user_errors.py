"""Errors that a user can fix, which the command line and the flows say in a sentence, without a traceback."""

from __future__ import annotations

import errno
import os
import re

from swirl.core.errors import SwirlError

_REFUSED = (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT)
"""What a file system says that is read-only, forbidden or full; not a fault of the program."""
_INSIDE = re.compile(r"\(os error (\d+)\)")
"""Where libraries in Rust, as safetensors, say the number in an error of their own."""


def sentence(error: Exception) -> str:
    """What is said of a `SwirlError`, or of a file system that takes no file; empty for a fault of the program."""
    if isinstance(error, SwirlError):
        return str(error)
    inside = None if isinstance(error, OSError) else _INSIDE.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(inside[1]) if inside else None
    if number not in _REFUSED:
        return ""
    what = "" if number == errno.EACCES else " cannot be written"
    return f"{getattr(error, 'filename', None) or 'a file'}{what}: {os.strerror(number)}"
