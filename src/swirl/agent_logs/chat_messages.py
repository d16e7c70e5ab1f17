"""Messages of Chat Completions and of Anthropic's Messages, which differ in blocks and names alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swirl.agent_logs import marks
from swirl.agent_logs.arguments import Schemas, read_arguments, unglued
from swirl.agent_logs.conversation import Call, Message, Role
from swirl.agent_logs.exchanges import Change, Fault, NoAction, Turn

_ROLES = {
    **{role.value: role for role in Role},
    **{
        "developer": Role.SYSTEM,
        "function": Role.TOOL,
        "human": Role.USER,
        "ai": Role.ASSISTANT,
        "model": Role.ASSISTANT,
    },
}
_RENAMED = {"developer": Change.DEVELOPER, "function": Change.FUNCTION}
_TEXTS = ("text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_CUT_SHORT = ("length", "max_tokens", "max_output_tokens", "incomplete")


@dataclass(slots=True)
class _Content:
    """A message's content, taken apart."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    withheld: bool = False
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    results: list[Mapping[str, Any]] = field(default_factory=list)
    strange: bool = False
    """Whether a part is no text, as an image."""


@dataclass(frozen=True, slots=True)
class MessageReader:
    """Reads the messages of one request."""

    schemas: Schemas
    blocks: bool
    """Whether the format itself gives content in blocks and arguments as objects (Anthropic)."""
    model: str = ""
    """The model that wrote the assistant's turns that name none."""

    def read_all(self, raw: Iterable[Any]) -> list[Turn]:
        """The turns of a list of messages; lines of one turn that share a message id are joined."""
        turns: list[Turn] = []
        for number, one in enumerate(raw, 1):
            for turn in self.read(one, number):
                if turn.id and turns and turns[-1].id == turn.id and turn.message.role is Role.ASSISTANT:
                    turns[-1] = joined(turns[-1], turn)
                else:
                    turns.append(turn)
        return turns

    def read(self, raw: Any, number: int) -> list[Turn]:
        """The turns of one message: one, or one for each result in it and one for its text."""
        name = (raw.get("role") or raw.get("type")) if isinstance(raw, Mapping) else None
        role = _ROLES.get(str(name))
        if role is None or not isinstance(raw, Mapping):
            return [Turn(Message(Role.USER, ""), number, fault=Fault.ROLE)]
        content = _content(raw.get("content"))
        turns = [self._result(one, number) for one in content.results]
        if content.results and not (content.texts or content.calls or content.strange):
            return turns
        turn = self._turn(raw, role, content, number)
        if str(name) in _RENAMED:
            turn.changes.append(_RENAMED[str(name)])
        return [*turns, turn]

    def _turn(self, raw: Mapping[str, Any], role: Role, content: _Content, number: int) -> Turn:
        changes = self._changes(raw.get("content"), content)
        if role is Role.ASSISTANT:
            turn = self._assistant(raw, content, number, changes)
        else:
            call_id = str(raw.get("tool_call_id") or "") if role is Role.TOOL else ""
            failed = role is Role.TOOL and (bool(raw.get("is_error")) or raw.get("status") == "error")
            text, called = "".join(content.texts), str(raw.get("name") or "")
            turn = Turn(Message(role, text, call_id=call_id, error=failed, name=called), number, changes)
            if called.startswith("example"):
                turn.no_action = NoAction.EXAMPLE
        if content.strange:
            turn.fault = Fault.PART
        elif marks.cut_by_logger(turn.message.text) or any(
            marks.cut_by_logger(call.arguments) for call in turn.message.calls
        ):
            turn.fault = Fault.LOGGER
        return turn

    def _changes(self, given: Any, content: _Content) -> list[Change]:
        """What is done to the content to make it one text."""
        if given is None:
            return [Change.NULL]
        if isinstance(given, list) and (not self.blocks or len(content.texts) > 1):
            return [Change.PARTS]
        return []

    def _result(self, raw: Mapping[str, Any], number: int) -> Turn:
        """The turn of one block `tool_result`."""
        content = _content(raw.get("content"))
        text, call_id = "".join(content.texts), str(raw.get("tool_use_id") or "")
        turn = Turn(Message(Role.TOOL, text, call_id=call_id, error=bool(raw.get("is_error"))), number)
        if raw.get("content") is not None:
            turn.changes = self._changes(raw.get("content"), content)
        if content.strange:
            turn.fault = Fault.PART
        elif marks.cut_by_logger(text):
            turn.fault = Fault.LOGGER
        return turn

    def _assistant(self, raw: Mapping[str, Any], content: _Content, number: int, changes: list[Change]) -> Turn:
        thought, withheld = _thought(raw, content)
        if thought:
            changes.append(Change.THOUGHT)
        if withheld:
            changes.append(Change.WITHHELD)
        calls = self._calls(raw, content, changes)
        message = Message(
            Role.ASSISTANT,
            "".join(content.texts),
            thought,
            withheld,
            tuple(calls),
            name=str(raw.get("name") or ""),
            model=_model(raw) or self.model,
        )
        turn = Turn(message, number, changes, id=str(raw.get("id") or ""))
        ended = raw.get("finish_reason") or raw.get("stop_reason")
        judge_assistant(turn, ended, raw.get("weight"), bool(raw.get("isApiErrorMessage")))
        return turn

    def _calls(self, raw: Mapping[str, Any], content: _Content, changes: list[Change]) -> list[Call]:
        calls = [self._call(one, False, changes) for one in _given_calls(raw)]
        if isinstance(old := raw.get("function_call"), Mapping):
            changes.append(Change.FUNCTION_CALL)
            calls.append(self._call(old, False, changes))
        for block in content.calls:
            found: list[Change] = []
            call = self._call(block, self.blocks, found)
            if any(_same(call, other) for other in calls if other.id or not call.id):
                changes.append(Change.TWICE)
            else:
                changes.extend(found)
                calls.append(call)
        return calls

    def _call(self, raw: Mapping[str, Any], native: bool, changes: list[Change]) -> Call:
        inner = raw.get("function")
        function = inner if isinstance(inner, Mapping) else raw
        name = str(function.get("name") or "")
        given = next((function[key] for key in ("arguments", "args", "input") if key in function), None)
        if given == {} and "args" in function:
            native = True
        return Call(name, read_arguments(given, self.schemas.get(name), native, changes), str(raw.get("id") or ""))


