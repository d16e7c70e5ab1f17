"""What a tool is, and how one call of it is bounded. A failed call is data: an observation, never an exception."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from swirl.core.errors import ToolError

MAX_INPUT = 2000
"""Characters of a payload; a longer one is answered with an error and does not reach the tool."""

MAX_DESCRIPTION = 1000
"""Characters of a tool's description in a prompt; what is longer is cut with a note."""

MAX_HANGING = 4
"""Calls of one tool that may be left behind at their time limit; until one of them ends, the tool is refused."""

_CUT = " ... [cut]"
_hanging: dict[int, int] = {}
"""Calls left behind by tool (its `id`, which no other tool gets while they hold it)."""
_hanging_lock = threading.Lock()


class Tool(Protocol):
    """Something that a model can call from one tag. Attributes are read only."""

    @property
    def name(self) -> str:
        """How params and questions call it."""

    @property
    def kind(self) -> str:
        """The kind of the actions that call it: an `ActionKind` value or the tool's own name."""

    @property
    def tag(self) -> str:
        """The tag around a call, without brackets."""

    @property
    def description(self) -> str:
        """What it does and what to write into a call, for the `{tools}` of a prompt."""

    @property
    def time_limit_s(self) -> float:
        """Seconds a call may take; 0 for a tool that bounds its calls by itself, which then costs no thread."""

    @property
    def output_limit(self) -> int:
        """Characters of an observation, at least 20; what is longer is cut with a note."""

    def run(self, payload: str) -> str:
        """The result of one call. Raises `ToolError` with a sentence for the model when there is none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What came back from a call. With `error`, `text` is "error: " and the reason."""

    text: str
    error: bool


def listed(tools: Iterable[Tool]) -> str:
    """The tools for a prompt, a line each: `<math_exp> ... </math_exp>: evaluates an arithmetic expression`.

    A description is written by whoever made the tool, an MCP server for one: it gets one line, and its length is
    bounded.
    """
    return "\n".join(f"<{tool.tag}> ... </{tool.tag}>: {one_line(tool.description, MAX_DESCRIPTION)}" for tool in tools)


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, its runs of white space as single spaces."""
    return _cut(" ".join(text.split()), limit)


def call(tool: Tool, payload: str) -> Observation:
    """One bounded call; never raises an `Exception`.

    A tool with a time limit runs in a daemon thread. Python cannot stop a thread: at the limit the call is answered
    with an error and the thread is left to end by itself, its result thrown away. So that such threads do not pile up,
    a tool with `MAX_HANGING` of them is refused, with an error that says so, until one has ended. No thread helps
    against a tool that keeps the interpreter to itself, or that ends the process: work that is not trusted that far
    belongs in a process of its own, such as an MCP server (`swirl.tools.mcp`).
    """
    if len(payload) > MAX_INPUT:
        return _error(tool, f"the call is too long: {len(payload)} characters, at most {MAX_INPUT} are read")
    if tool.time_limit_s <= 0:
        return _run(tool, payload)
    if _hanging.get(id(tool), 0) >= MAX_HANGING:
        return _error(tool, f"{tool.name} is not called: {MAX_HANGING} earlier calls of it took too long and still run")
    answer: list[Observation] = []
    ended = threading.Event()
    left_behind: list[bool] = []

    def work() -> None:
        answer.append(_run(tool, payload))
        with _hanging_lock:
            ended.set()
            if left_behind:
                _count(tool, -1)

    threading.Thread(target=work, daemon=True).start()
    if not ended.wait(tool.time_limit_s):
        with _hanging_lock:
            if not ended.is_set():
                left_behind.append(True)
                _count(tool, 1)
                return _error(tool, f"{tool.name} took longer than {tool.time_limit_s:g} s")
    return answer[0]


def _count(tool: Tool, change: int) -> None:
    """Change the number of the tool's calls that were left behind; the lock is held."""
    _hanging[id(tool)] = _hanging.get(id(tool), 0) + change
    if not _hanging[id(tool)]:
        del _hanging[id(tool)]


def _run(tool: Tool, payload: str) -> Observation:
    """The call itself, its failures as observations."""
    try:
        text = tool.run(payload)
        if not isinstance(text, str):
            raise TypeError(f"run gave {type(text).__name__}, not a str")
        return Observation(_cut(text, tool.output_limit), error=False)
    except ToolError as error:
        return _error(tool, str(error))
    except (Exception, SystemExit) as error:  # a tool's fault must not end a rollout of many trajectories
        return _error(tool, f"{tool.name} failed with {type(error).__name__}: {error}")


def _error(tool: Tool, reason: str) -> Observation:
    return Observation(_cut(f"error: {reason}", tool.output_limit), error=True)


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, all of them writable as UTF-8 (half a surrogate pair becomes "?")."""
    cut = text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
    return cut.encode("utf-8", "replace").decode()
