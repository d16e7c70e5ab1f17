"""A logged conversation in a model's own format: rendered by its chat template, with the tools that the log offers.

Each turn of the assistant is a reply to the state that the template writes of what was before it. What a log says is
foreign text: names of special tokens in it are marked before it is rendered, and become plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swirl.agent_logs.conversation import Call, LoggedConversation, LoggedTool, Message, Role
from swirl.agent_logs.shared_states import SharedStates, shared_states
from swirl.agent_logs.written_turns import WrittenTurn, cuts_of
from swirl.core.errors import ModelError
from swirl.core.nesting import depth
from swirl.core.untrusted import no_constant, writable
from swirl.models.native_chat import NativeChat
from swirl.models.tool_template import Messages
from swirl.tools.base import one_line

_FIX = "use actions.format: tags"
_QUOTED = re.compile(r"zqSPECIAL(\d+)zq")
"""Stands for the name of a special token in foreign text, or for the beginning of a marker in it."""
_MARKERS = ("zqSPECIAL", "zqRAW")
_RAW = re.compile(r'\{\s*"zqRAW(\d+)zq"\s*:\s*""\s*\}')
"""Stands for arguments that are no JSON object."""
_WORD = re.compile(r"\S+")
DEEPEST = 100
"""Objects and lists in one another; arguments that go deeper are written as the log has them."""
_KEY = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)
"""Ids that every template takes; they need not be the log's."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn of the assistant as text in which names of special tokens are marked."""

    message: int
    before: str
    """What the model reads before it: what was added since the turn before, or all of it."""
    anew: bool
    """Whether it is all of it, since it does not begin with what was read before."""
    reply: str


