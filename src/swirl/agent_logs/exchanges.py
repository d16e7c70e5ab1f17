"""What the readers of the formats hand over: requests with what came back, and what was met on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from swirl.agent_logs.conversation import Call, LoggedTool, Message


class Change(StrEnum):
    """What is used after a change, which is counted."""

    OBJECT = "arguments given as an object: written as JSON text"
    EMPTY = "empty arguments: read as {}"
    DECODED = "arguments encoded twice: decoded where the schema wants an object"
    SPLIT = "arguments of several calls glued together: split by their results"
    NULL_KEYS = "null keys that the tool's schema does not know: dropped"
    NULL = "null content: read as empty"
    PARTS = "content in parts: joined"
    DEVELOPER = "role developer: read as system"
    FUNCTION = "role function: read as tool"
    FUNCTION_CALL = "function_call: read as a tool call"
    THOUGHT = "a thought in a field of its own format: moved to one field"
    INLINE = "a thought in the text: moved to one field"
    WITHHELD = "a thought that was withheld: flagged"
    ORDER = "results in another order: put into that of their calls"
    NO_ID = "results without a call id: paired by order"
    TWICE = "a call logged as a block and in tool_calls: read once"
    JOINED = "a turn on several lines: joined by its message id"
    CHAINED = "only new items logged: joined to those of previous_response_id"
    SEGMENT = "a history sent otherwise (summary, trimming, other system turn or tools): a new segment"
    TOOLS_GIVEN = "tools not logged: those given are used"
    TOOLS_SEEN = "tools not logged: known by their calls alone"
    NO_OUTPUT = "a result without text: shown as (no output)"
    AGAIN = "an action logged again on the same state: read once"


class Fault(StrEnum):
    """Why a conversation is cut at a turn: nothing from there on is used, what came before is."""

    ORPHAN = "a result without its call"
    UNANSWERED = "a call without a result, before this turn"
    UNPAIRED = "results without a call id, not as many as calls"
    GLUED = "arguments of several calls glued together, which no results tell apart"
    PART = "content that is no text"
    ROLE = "a role that is not known"
    ITEM = "an item that is not known"
    EMPTY = "an empty answer"
    LOGGER = "cut by the logger"
    WITHHELD = "a thought that was withheld, where thoughts are kept"
    CHAIN = "previous_response_id names a response that was not logged"


class NoAction(StrEnum):
    """Why an assistant's turn is state, but no action; what follows it is used."""

    EXAMPLE = "an example in the prompt"
    WEIGHT = "weight 0"
    CLIENT = "an error text of the client"
    MASKED = "masked values in an action"
    LENGTH = "cut at its length limit"
    ECHO = "seen only in a later request's history, its own request was not logged"
    MODEL = "written by another model than asked for"


class LineFault(StrEnum):
    """Why a whole line is left out."""

    NO_JSON = "no JSON"
    NO_TEXT = "not UTF-8"
    DEEP = "nested too deeply"
    SHAPE = "no format that is known"
    TYPES = "a format that is known, with values of other types"
    NO_RESPONSE = "a request without a response"
    JUDGE = "a trace of a judge, not of the agent"
    NO_CHAT = "a trace without a request to a chat model"
    NATIVE = "a trace of an own run in a model's own tool format"


@dataclass(slots=True)
class Turn:
    """A message as it was read."""

    message: Message
    number: int
    """Its position in the logged list, from 1; several results of one logged message share it."""
    changes: list[Change] = field(default_factory=list)
    fault: Fault | None = None
    no_action: NoAction | None = None
    glued: tuple[Call, ...] = ()
    """The calls, where the arguments of one are several objects in a row; results must tell whether they are."""
    id: str = ""
    finished: bool = False
    """Whether the log gives a reason why it ended."""


@dataclass(slots=True)
class Exchange:
    """One request and what came back, or one whole conversation."""

    history: list[Turn]
    responses: list[Turn]
    """The answers to `history`; none for a whole conversation."""
    whole: bool
    """Whether it is a conversation that was logged at once: the assistant's turns in `history` are actions."""
    tools: tuple[LoggedTool, ...] | None
    """None: not logged."""
    session: str = ""
    previous: str = ""
    """Id of the response whose conversation `history` goes on."""
    answers: tuple[str, ...] = ()
    nulls: bool = False
    """Whether null keys were dropped from the schemas of `tools`."""


class LineLeftOut(Exception):
    """A line that holds nothing to learn from; `reason` says why."""

    def __init__(self, reason: LineFault) -> None:
        super().__init__(str(reason))
        self.reason = reason