def judge_assistant(turn: Turn, ended: Any = None, weight: Any = None, failed: bool = False) -> None:
    """Note at an assistant's turn why it is no action, or nothing at all. `ended`: the log's reason why it ended."""
    message = turn.message
    turn.finished = turn.finished or bool(ended)
    turn.glued = tuple(one for call in message.calls for one in (unglued(call) or (call,)))
    if len(turn.glued) == len(message.calls):
        turn.glued = ()
    said = (message.text, *(call.arguments for call in message.calls))
    if weight == 0:
        turn.no_action = NoAction.WEIGHT
    elif message.name.startswith("example"):
        turn.no_action = NoAction.EXAMPLE
    elif failed or message.model == "<synthetic>" or (not message.calls and marks.client_error(message.text)):
        turn.no_action = NoAction.CLIENT
    elif str(ended) in _CUT_SHORT:
        turn.no_action = NoAction.LENGTH
    elif any(marks.masked(text) for text in said):
        turn.no_action = NoAction.MASKED
    elif not message.text.strip() and not message.calls and turn.fault is None:
        turn.fault = Fault.EMPTY


def joined(first: Turn, second: Turn) -> Turn:
    """Two pieces of one turn as one; a piece that goes on where the first began stands for both."""
    one, two = first.message, second.message
    calls = [*one.calls, *(call for call in two.calls if not any(_same(call, other) for other in one.calls))]
    message = Message(
        Role.ASSISTANT,
        two.text if one.text and two.text.startswith(one.text) else one.text + two.text,
        one.thought or two.thought,
        one.withheld or two.withheld,
        tuple(calls),
        model=one.model or two.model,
    )
    changes = [change for change in (*first.changes, *second.changes) if change is not Change.JOINED]
    whole = Turn(message, first.number, [*changes, Change.JOINED], id=first.id)
    faults = [turn.fault for turn in (first, second) if turn.fault not in (None, Fault.EMPTY)]
    whole.fault = faults[0] if faults else None
    judge_assistant(whole, "length" if NoAction.LENGTH in (first.no_action, second.no_action) else None)
    whole.finished = first.finished or second.finished
    return whole


def _content(given: Any) -> _Content:
    """A content of text, null or parts, taken apart."""
    content = _Content()
    for part in given if isinstance(given, list) else [] if given is None else [given]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            content.texts.append(part)
        elif not isinstance(part, Mapping):
            content.strange = True
        elif kind in _TEXTS or (kind is None and isinstance(part.get("text"), str)):
            content.texts.append(str(part.get("text") or part.get("refusal") or ""))
        elif kind in ("thinking", "reasoning"):
            content.thoughts.append(str(part.get("thinking") or part.get("reasoning") or part.get("text") or ""))
            content.withheld |= not content.thoughts[-1]
        elif kind == "redacted_thinking":
            content.withheld = True
        elif kind == "tool_use":
            content.calls.append(part)
        elif kind == "tool_result":
            content.results.append(part)
        else:
            content.strange = True
    return content


def _thought(raw: Mapping[str, Any], content: _Content) -> tuple[str, bool]:
    """What was thought, and whether some of it was withheld."""
    extra = raw.get("additional_kwargs")
    places = (raw, extra if isinstance(extra, Mapping) else {})
    found = [place[key] for place in places for key in _THOUGHTS if isinstance(place.get(key), str) and place[key]]
    thought = found[0] if found else "\n".join(one for one in content.thoughts if one)
    details = raw.get("reasoning_details")
    hidden = [one for one in details or () if isinstance(one, Mapping) and "encrypted" in str(one.get("type"))]
    return thought, content.withheld or (bool(hidden) and not thought)


def _given_calls(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of `tool_calls`, those among them that LangChain could not parse included."""
    both = [raw.get("tool_calls"), raw.get("invalid_tool_calls")]
    return [one for calls in both if isinstance(calls, list) for one in calls if isinstance(one, Mapping)]


def _same(one: Call, other: Call) -> bool:
    """Whether two calls are one that was logged twice."""
    if one.id and other.id:
        return one.id == other.id and one.name == other.name
    return (
        one.name == other.name
        and (one.value, one.arguments)[one.value is None] == ((other.value, other.arguments)[one.value is None])
    )


def _model(raw: Mapping[str, Any]) -> str:
    extra = raw.get("response_metadata")
    return str(raw.get("model") or (extra.get("model_name") if isinstance(extra, Mapping) else "") or "")