class NativeRenderer:
    """Renders conversations with one chat template, and makes sure that nothing of them is lost."""

    def __init__(self, chat: NativeChat) -> None:
        self._chat = chat
        foreign = [*_MARKERS, *(name for name in chat.special_names if len(name) > 1)]
        names = sorted(foreign, key=len, reverse=True)
        self._names = {name: number for number, name in enumerate(names)}
        self._special = re.compile("|".join(map(re.escape, names)))
        self._listed = list(names)
        self._tools: tuple[tuple[LoggedTool, ...], list[dict[str, Any]]] = ((), [])
        self._system_told: bool | None = None

    def render(self, conversation: LoggedConversation) -> str:
        """The conversation as the template writes it.

        Raises `ModelError`, naming file, line and turn, when the template refuses it, or when a role, text, call,
        argument or result is lost in it.
        """
        log = _Log(self, conversation)
        for index, message in enumerate(conversation.messages):
            if message.role is Role.ASSISTANT:
                log.said(index)
        whole = log.written(len(conversation.messages), generation=False)
        log.compare(whole)
        return self.plain(whole)

    def cuts(self, conversation: LoggedConversation) -> int:
        """How often the template rewrites the past before an action, so that its state begins anew."""
        turns = ((turn.message, turn.anew) for turn in _Log(self, conversation).turns())
        return cuts_of(turns, conversation.actions)

    def turns(self, conversation: LoggedConversation) -> Iterator[WrittenTurn]:
        """The turns of the assistant in tokens. Raises `ModelError` as `render` does."""
        chat = self._chat
        for turn in _Log(self, conversation).turns():
            before = chat.ids_of(self._pieces(turn.before))
            if not turn.anew and (not before or before[0] != chat.end_id):
                raise ModelError(f"{conversation.places[turn.message]}: no end of turn precedes it; {_FIX}")
            reply = (*chat.encode_pieces(self._pieces(turn.reply)), chat.end_id)
            yield WrittenTurn(turn.message, before if turn.anew else before[1:], turn.anew, reply)

    def said(self, conversation: LoggedConversation, indices: Iterable[int]) -> list[str]:
        """Turns of the assistant without their thoughts, as their texts should be."""
        log = _Log(self, conversation)
        return [self.plain(log.said(index)) for index in indices]

    def tools_of(self, tools: tuple[LoggedTool, ...]) -> list[dict[str, Any]]:
        """Tools as templates take them; those of the last conversation are kept."""
        if self._tools[0] != tools:
            made = [
                {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
                for tool in tools
            ]
            self._tools = tools, [self.quoted(self._chat.plain({"type": "function", "function": one})) for one in made]
        return self._tools[1]

    def quoted(self, value: Any) -> Any:
        """A value in whose texts the names of special tokens are marked, and which a tokenizer takes."""
        if isinstance(value, str):
            return self._special.sub(lambda match: f"zqSPECIAL{self._names[match.group()]}zq", writable(value))
        if isinstance(value, Mapping):
            return {self.quoted(key): self.quoted(one) for key, one in value.items()}
        return [self.quoted(one) for one in value] if isinstance(value, list) else value

    def plain(self, text: str) -> str:
        """A text with the names of special tokens that were marked."""
        return _QUOTED.sub(lambda match: self._listed[int(match[1])], text)

    def tells_system(self) -> bool:
        """Whether the template shows a later system turn as something else than one of the user."""
        if self._system_told is None:
            shown = [self._chat.render(_later(role), "a later system turn") for role in ("system", "user")]
            self._system_told = shown[0] != shown[1]
        return self._system_told

    @property
    def chat(self) -> NativeChat:
        """The chat whose template it is."""
        return self._chat

    def _pieces(self, text: str) -> list[tuple[str, bool]]:
        """Text of the template, and names of special tokens that are foreign text."""
        parts = _QUOTED.split(text)
        return [(self._listed[int(part)] if odd else part, bool(odd)) for odd, part in _alternating(parts) if part]


class _Log:
    """One conversation as its template's messages."""

    def __init__(self, renderer: NativeRenderer, conversation: LoggedConversation) -> None:
        self._renderer, self._chat, self._conversation = renderer, renderer.chat, conversation
        self._tools = renderer.tools_of(conversation.tools)
        self._strips = self._chat.past == "strip" and not self._chat.inline
        self._raw: list[str] = []
        self._said: dict[int, str] = {}
        self._messages = self._all()
        self._thoughtful = [self._with_thought(index) for index in range(len(self._messages))]

    def turns(self) -> Iterator[_Turn]:
        """Every turn of the assistant up to the last action."""
        chat, conversation = self._chat, self._conversation
        trunk: str | None = None
        messages = conversation.messages[: conversation.actions[-1] + 1]
        shared = self._shared(messages)
        for index, message in enumerate(messages):
            if message.role is not Role.ASSISTANT or self._opens(index):
                continue
            state, said = shared.get(index) or self.written(index, generation=True), self.said(index)
            thought = "" if chat.past == "none" else self._renderer.quoted(message.thought)
            reply = chat.thinks(thought, said)
            added = None if trunk is None else _added(state, trunk, chat.spaced)
            yield _Turn(index, state if added is None else added, added is None, reply)
            if self._strips:
                trunk = state + reply
            else:
                trunk = state.removesuffix(chat.dropped) + chat.added + said

    def _shared(self, messages: Sequence[Message]) -> SharedStates:
        """The states that need not be rendered one by one; none where past turns may lose their thoughts."""
        if self._strips:
            return SharedStates()
        try:
            return shared_states(messages, self.written, self._past)
        except ModelError:  # which turn it is of is said where states are rendered one by one
            return SharedStates()

    def _past(self, given: str) -> str:
        """The opening of the model's turn as it stands before past turns; empty if it has no special token, which
        foreign text cannot have either."""
        opening = given.removesuffix(self._chat.dropped) + self._chat.added
        return opening if any(name in opening for name in self._chat.special_names if len(name) > 1) else ""

    def _opens(self, index: int) -> bool:
        """Whether nothing precedes a turn, so that it is part of the states after it. Raises `ModelError` if it is an
        action: there is no state for it."""
        if index == 0 and index in self._conversation.actions:
            raise ModelError(f"{self._conversation.places[0]}: nothing precedes this turn of the assistant; {_FIX}")
        return index == 0

    def written(self, count: int, generation: bool) -> str:
        """The first `count` messages as the template writes them."""
        try:
            text = self._chat.render(self._thoughtful[:count], "a conversation", self._tools, generation)
        except ModelError as error:
            raise ModelError(f"{self._conversation.places[self._refused(count)]}: {error}") from error
        return self._with_raw(text)

    def _refused(self, count: int) -> int:
        """The last message of the shortest beginning, up to `count` messages, that the template refuses."""
        for index in range(count):
            try:
                self._chat.render(self._thoughtful[: index + 1], "a conversation", self._tools, generation=False)
            except ModelError:
                return index
        return count - 1

    def said(self, index: int) -> str:
        """A turn of the assistant as the template writes it in the past, without its thought.

        Raises `ModelError` where text, calls or arguments are lost.
        """
        if index in self._said:
            return self._said[index]
        message, place = self._messages[index], self._conversation.places[index]
        try:
            written = self._chat.said(message)
        except ModelError as error:
            raise ModelError(f"{place}: {error}") from error
        if written is None:
            raise ModelError(f"{place}: this turn is not found in what the chat template writes; {_FIX}")
        text = self._with_raw(written)
        if lost := self._lost(index, text):
            raise self._loses(place, *lost)
        self._said[index] = text
        return text

    def compare(self, whole: str) -> None:
        """Raise `ModelError` naming what of the conversation is not in its rendering."""
        conversation, at = self._conversation, 0
        for tool in (tool["function"] for tool in self._tools):
            properties = tool["parameters"].get("properties")
            keys = list(properties) if isinstance(properties, dict) else []
            for what, text in [
                ("tool", tool["name"]),
                ("description", tool["description"]),
                *(("key", k) for k in keys),
            ]:
                if _found(whole, text, 0) is None:
                    raise self._loses(conversation.places[0], f"{what} of the tool {tool['name']}:", text)
        for index, (message, place) in enumerate(zip(conversation.messages, conversation.places, strict=True)):
            if message.role is Role.SYSTEM and index and not self._renderer.tells_system():
                raise self._loses(place, "role of the system turn", message.text)
            text = self.said(index) if message.role is Role.ASSISTANT else str(self._messages[index]["content"])
            what = "result" if message.role is Role.TOOL else f"turn of the {message.role}"
            end = _found(whole, text, at if index else 0)
            if end is None:
                raise self._loses(place, what, text)
            at = end if index or message.role is not Role.SYSTEM else 0  # some put it elsewhere

    def _all(self) -> Messages:
        """The messages as templates take them."""
        messages: Messages = []
        waiting: list[dict[str, Any]] = []
        number = 0
        for message in self._conversation.messages:
            made: dict[str, Any] = {"role": str(message.role), "content": self._renderer.quoted(message.text)}
            if message.role is Role.ASSISTANT:
                waiting = [self._call(call, number + i) for i, call in enumerate(message.calls)]
                number += len(waiting)
                if waiting:
                    made["tool_calls"] = list(waiting)
            elif message.role is Role.TOOL and waiting:
                call = waiting.pop(0)
                made |= {"tool_call_id": call["id"], "name": call["function"]["name"]}
            messages.append(made)
        return messages

    def _with_thought(self, index: int) -> dict[str, Any]:
        """A message with its thought, for templates that are to decide whether it stays."""
        message, logged = self._messages[index], self._conversation.messages[index]
        if not (logged.thought and self._strips):
            return message
        return message | self._chat.thought_in(message["content"], self._renderer.quoted(logged.thought))

    def _call(self, call: Call, number: int) -> dict[str, Any]:
        arguments = self._renderer.quoted(value_of(call))
        if arguments is None:
            self._raw.append(self._renderer.quoted(call.arguments.strip()))
            arguments = {f"zqRAW{len(self._raw) - 1}zq": ""}
        key = call.id if _KEY.fullmatch(call.id) else f"call{number:05}"
        function = {"name": self._renderer.quoted(call.name), "arguments": arguments}
        return {"type": "function", "id": key, "function": function}

    def _with_raw(self, text: str) -> str:
        return _RAW.sub(lambda match: self._raw[int(match[1])], text) if self._raw else text

    def _lost(self, index: int, text: str) -> tuple[str, str] | None:
        """What of the turn at `index` is not read back from its `text`."""
        message, logged = self._messages[index], self._conversation.messages[index]
        said = str(message["content"]).strip()
        if not logged.calls:
            return None if said in text else ("text of the assistant", said)
        if any(value_of(call) is None for call in logged.calls):
            wanted = [("text of the assistant", said)]
            for call, given in zip(logged.calls, message["tool_calls"], strict=True):
                wanted += [("call of", given["function"]["name"])]
                wanted += [("argument", self._renderer.quoted(call.arguments.strip()))]
            return next(((what, one) for what, one in wanted if one not in text), None)
        turn = self._chat.grammar.read(text)
        if turn.before.strip() != said:
            return "text beside a call:", said
        if turn.broken or turn.after or len(turn.calls) != len(logged.calls):
            return "calls of the turn:", ", ".join(call.name for call in logged.calls)
        for read, given in zip(turn.calls, (one["function"] for one in message["tool_calls"]), strict=True):
            if read.name != given["name"]:
                return "call of", given["name"]
            if not _same(read.arguments, given["arguments"]):
                return "argument", json.dumps(given["arguments"], ensure_ascii=False)
        return None

    def _loses(self, place: object, what: str, text: str) -> ModelError:
        shown = one_line(self._renderer.plain(text), 80)
        return ModelError(f"{place}: the model's chat template loses the {what} {shown!r}; {_FIX}")


def value_of(call: Call) -> dict[str, Any] | None:
    """The arguments of a call as a template can write them; None where they are no JSON object."""
    try:
        value = json.loads(call.arguments, parse_constant=no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and depth(value) <= DEEPEST else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Raises `ValueError` for a key that stands twice, of which one value would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice")
    return made


def _added(state: str, trunk: str, spaced: bool) -> str | None:
    """What a state adds to what was read before it; None if it begins otherwise. White space may differ if `spaced`."""
    if state.startswith(trunk):
        return state[len(trunk) :]
    if not spaced:
        return None
    left = len("".join(trunk.split()))
    if "".join(state.split())[:left] != "".join(trunk.split()):
        return None
    at = 0
    for word in _WORD.finditer(state):
        at = word.start() + min(left, len(word.group()))
        left -= len(word.group())
        if left <= 0:
            break
    return state[at:].lstrip() if trunk[-1:].isspace() else state[at:]


def _found(whole: str, text: str, at: int) -> int | None:
    """Where a text ends that is found from `at` on, as it is or in JSON; templates may trim white space around it."""
    for form in (text.strip(), json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text.strip())[1:-1]):
        place = whole.find(form, at)
        if place >= 0:
            return place + len(form)
    return None


def _same(read: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether arguments are those given; in some forms all values are texts."""
    if read == given:
        return True
    return read.keys() == given.keys() and all(_written_as(read[key], given[key]) for key in given)


def _written_as(text: Any, value: Any) -> bool:
    if text == value:
        return True
    try:
        return isinstance(text, str) and not isinstance(value, str) and bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return bool(text == str(value))


def _alternating(parts: Sequence[str]) -> Iterator[tuple[int, str]]:
    return ((number % 2, part) for number, part in enumerate(parts))


def _later(role: str) -> Messages:
    return [
        {"role": "user", "content": "QUESTION"},
        {"role": "assistant", "content": "REPLY"},
        {"role": role, "content": "LATER"},
        {"role": "user", "content": "MORE"},
    ]
