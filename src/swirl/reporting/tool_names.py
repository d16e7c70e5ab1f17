"""The names of tools, as people see them."""

from __future__ import annotations

from swirl.reporting.format import ALL
from swirl.tools.by_name import BUILT_IN

_NAMES = {str(kind): name for name, kind in BUILT_IN.items()}


def tool_name(kind: str) -> str:
    """The name in params of the tool that an action of a kind calls (`calculate`: calculator); else the kind itself.

    Any other tool's name is its kind, and what calls no tool, such as an answer, has none.
    """
    return _NAMES.get(kind, str(kind))


def steps_name(row: str) -> str:
    """What a row of `swirl.reporting.format.rates` is about: `all` steps, those of a task, or of a kind within one."""
    task, _, kind = row.partition(".")
    if task == ALL:
        return task
    return f"task {task}, {tool_name(kind)}" if kind else f"task {task}"
