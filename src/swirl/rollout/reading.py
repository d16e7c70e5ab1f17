"""From sampled tokens to an action: where it ends, what it is, and what a turn that does nothing is answered with.

A call or an answer ends an action. The model may close its turn after it; anything else that it goes on to say (often
an invented result) is no part of the action, and of the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from swirl.core.types import Action, ActionKind, Observation, Step
from swirl.models.native_chat import NativeChat
from swirl.rollout.native_reading import NativeReader
from swirl.tools.actions import ANSWER_TAG, end_of_action, is_thought, parse
from swirl.tools.base import Tool
from swirl.tools.schemas import Signatures, signatures_of

MALFORMED_REPLY = "error: give one call or one answer"
"""The observation after an action that is neither one call nor one answer."""

CUT_REPLY = "error: your turn was cut off after {tokens} tokens: be brief, and give one call or one answer"
"""The observation after an action that was cut off at the longest length."""

THINK_REPLY = "go on"
"""The user turn after a thought without call or answer."""


class TaggedChat(Protocol):
    """What is needed of a chat with tags: that of `swirl.models.chat.Chat`, where it is described."""

    native: bool
    thinking: bool
    strips: bool
    end_id: int
    end_ids: frozenset[int]
    end_text: str

    def prompt(self, text: str, /) -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`."""

    def turn(self, text: str, closed: bool, /) -> tuple[int, ...]:
        """Ids that follow a reply, up to where the model's turn starts."""

    def anew(self, turns: Sequence[tuple[str, str]], /) -> tuple[int, ...]:
        """Ids of a conversation without past thoughts, from its (role, content) pairs."""

    def after_thought(self, text: str, /) -> tuple[str, str] | None:
        """A reply as its thought and what follows it; None if it does not come to its thought's end."""

    def unthought(self, text: str, /) -> str:
        """A reply as a past turn has it, without its thought."""

    def thinks(self, thought: str, said: str, /) -> str:
        """A reply that says this after a thought, or without one where it is empty."""

    def markup(self, turns: Sequence[tuple[str, str]], /) -> str:
        """A conversation as text, from its (role, content) pairs."""

    def encode(self, text: str, /) -> tuple[int, ...]:
        """Ids of a reply, without its end of turn."""

    def text(self, ids: tuple[int, ...], /) -> str:
        """The text of a reply."""

    def so_far(self, ids: Sequence[int], /) -> str:
        """The text of a reply that may still go on."""

    def said_by(self, token: int, /) -> str:
        """The text of one token."""


