"""The tools that a model can call, and how one call is bounded (`swirl.tools.base`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swirl.tools.calculator import Calculator
    from swirl.tools.search import Search

__all__ = ["Calculator", "Search"]

_HOMES = {"Calculator": "swirl.tools.calculator", "Search": "swirl.tools.search"}


def __getattr__(name: str) -> object:
    """Import `Calculator` and `Search` when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
