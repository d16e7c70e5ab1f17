"""A logged conversation as records that know no format: what rendering, judging and training start from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from swirl.core.nesting import TooDeep, loads

NO_OUTPUT = "(no output)"
"""What stands for a result without text, so that results and calls still match."""


class Role(StrEnum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    """The result of one call."""


class StepKind(StrEnum):
    """What an assistant's turn is."""

    CALL = "call"
    CALLS = "calls"
    """Several calls at once: one action with several observations."""
    ANSWER = "answer"
    """Text without a call, after which nothing follows."""
    TEXT = "text"
    """Text without a call, after which the conversation goes on."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: str
    """JSON text, as the model wrote it where the log has that; it may be no JSON, which is the model's fault."""
    id: str = ""
    """As logged; ids may come again in later turns."""

    @property
    def value(self) -> dict[str, Any] | None:
        """The arguments by name; None where they are no JSON object, so that the call is a bad one."""
        try:
            value = loads(self.arguments)
        except (ValueError, TooDeep):
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Message:
    """One message. The results of a turn's calls follow it in the order of the calls, one message each."""

    role: Role
    text: str
    thought: str = ""
    """What the model thought before it, where that was logged."""
    withheld: bool = False
    """Whether there was a thought that the provider did not give in clear."""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    """Of a result: the id of its call."""
    error: bool = False
    """Of a result: whether the log says that the call failed."""
    name: str = ""
    model: str = ""
    """Of an assistant's turn: the model that wrote it, where that was logged."""


@dataclass(frozen=True, slots=True)
class LoggedTool:
    """A tool that the model was offered."""

    name: str
    description: str
    parameters: str
    """Its JSON schema as JSON text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the logs. Lines and turns count from 1; `turn` is 0 where a whole line is meant."""

    file: str
    line: int
    turn: int = 0

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" + (f", turn {self.turn}" if self.turn else "")


@dataclass(frozen=True, slots=True)
class LoggedConversation:
    """One trajectory of the logs: a path through the requests, up to its last action."""

    id: str
    """The same whenever the same files are read."""
    session: str
    """Empty where none was logged."""
    question: str
    """The first real user turn; empty where there is none."""
    answers: tuple[str, ...]
    """Golden labels, where the log has some."""
    tools: tuple[LoggedTool, ...]
    messages: tuple[Message, ...]
    actions: tuple[int, ...]
    """Which messages are actions, each on the state of all messages before it; others of the assistant are state only.

    An action that several trajectories share is one of the first of them alone.
    """
    places: tuple[Place, ...]
    """Where each message was read."""

    def kind(self, index: int) -> StepKind:
        """What the assistant's message at `index` is."""
        calls = len(self.messages[index].calls)
        if calls:
            return StepKind.CALL if calls == 1 else StepKind.CALLS
        return StepKind.ANSWER if index == len(self.messages) - 1 else StepKind.TEXT

    def bad(self, index: int) -> bool:
        """Whether the action at `index` calls an unknown tool, or with arguments that are no JSON object."""
        known = {tool.name for tool in self.tools}
        return any(call.value is None or call.name not in known for call in self.messages[index].calls)