Readable = TaggedChat | NativeChat
"""A chat that there is a reader for."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the actions of one conversation, which are written with tags, and writes what follows them."""

    chat: TaggedChat
    tags: Mapping[str, str]
    """Tag of each tool that the conversation has -> kind of action."""
    thoughts: bool = False
    """Whether a thought without call or answer is an action of its own, not malformed."""

    needs_ids = False
    """Whether a server's text may lack what calls are told by."""

    def prompt(self, text: str, system: str) -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`. Raises `ValueError` for a `system` turn."""
        if system:
            raise ValueError("there is no system turn in the format of tags")
        return self.chat.prompt(text)

    def calls(self, action: Action) -> tuple[tuple[str, str], ...]:
        """Kind and payload of each call of an action; none if it is no call."""
        return ((action.kind, action.payload),) if action.kind in self.tags.values() else ()

    def shown(self, payload: str, result: str) -> str:
        """What the model is shown of a call's result."""
        return f"{payload} -> {result}"

    def turn(self, action: Action, seen: Sequence[Observation], closed: bool) -> tuple[int, ...]:
        """Ids that follow an action: its end of turn unless `closed` already, what answers it, the next opening."""
        return self.chat.turn("\n".join(one.text for one in seen), closed)

    def anew(self, text: str, system: str, steps: Sequence[Step]) -> tuple[int, ...]:
        """Ids of the state after these steps, where the template drops the last one's thought; else none."""
        if not self.chat.strips or self.chat.unthought(steps[-1].action.text) == steps[-1].action.text:
            return ()
        turns = [("user", text)]
        for step in steps:
            turns += [("assistant", step.action.text), ("user", step.observation)]
        return self.chat.anew(turns)

    def markup(self, turns: Sequence[tuple[str, str]], ids: Sequence[int]) -> str:
        """The conversation so far as text, from its `turns` of user and assistant."""
        return self.chat.markup(turns)

    def complete(self, ids: Sequence[int]) -> bool:
        """Whether a call or an answer is whole with the last of these tokens; ask after each, and stop at the first."""
        return ">" in self.chat.said_by(ids[-1]) and self._end(self.chat.so_far(ids)) is not None

    def upto(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The action among tokens that may go on after it: with the end of turn only if that follows at once."""
        for count, token in enumerate(ids, 1):
            if token in self.chat.end_ids:
                return ids[:count]
            if self.complete(ids[:count]):
                return ids[: count + 1] if ids[count:] and ids[count] in self.chat.end_ids else ids[:count]
        return ids

    def written(self, text: str) -> str:
        """The action at the start of `text`, without what follows a call or an answer."""
        return text[: self._end(text)]

    def whole(self, text: str) -> bool:
        """Whether there is a whole call or answer in `text`."""
        return self._end(text) is not None

    def closed(self, text: str) -> str:
        """`text`, with its closing tag if that alone is missing: some servers do not return the string they stop at."""
        for closing in (end for tag in self.stops for end in (tag, f"{tag}>", ">")):
            if self._end(text) is None and self._end(text + closing) is not None:
                return text + closing
        return text

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings at which a server should stop: none where a thought may name them."""
        return () if self.chat.thinking else tuple(f"</{tag}>" for tag in (*self.tags, ANSWER_TAG))

    def cut(self, ids: Sequence[int]) -> bool:
        """Whether these tokens, where sampling ended, stop short of a whole action."""
        return ids[-1] not in self.chat.end_ids and self._end(self.chat.so_far(ids)) is None

    def read(self, ids: tuple[int, ...]) -> Action:
        """The action of these tokens, which stop where it ended or was cut off."""
        text = self.chat.text(ids)
        start = self._start(text)
        action = replace(parse("" if start is None else text[start:], self.tags), text=text)
        if action.kind == ActionKind.MALFORMED and self.cut(ids):
            return Action(ActionKind.CUT, text, "")
        if self.thoughts and action.kind == ActionKind.MALFORMED and is_thought(text[start or 0 :], self.tags):
            return Action(ActionKind.THINK, text, "")
        return action

    def _end(self, text: str) -> int | None:
        start = self._start(text)
        end = None if start is None else end_of_action(text[start:], self.tags)
        return None if start is None or end is None else start + end

    def _start(self, text: str) -> int | None:
        """Where a reply goes on after its thought, which may name tags; None inside of one."""
        parts = self.chat.after_thought(text) if self.chat.thinking else ("", text)
        return None if parts is None else len(parts[0])


AnyReader = Reader | NativeReader


def reader_of(chat: Readable, tools: Mapping[str, Tool], thoughts: bool) -> AnyReader:
    """The reader of a conversation with these tools, by kind of action, in the format of `chat`."""
    tags = signatures_of(tools.values()) if chat.native else tags_of(tools)
    return reader_for(chat, tags, thoughts)


def reader_for(chat: Readable, tags: Mapping[str, str], thoughts: bool = False) -> AnyReader:
    """The reader for `tags`, or for `Signatures` with a chat in the model's own format."""
    if isinstance(tags, Signatures):
        return NativeReader(cast("NativeChat", chat), tags, thoughts)
    return Reader(cast("TaggedChat", chat), tags, thoughts)


def tags_of(tools: Mapping[str, Tool]) -> dict[str, str]:
    """Tag of each tool -> the kind of action that calls it."""
    return {tool.tag: kind for kind, tool in tools.items()}


def reply_to(action: Action, tokens: int) -> Observation | None:
    """What an action of `tokens` tokens that calls no tool is answered with; None for a call and for an answer."""
    if action.kind == ActionKind.MALFORMED:
        return Observation(MALFORMED_REPLY, error=False)
    if action.kind == ActionKind.CUT:
        return Observation(CUT_REPLY.format(tokens=tokens), error=False)
    if action.kind == ActionKind.THINK:
        return Observation(THINK_REPLY, error=False)
    return None
