"""Memory of this process that is freed, but kept by the C library's allocator."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    Stages let the allocator keep what is freed (`swirl.pipeline.environment`), which is faster; tensors of ever other
    sizes leave gaps in it, so that a long training holds several times what it needs. Takes some tenths of a second.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
