"""Messages of Chat Completions and of Anthropic's Messages, which differ in blocks and names alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swirl.agent_logs import inline_thoughts, marks
from swirl.agent_logs.arguments import Schemas, read_arguments, unglued
from swirl.agent_logs.conversation import Call, Message, Role
from swirl.agent_logs.exchanges import Change, Fault, NoAction, Turn
from swirl.core.endings import cut_short

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
_OF_TEXT = frozenset({"text", "cache_control", "annotations", "citations", "id", "index"})
"""The keys of a part that is a text, but for its type."""
_ENDS = ("finish_reason", "stop_reason", "done_reason", "stopReason")
_METADATA = ("response_metadata", "generation_info")
"""Where LangChain says why a message ended."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


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
        turns: list[list[Turn]] = []
        for number, one in enumerate(raw, 1):
            for turn in self.read(one, number):
                if turn.id and turns and turns[-1][0].id == turn.id and turn.message.role is Role.ASSISTANT:
                    turns[-1].append(turn)
                else:
                    turns.append([turn])
        return [joined(pieces) for pieces in turns]

    def read(self, raw: Any, number: int) -> list[Turn]:
        """The turns of one message: one, or one for each result in it and one for its text."""
        name = (raw.get("role") or raw.get("type")) if isinstance(raw, Mapping) else None
        role = _ROLES.get(str(name))
        if role is None or not isinstance(raw, Mapping):
            return [Turn(Message(Role.USER, ""), number, fault=Fault.ROLE)]
        if not raw.get("content") and isinstance(refusal := raw.get("refusal"), str) and refusal:
            raw = {**raw, "content": refusal}
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
        text = "".join(content.texts)
        if thought:
            changes.append(Change.THOUGHT)
        if inline := inline_thoughts.split(text):
            text = inline[1]
            thought = "\n".join(dict.fromkeys(filter(None, (thought.strip(), inline[0]))))
            changes.append(Change.INLINE)
        if withheld:
            changes.append(Change.WITHHELD)
        calls = self._calls(raw, content, changes)
        message = Message(
            Role.ASSISTANT,
            text,
            thought,
            withheld,
            tuple(calls),
            name=str(raw.get("name") or ""),
            model=_model(raw) or self.model,
        )
        turn = Turn(message, number, changes, id=str(raw.get("id") or ""))
        judge_assistant(turn, why_ended(raw), raw.get("weight"), bool(raw.get("isApiErrorMessage")))
        return turn

    def _calls(self, raw: Mapping[str, Any], content: _Content, changes: list[Change]) -> list[Call]:
        calls = [self._call(one, False, changes) for one in _given_calls(raw)]
        if isinstance(old := raw.get("function_call"), Mapping):
            changes.append(Change.FUNCTION_CALL)
            calls.append(self._call(old, False, changes))
        known = _Calls(calls)
        for block in content.calls:
            found: list[Change] = []
            call = self._call(block, self.blocks, found)
            if known.has_id(call) if call.id else known.has(call):
                changes.append(Change.TWICE)
            else:
                changes.extend(found)
                calls.append(call)
                known.add(call)
        return calls

    def _call(self, raw: Mapping[str, Any], native: bool, changes: list[Change]) -> Call:
        inner = raw.get("function")
        function = inner if isinstance(inner, Mapping) else raw
        name = str(function.get("name") or "")
        given = next((function[key] for key in ("arguments", "args", "input") if key in function), None)
        if given == {} and "args" in function:
            native = True
        return Call(name, read_arguments(given, self.schemas.get(name), native, changes), str(raw.get("id") or ""))


def why_ended(*places: Mapping[str, Any]) -> Any:
    """The log's reason why an answer ended, in the first of these places that has one; None where none has."""
    inner = [place[name] for place in places for name in _METADATA if isinstance(place.get(name), Mapping)]
    return next((place[key] for place in (*places, *inner) for key in _ENDS if place.get(key)), None)


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
    elif cut_short(ended):
        turn.no_action = NoAction.LENGTH
    elif any(marks.masked(text) for text in said):
        turn.no_action = NoAction.MASKED
    elif not message.text.strip() and not message.calls and turn.fault is None:
        turn.fault = Fault.EMPTY


def joined(pieces: Sequence[Turn]) -> Turn:
    """The pieces of one turn as one; a piece that begins with all the text before it stands for that as well."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    text, calls, known = "", list[Call](), _Calls()
    for piece in pieces:
        said = piece.message
        text = said.text if text and said.text.startswith(text) else text + said.text
        new = [call for call in said.calls if not known.has(call)]
        calls += new
        for call in new:
            known.add(call)
    message = Message(
        Role.ASSISTANT,
        text,
        next((piece.message.thought for piece in pieces if piece.message.thought), ""),
        any(piece.message.withheld for piece in pieces),
        tuple(calls),
        model=next((piece.message.model for piece in pieces if piece.message.model), ""),
    )
    changes = [change for piece in pieces for change in piece.changes if change is not Change.JOINED]
    whole = Turn(message, first.number, [*changes, Change.JOINED], id=first.id)
    whole.fault = next((piece.fault for piece in pieces if piece.fault not in (None, Fault.EMPTY)), None)
    judge_assistant(whole, "length" if any(piece.no_action is NoAction.LENGTH for piece in pieces) else None)
    whole.finished = any(piece.finished for piece in pieces)
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
        elif kind in _TEXTS or (kind is None and _is_text(part)):
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


def _is_text(part: Mapping[str, Any]) -> bool:
    """Whether a part without a type is a text, and no object of a tool's that has one among others."""
    return isinstance(part.get("text"), str) and {key for key, value in part.items() if value is not None} <= _OF_TEXT


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


class _Calls:
    """Calls that are known, so that one that is logged again is found at once.

    Two that have ids are the same by id and name, others by name and arguments.
    """

    def __init__(self, calls: Iterable[Call] = ()) -> None:
        self._ids: set[tuple[str, str]] = set()
        self._with_id: set[tuple[object, ...]] = set()
        self._without_id: set[tuple[object, ...]] = set()
        self._unread: list[Call] = []
        """Calls with ids whose arguments were not read yet; where all calls have ids, they never are."""
        for call in calls:
            self.add(call)

    def add(self, call: Call) -> None:
        """Know this call as well."""
        if call.id:
            self._ids.add((call.id, call.name))
            self._unread.append(call)
        else:
            self._without_id.add(_said(call))

    def has_id(self, call: Call) -> bool:
        """Whether a call with the same id is known."""
        return (call.id, call.name) in self._ids

    def has(self, call: Call) -> bool:
        """Whether the call is known."""
        if call.id:
            return self.has_id(call) or (bool(self._without_id) and _said(call) in self._without_id)
        self._with_id.update(map(_said, self._unread))
        self._unread.clear()
        return (said := _said(call)) in self._with_id or said in self._without_id


def _said(call: Call) -> tuple[object, ...]:
    """Name and arguments, flat, without a recursion that a deep value could end; equal where `Call.value` is."""
    value = call.value
    found, left = list[object]([call.name]), list[Any]([call.arguments if value is None else value])
    while left:
        one = left.pop()
        if isinstance(one, dict):
            found.append(("{", *sorted(one)))
            left.extend(one[key] for key in sorted(one))
        elif isinstance(one, list):
            found.append(("[", len(one)))
            left.extend(one)
        else:
            found.append(one)
    return tuple(found)


def _model(raw: Mapping[str, Any]) -> str:
    extra = raw.get("response_metadata")
    return str(raw.get("model") or (extra.get("model_name") if isinstance(extra, Mapping) else "") or "")
