"""Opens tools by name: the calculator, a class of the user's project, or a tool of an MCP server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swirl.core.errors import ParamsError
from swirl.core.own_class import OWN_NAME, make_own
from swirl.core.suggestions import meant
from swirl.core.types import ActionKind
from swirl.tools.actions import ANSWER_TAG
from swirl.tools.base import MAX_TIME_LIMIT_S, Tool

NAMES = "calculator, search, package.module:Class, or mcp:SERVER/TOOL"
"""The forms that a tool's name may have."""

BUILT_IN = {"search": ActionKind.SEARCH, "calculator": ActionKind.CALCULATE}
"""Names of the built-in tools -> the kind of action that calls them."""

MIN_OUTPUT = 20
"""Smallest `output_limit` of a tool, in characters: leaves room for the note that an observation was cut."""

_MCP = re.compile(r"mcp:(?P<server>[A-Za-z0-9_.-]+)/(?P<tool>\S+)", re.ASCII)
_TAG = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


def fault(name: str) -> str:
    """Why nothing can be a tool of this name; empty for one of the forms of `NAMES`. Opens nothing."""
    own = OWN_NAME.fullmatch(name) and not name.startswith("mcp:")
    if name in BUILT_IN or own or _MCP.fullmatch(name):
        return ""
    return f"there is no tool {name!r}; a tool is {NAMES}{meant(name, BUILT_IN)}"


def options_name(name: str) -> str:
    """The key of a tool's options: `mcp:SERVER` for every tool of that server, else the tool's own name."""
    match = _MCP.fullmatch(name)
    return f"mcp:{match['server']}" if match else name


def open_tool(name: str, options: Mapping[str, object], root: Path) -> Tool:
    """The tool of that name, in one of the forms of `NAMES`; not `search`, which needs an index.

    A class is imported with `root` (`tools.folder`) on sys.path and made with `options` as keyword arguments; for
    a tool of an MCP server (`swirl.tools.mcp`), `options` describe the server. Raises `ParamsError` saying what is
    wrong: no such tool, options that it does not take, or a class that is not a tool.
    """
    if name == "calculator":
        from swirl.tools.calculator import Calculator

        if options:
            raise ParamsError(f"the tool calculator takes no options, not {', '.join(map(str, options))}")
        return Calculator()
    if name == "search":
        raise ParamsError("the tool search needs an index: it is opened where the question's benchmark is known")
    if match := _MCP.fullmatch(name):
        from swirl.tools.mcp import open_server

        return open_server(match["server"], options, root).tool(match["tool"])
    if why := fault(name):
        raise ParamsError(why)
    tool: Tool = make_own("tool", name, options, root)
    check(tool, name)
    return tool


def by_kind(tools: Iterable[Tool]) -> dict[str, Tool]:
    """The tools of one question by the kind of action that calls them.

    Raises `ParamsError` when two of them share a tag or a kind, so that they could not be told apart.
    """
    made: dict[str, Tool] = {}
    tags: dict[str, Tool] = {}
    for tool in tools:
        other = made.setdefault(tool.kind, tool)
        if other is not tool:
            raise ParamsError(
                f"two tools of a question have the kind {tool.kind!r}: {_class(other)} and {_class(tool)}"
            )
        other = tags.setdefault(tool.tag, tool)
        if other is not tool:
            raise ParamsError(
                f"two tools of a question are called by the tag {tool.tag!r}: {other.name} and {tool.name}; "
                "a question's tools need tags that differ"
            )
    return made


def check(tool: Tool, name: str) -> None:
    """Raise `ParamsError`, naming class and attribute, unless the user's tool (`name` in params) declares valid ones.

    Its kind must be its own name, or the kind of the built-in tool that it replaces.
    """
    said: Any = tool  # its attributes are not checked yet
    for attribute in ("name", "kind", "tag", "description", "time_limit_s", "output_limit", "run"):
        if not hasattr(said, attribute):
            raise ParamsError(f"tool {name}: {_class(said)} has no {attribute}; swirl.tools.base.Tool says what it is")
    reserved = (ActionKind.ANSWER, ActionKind.MALFORMED, ActionKind.CUT, ActionKind.THINK)
    _expect(name, said, "name", "one word", isinstance(said.name, str) and said.name.split() == [said.name])
    _expect(name, said, "name", f"none of {', '.join(reserved)}", said.name not in reserved)
    kinds = (said.name, *BUILT_IN.values())
    _expect(name, said, "kind", f"its name, {said.name!r}", isinstance(said.kind, str) and said.kind in kinds)
    word = isinstance(said.tag, str) and _TAG.fullmatch(said.tag) is not None
    _expect(name, said, "tag", "a word of a-z, 0-9 and _ that begins with a letter", word)
    _expect(name, said, "tag", f"not {ANSWER_TAG!r}, which ends a trajectory", said.tag != ANSWER_TAG)
    description = said.description
    _expect(name, said, "description", "a sentence", isinstance(description, str) and bool(description.strip()))
    seconds = said.time_limit_s
    timed = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= MAX_TIME_LIMIT_S
    _expect(name, said, "time_limit_s", f"a number of seconds above 0, at most {MAX_TIME_LIMIT_S:g}", timed)
    limit = said.output_limit
    limited = isinstance(limit, int) and not isinstance(limit, bool) and limit >= MIN_OUTPUT
    _expect(name, said, "output_limit", f"a number of characters, at least {MIN_OUTPUT}", limited)
    _expect(name, said, "run", "a method: run(payload: str) -> str", callable(said.run))


def _expect(name: str, tool: Any, attribute: str, what: str, holds: bool) -> None:
    if not holds:
        value = repr(getattr(tool, attribute))[:100]
        raise ParamsError(f"tool {name}: {_class(tool)}.{attribute} is {value}; expected {what}")


def _class(tool: Any) -> str:
    return f"{type(tool).__module__}.{type(tool).__name__}"
