"""The interface of a tool, and how its calls are bounded. A failed call gives an observation, never an exception."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from swirl.core.errors import ToolError
from swirl.core.types import Observation

MAX_INPUT = 2000
"""Maximum number of characters of a payload; a longer one is answered with an error and does not reach the tool."""

MAX_DESCRIPTION = 1000
"""Maximum number of characters of a tool's description in a prompt; a longer one is cut, with a note."""

MAX_HANGING = 4
"""Calls of one tool that may still run after their time limit; at this number, new calls of it are refused."""

MAX_TIME_LIMIT_S = 1e9
"""Maximum time limit of a tool, in seconds; Python cannot wait much longer."""

_CUT = " ... [cut]"
_hanging: dict[int, int] = {}
"""`id` of a tool -> number of its calls that outlived their limit; they hold the tool, so its id is not reused."""
_hanging_lock = threading.Lock()


class Tool(Protocol):
    """Something that a model can call. Attributes are read only.

    Two further ones serve models with a tool format of their own (`swirl.tools.schemas`): `parameters`, the JSON schema
    of several arguments, whose JSON object is then the payload of a call; and `summary`, a description that says
    nothing of tags.
    """

    @property
    def name(self) -> str:
        """Its name in params and questions."""

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
        """Seconds a call may take; 0 for a tool that limits its calls itself, and so needs no thread."""

    @property
    def output_limit(self) -> int:
        """Maximum number of characters of an observation, at least 20; a longer one is cut, with a note."""

    def run(self, payload: str) -> str:
        """The result of one call. Raises `ToolError`, with a sentence for the model, when there is no result."""


def listed(tools: Iterable[Tool]) -> str:
    """The tools for a prompt, one per line: `<math_exp> ... </math_exp>: evaluates an arithmetic expression`.

    A description may come from anybody, such as an MCP server, so it is put on one line and its length is bounded.
    """
    return "\n".join(f"<{tool.tag}> ... </{tool.tag}>: {one_line(tool.description, MAX_DESCRIPTION)}" for tool in tools)


def one_line(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, its runs of white space as single spaces."""
    return _cut(" ".join(text.split()), limit)


def call(tool: Tool, payload: str) -> Observation:
    """The result of one bounded call, or "error: " and the reason; never raises an `Exception`.

    A tool with a time limit runs in a daemon thread. Python cannot stop a thread: at the limit the call is answered
    with an error, and the thread is left to end by itself, its result discarded. So that such threads do not pile up,
    calls of a tool with `MAX_HANGING` of them are refused, with an error that says so, until one has ended. A thread
    does not protect against a tool that blocks the interpreter or ends the process: code that is not trusted that far
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
        try:
            answer.append(_run(tool, payload))
        except BaseException as error:  # such as CancelledError, which is no `Exception`
            answer.append(_failed(tool, error))
        finally:
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
    """Change the number of the tool's calls that still run after their time limit; the caller holds the lock."""
    _hanging[id(tool)] = _hanging.get(id(tool), 0) + change
    if not _hanging[id(tool)]:
        del _hanging[id(tool)]


def _run(tool: Tool, payload: str) -> Observation:
    """Make the call; a failure becomes an observation."""
    try:
        text = tool.run(payload)
        if not isinstance(text, str):
            raise TypeError(f"run gave {type(text).__name__}, not a str")
        return Observation(_cut(text, tool.output_limit), error=False)
    except ToolError as error:
        return _error(tool, _said(error))
    except (Exception, SystemExit) as error:  # a tool's fault must not end a rollout of many trajectories
        return _failed(tool, error)


def _failed(tool: Tool, error: BaseException) -> Observation:
    return _error(tool, f"{tool.name} failed with {type(error).__name__}: {_said(error)}")


def _said(error: BaseException) -> str:
    """The error's text; foreign code may fail even at that."""
    try:
        return str(error)
    except BaseException:
        return "(it cannot say why)"


def _error(tool: Tool, reason: str) -> Observation:
    return Observation(_cut(f"error: {reason}", tool.output_limit), error=True)


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, all of them writable as UTF-8 (half a surrogate pair becomes "?")."""
    cut = text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
    return cut.encode("utf-8", "replace").decode()
