"""Items of OpenAI's Responses: messages, calls, results and thoughts in one flat list."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swirl.agent_logs import marks
from swirl.agent_logs.arguments import Schemas, read_arguments
from swirl.agent_logs.chat_messages import MessageReader, judge_assistant
from swirl.agent_logs.conversation import Call, Message, Role
from swirl.agent_logs.exchanges import Change, Fault, Turn


@dataclass(slots=True)
class _Open:
    """The assistant's turn that is being put together."""

    number: int
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    """Thoughts in the texts."""
    withheld: bool = False
    calls: list[Call] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    fault: Fault | None = None
    cut: bool = False
    """Whether an item of it is not whole."""
    marked: Turn | None = None
    """A message among them that is no action for a reason of its own."""


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Reads the items of one request or response."""

    schemas: Schemas
    model: str = ""

    def read_input(self, given: Any, instructions: Any = None) -> list[Turn]:
        """The turns of a request: a system turn of its instructions, then those of its items (or its one text)."""
        turns = []
        if isinstance(instructions, str) and instructions:
            turns.append(Turn(Message(Role.SYSTEM, instructions), 0))
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return turns + self.read_all(items if isinstance(items, list) else [])

    def read_output(self, items: list[Any], number: int, ended: Any) -> Turn:
        """The one turn of a response, as turn `number`. `ended`: the log's reason why it ended."""
        turns = self.read_all(items)
        turn = turns[0] if turns else Turn(Message(Role.ASSISTANT, "", model=self.model), number, fault=Fault.EMPTY)
        if len(turns) > 1 or turn.message.role is not Role.ASSISTANT:
            turn = dataclasses.replace(turn, fault=Fault.ITEM)
        turn.number = number
        judge_assistant(turn, ended)
        return turn

    def read_all(self, items: list[Any]) -> list[Turn]:
        """The turns of a list of items; what the assistant says and calls in a row is one turn."""
        turns: list[Turn] = []
        current: _Open | None = None
        for number, item in enumerate(items, 1):
            kind = _kind(item)
            if kind in ("function_call", "reasoning", "assistant"):
                current = current or _Open(number)
                self._add(current, item, kind, number)
                continue
            if current:
                turns.append(self._closed(current))
                current = None
            turns.extend(self._other(item, kind, number))
        return [*turns, self._closed(current)] if current else turns

    def _add(self, turn: _Open, item: Mapping[str, Any], kind: str, number: int) -> None:
        turn.cut |= item.get("status") == "incomplete"
        if kind == "function_call":
            name = str(item.get("name") or "")
            text = read_arguments(item.get("arguments"), self.schemas.get(name), False, turn.changes)
            turn.calls.append(Call(name, text, str(item.get("call_id") or item.get("id") or "")))
            if marks.cut_by_logger(text):
                turn.fault = Fault.LOGGER
        elif kind == "reasoning":
            parts = [*(item.get("summary") or []), *(item.get("content") or [])]
            found = [str(part.get("text") or "") for part in parts if isinstance(part, Mapping)]
            turn.thoughts += [text for text in found if text]
            turn.withheld |= not any(found)
        else:
            reader = MessageReader(self.schemas, blocks=True, model=self.model)
            said = reader.read({**item, "role": "assistant"}, number)[-1]
            turn.texts.append(said.message.text)
            turn.inline += [said.message.thought] if Change.INLINE in said.changes else []
            turn.fault = turn.fault or (said.fault if said.fault is not Fault.EMPTY else None)
            turn.marked = said if said.no_action else turn.marked

    def _closed(self, parts: _Open) -> Turn:
        thought = "\n".join(filter(None, [*parts.thoughts, *parts.inline]))
        changes = [
            *parts.changes,
            *([Change.THOUGHT] if parts.thoughts else []),
            *([Change.INLINE] if parts.inline else []),
            *([Change.WITHHELD] if parts.withheld else []),
        ]
        if len(parts.texts) > 1:
            changes.append(Change.PARTS)
        message = Message(
            Role.ASSISTANT, "".join(parts.texts), thought, parts.withheld, tuple(parts.calls), model=self.model
        )
        turn = Turn(message, parts.number, changes, parts.fault)
        judge_assistant(turn, "incomplete" if parts.cut else None)
        if parts.marked and turn.no_action is None:
            turn.no_action = parts.marked.no_action
        return turn

    def _other(self, item: Any, kind: str, number: int) -> list[Turn]:
        if kind == "function_call_output":
            read = MessageReader(self.schemas, blocks=True).read(
                {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")}, number
            )
            return [
                dataclasses.replace(turn, changes=[c for c in turn.changes if c is not Change.NULL]) for turn in read
            ]
        if kind == "message":
            return MessageReader(self.schemas, blocks=True, model=self.model).read(item, number)
        return [Turn(Message(Role.USER, ""), number, fault=Fault.ITEM)]


def _kind(item: Any) -> str:
    """The item's type; `assistant` for a message of the assistant."""
    if not isinstance(item, Mapping):
        return ""
    if item.get("type") in (None, "message") and item.get("role"):
        return "assistant" if item["role"] == "assistant" else "message"
    return str(item.get("type"))
