"""What a tool is, and how one call of it is bounded. A failed call is data: an observation, never an exception."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

from swirl.errors import ToolError

MAX_INPUT = 2000
"""Characters of a payload; a longer one is answered with an error and does not reach the tool."""

_CUT = " ... [cut]"


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
        """What it does, for the prompt."""

    @property
    def time_limit_s(self) -> float:
        """Seconds a call may take; 0 for a tool whose calls are short by construction, which then costs no thread."""

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


def call(tool: Tool, payload: str) -> Observation:
    """One bounded call; never raises an `Exception`.

    A tool with a time limit runs in a daemon thread. Python cannot stop a thread: at the limit the call is answered
    with an error and the thread is left to end by itself, its result thrown away. A tool that may never end should
    therefore run its work in a process of its own and kill that.
    """
    if len(payload) > MAX_INPUT:
        return _error(tool, f"the call is too long: {len(payload)} characters, at most {MAX_INPUT} are read")
    if tool.time_limit_s <= 0:
        return _run(tool, payload)
    answer: list[Observation] = []
    thread = threading.Thread(target=lambda: answer.append(_run(tool, payload)), daemon=True)
    thread.start()
    thread.join(tool.time_limit_s)
    return answer[0] if answer else _error(tool, f"{tool.name} took longer than {tool.time_limit_s:g} s")


def _run(tool: Tool, payload: str) -> Observation:
    """The call itself, its failures as observations."""
    try:
        return Observation(_cut(tool.run(payload), tool.output_limit), error=False)
    except ToolError as error:
        return _error(tool, str(error))
    except Exception as error:  # a tool's fault must not end a rollout of many trajectories
        return _error(tool, f"{tool.name} failed with {type(error).__name__}: {error}")


def _error(tool: Tool, reason: str) -> Observation:
    return Observation(_cut(f"error: {reason}", tool.output_limit), error=True)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
