"""A logged conversation in this project's own tags, as turns of user and assistant that any chat template renders.

A call is `<name> arguments </name>`; system turns, tools and results are part of the user's turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from swirl.agent_logs.conversation import LoggedConversation, LoggedTool, Message, Role
from swirl.agent_logs.written_turns import WrittenTurn, cuts_of
from swirl.core.errors import ModelError
from swirl.models.chat import Chat
from swirl.rollout.reading import THINK_REPLY
from swirl.tools.base import MAX_DESCRIPTION, one_line

_RARE = "\u2603 \U0001d518 \u0f04 zqxj\u0301 7\u00b2"
"""Characters that only a tokenizer with bytes to fall back on can write."""


class TaggedRenderer:
    """Renders conversations with one chat template, and makes sure that nothing of them is lost."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._complete = self._written(_RARE) == _RARE

    def render(self, conversation: LoggedConversation) -> str:
        """The conversation as the template writes it.

        Raises `ModelError`, naming file, line and turn, when a text, call, argument or result is lost in it, or in the
        tokens of a tokenizer that cannot write every text.
        """
        turns = turns_of(conversation)
        rendered = self._chat.markup([("user" if turn.message < 0 else "assistant", turn.text) for turn in turns])
        if not self._complete:
            rendered = self._written(rendered)
        at = 0
        for message, place in zip(conversation.messages, conversation.places, strict=True):
            for what, text in _pieces(message):
                found = rendered.find(text, at)
                if found < 0:
                    raise ModelError(
                        f"{place}: the model's chat template or tokenizer loses the {what} "
                        f"{one_line(text, 80)!r}; use a model that can write it"
                    )
                at = found + len(text)
        return rendered

    def cuts(self, conversation: LoggedConversation) -> int:
        """How often the template rewrites the past before an action, so that its state begins anew."""
        if not self._chat.strips:
            return 0
        return cuts_of(((turn.message, turn.anew) for turn in self.turns(conversation)), conversation.actions)

    def turns(self, conversation: LoggedConversation) -> Iterator[WrittenTurn]:
        """The turns of the assistant in tokens."""
        chat, said = self._chat, list[tuple[str, str]]()
        before: tuple[int, ...] = ()
        anew = True
        for turn in turns_of(conversation):
            if turn.message >= 0:
                text = chat.thinks(conversation.messages[turn.message].thought, turn.text)
                yield WrittenTurn(turn.message, before, anew, chat.reply(text))
                said.append(("assistant", text))
                continue
            said.append(("user", turn.text))
            rewritten = chat.strips and len(said) > 1 and chat.unthought(said[-2][1]) != said[-2][1]
            anew = rewritten or len(said) == 1
            if rewritten:
                before = chat.anew(said)
            else:
                before = chat.prompt(turn.text) if anew else chat.turn(turn.text, closed=True)

    def said(self, conversation: LoggedConversation, indices: Iterable[int]) -> list[str]:
        """Turns of the assistant without their thoughts, as their texts should be."""
        return [action_of(conversation.messages[index]) for index in indices]

    def _written(self, text: str) -> str:
        """`text` as the tokenizer gives it back."""
        tokenizer = self._chat.tokenizer
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written, and is then lost
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


@dataclass(frozen=True, slots=True)
class TaggedTurn:
    """One turn; user and assistant alternate, the user first."""

    text: str
    message: int
    """Which message the assistant's turn is; -1 for a turn of the user, which may be several messages."""


def turns_of(conversation: LoggedConversation) -> list[TaggedTurn]:
    """The turns of a conversation.

    Between two turns of the assistant the user says what our own rollout says after a thought.
    """
    turns: list[TaggedTurn] = []
    said = ["\n".join(map(_listed, conversation.tools))]
    for index, message in enumerate(conversation.messages):
        if message.role is not Role.ASSISTANT:
            said.append(message.text)
            continue
        turns.append(TaggedTurn("\n\n".join(filter(None, said)) or THINK_REPLY, -1))
        turns.append(TaggedTurn(action_of(message), index))
        said = []
    return [*turns, TaggedTurn("\n\n".join(filter(None, said)), -1)] if any(said) else turns


def action_of(message: Message) -> str:
    """An assistant's turn as the model should write it: its text, and each of its calls in tags."""
    calls = [f"<{call.name}> {call.arguments.strip()} </{call.name}>" for call in message.calls]
    return "\n".join([*([message.text] if message.text.strip() else []), *calls])


def _listed(tool: LoggedTool) -> str:
    described = one_line(tool.description, MAX_DESCRIPTION)
    return f"<{tool.name}> ... </{tool.name}>: {described}{' ' if described else ''}arguments: {tool.parameters}"


def _pieces(message: Message) -> Iterator[tuple[str, str]]:
    """What must be found, in its order: texts, names and arguments; templates may trim white space around them."""
    if text := message.text.strip():
        yield "result" if message.role is Role.TOOL else f"text of the {message.role}", text
    for call in message.calls:
        yield "call of", call.name
        yield "argument", call.arguments.strip()
