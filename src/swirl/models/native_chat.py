"""Conversations in a model's own tool format, append-only: tools, calls and results as its chat template writes them.

After the question, all that a model is shown are turns of tool results, errors about its turns included: some templates
move the tools, or drop thoughts, when another user turn comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swirl.models.chat import DATED, DROPPED, KEPT, STRIPPED, Chat, tells_date
from swirl.models.replies import Replies
from swirl.models.template_pieces import head_of, said_before, take_apart, written_result
from swirl.models.template_thoughts import find_thoughts, shown_thoughts
from swirl.models.tool_template import Template, Tool, named

STRIPPED_LATER = (
    "the chat template drops thoughts of turns before the last user turn: states are as it writes them, and begin a "
    "new piece there"
)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Result:
    """What answers one call: the tool's result, or an error."""

    text: str
    name: str
    """The function that was called; templates may write it."""
    id: str = ""
    """The id that the model gave the call; empty for none."""


class NativeChat(Template, Replies):
    """A tokenizer's chat template taken apart into what a conversation with tool calls appends.

    Raises `ModelError`, naming what is lost, where a rendering lacks the tools, a call, its arguments, a result or the
    system turn, where earlier turns are rewritten, where calls are written in a form that is not known
    (`swirl.models.call_grammar`), and where no special token closes a model turn.

    Some of what a template does to past turns is undone here, since sampled tokens stay as they are: `notes` says what.
    """

    native = True
    thinking = True
    """Whether a reply may begin with a thought: whatever was asked for, what a thought names is no call."""

    def __init__(self, tokenizer: Any, ends: Iterable[int] = (), thinking: bool = False, strip: bool = False) -> None:
        """`ends` are ids of further tokens that end a reply; `thinking` asks the template for turns with thoughts.

        With `strip`, past thoughts are what the template makes of them; otherwise they stay.
        """
        super().__init__(tokenizer, thinking)
        self._found = take_apart(self)
        self._pieces = pieces = self._found.pieces
        self.grammar = self._found.grammar
        self.end_id, self.end_text = pieces.end_id, pieces.end_text
        """The token that closes a turn of the model, and its text."""
        self.end_ids = frozenset({self.end_id, tokenizer.eos_token_id, *ends} - {None})
        self.dropped, self.added = pieces.dropped, pieces.added
        """What the template writes at the start of the model's turn and drops from past turns, where it is kept here;
        and what it writes there instead."""
        self.spaced = self._found.spaced
        """Whether past results have other white space than the last one (Hermes)."""
        self._heads: dict[tuple[str, str], str] = {}
        self._thoughts = find_thoughts(self, pieces.given)
        self.thought_tags, self.begun = self._thoughts.tags, self._thoughts.begun
        """What is around a thought, and whether the template opens one where the model's turn starts."""
        parts = [self.grammar.opening, self.grammar.closing, self.grammar.separator or "", self.grammar.between]
        written = " ".join([*parts, *self.thought_tags])
        self.special_names = tuple(str(tokenizer.decode([i], skip_special_tokens=False)) for i in sorted(self._special))
        names = sorted(self.special_names, key=len)
        self._marks = [name for name in reversed(names) if name and name in written]
        self.marked = bool(self._marks)
        """Whether calls or thoughts are told by special tokens, which a text without them does not show."""
        asked = thinking or self.begun
        self._shows = shown_thoughts(self, self._thoughts) if asked else ""
        keeps = bool(self._shows) or not asked
        later = shown_thoughts(self, self._thoughts, later=True) if strip and keeps else ""
        self.past: Literal["none", "keep", "strip"] = "strip" if strip else "keep" if thinking else "none"
        """What is asked for: turns without thoughts, past thoughts that stay, or what the template makes of them."""
        self.strips = strip and not keeps
        """Whether past turns lose their thoughts in a loop of calls, so that `anew` gives states after one."""
        self.inline = strip and self._shows == "content" == later
        """Whether thoughts are part of a turn's content, which stays whatever comes: nothing is there to strip."""
        self.notes = tuple(self._notes(thinking, strip, keeps, bool(later)))
        """What the template does to past turns, and is not done here: sentences without a full stop."""

    def prompt(self, text: str, tools: Sequence[Tool] = (), system: str = "") -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`, up to where the model's turn starts.

        Raises `ModelError` where the template leaves out a tool or the `system` turn, or rewrites what precedes.
        """
        shown = self._written_question(text)
        return tuple(self._joined([(self._head_of(tools, system), False), (shown, True), (self._pieces.given, False)]))

    def results(self, results: Sequence[Result], closed: bool) -> tuple[int, ...]:
        """Ids that follow a reply: its end of turn unless `closed` already, what answers it, the next opening."""
        ids = self._joined(self._answers(results))
        return tuple(ids[1:] if closed else ids)

    def _answers(self, results: Sequence[Result]) -> list[tuple[str, bool]]:
        """The pieces from a reply's end of turn to the next opening."""
        called = [_called(result, number) for number, result in enumerate(results)]
        pieces = [(named(self._pieces.before, called[:1]), False)]
        for i, result in enumerate(results):
            follows = self._pieces.after if i + 1 == len(results) else self._pieces.between
            pieces += [(self._written(result.text), True), (named(follows, called[i : i + 2]), False)]
        return pieces

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """As `results`, for one that names no call."""
        return self.results([Result(text, "")], closed)

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that was written, not sampled, its end of turn included; of special tokens, calls' alone."""
        return (*self.encode(text), self.end_id)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that was sampled elsewhere, without its end of turn."""
        return self.encode_pieces([(text, False)])

    def encode_pieces(self, parts: Sequence[tuple[str, bool]]) -> tuple[int, ...]:
        """As `encode`, of a reply in parts; True for one that is foreign text, whatever it names."""
        said = [piece for text, quoted in parts for piece in ([(text, True)] if quoted else self._pieces_of(text))]
        pieces, opening = [(self._pieces.given, False), *said], self._piece(self._pieces.given)
        ids = self._joined(pieces)
        if ids[: len(opening)] != opening:
            ids = [*opening, *self._joined(pieces[1:])]
        return tuple(ids[len(opening) :])

    def _pieces_of(self, text: str) -> list[tuple[str, bool]]:
        """The pieces of a reply: special tokens of calls and thoughts, and foreign text."""
        parts = re.split(f"({'|'.join(map(re.escape, self._marks))})", text) if self._marks else [text]
        return [(part, part not in self._marks) for part in parts]

    def anew(
        self,
        text: str,
        tools: Sequence[Tool],
        system: str,
        turns: Sequence[tuple[str, Sequence[Result]]],
    ) -> tuple[int, ...]:
        """Ids of a conversation as `prompt` opens it, of replies without their thoughts and what answered each."""
        pieces = [
            (self._head_of(tools, system), False),
            (self._written_question(text), True),
            (self._pieces.stays, False),
        ]
        for number, (reply, results) in enumerate(turns, 1):
            pieces += self._pieces_of(self.unthought(reply))
            *answers, (after, _) = self._answers(results)
            past = after.removesuffix(self.dropped) + self.added
            pieces += [*answers, (after if number == len(turns) else past, False)]
        return tuple(self._joined(pieces))

    def ids_of(self, parts: Sequence[tuple[str, bool]]) -> tuple[int, ...]:
        """Ids of what the template wrote, in parts; True for names of special tokens that are foreign text."""
        return tuple(i for text, quoted in parts for i in self._encode(text, quoted))

    def said(self, message: dict[str, Any]) -> str | None:
        """A message of the assistant as the template writes it in past turns, without its end; None if it cannot."""
        return said_before(self, self._pieces, message)

    def so_far(self, ids: Sequence[int]) -> str:
        """The text of a reply that may still go on; special tokens by their names, but for the end of turn."""
        return self.markup([i for i in ids if i not in self.end_ids])

    def thinks(self, thought: str, said: str) -> str:
        """A reply that says this after a thought, or without one where it is empty, as the template writes it."""
        before, after = self._thoughts.form
        if not (thought.strip() or self.begun):
            return said
        inner = thought.strip().replace(self.thought_tags[1], "")
        return f"{'' if self.begun else before}{inner}{after}{said}"

    def thought_in(self, content: str, thought: str) -> dict[str, Any]:
        """Fields of a past turn with this content after a thought, in the form in which the template shows thoughts."""
        if self._shows == "content":
            before, after = self._thoughts.form
            return {"content": f"{before}{thought.strip().replace(self.thought_tags[1], '')}{after}{content}"}
        return {"reasoning_content": thought}

    def _notes(self, thinking: bool, strip: bool, keeps: bool, keeps_later: bool) -> Iterable[str]:
        if self.dropped and not strip:
            instead = f", and writes {self.added!r} instead" if self.added else ""
            yield f"the chat template drops {self.dropped!r} from past turns{instead}: they keep it here"
        if self.spaced:
            yield "the chat template changes the white space of past results: they stay as they were read here"
        if tells_date(self.tokenizer):
            yield DATED
        if not self._found.beside:
            yield "the chat template drops what is said beside a call from past turns: it stays here, as sampled"
        if strip:
            yield STRIPPED if not keeps else KEPT if keeps_later else STRIPPED_LATER
        elif not keeps:
            yield DROPPED
        if self.begun and not thinking:
            yield "the chat template opens a thought in every turn, so actions.thinking: none has no effect"

    def _head_of(self, tools: Sequence[Tool], system: str) -> str:
        """What precedes the question, checked when it is first asked for."""
        key = (json.dumps(tools), system)
        if key not in self._heads:
            self._heads[key], spaced = head_of(self, self._pieces, tools, system)
            self.spaced = self.spaced or spaced
        return self._heads[key]

    def _written_question(self, text: str) -> str:
        return text.strip() if self._found.trims else text

    def _written(self, result: str) -> str:
        """A result as the template writes it: in JSON, for example."""
        return result if self._found.as_is else written_result(self, self._pieces, result)


AnyChat = Chat | NativeChat
"""A chat in either format of actions."""


def _called(result: Result, number: int) -> tuple[str, str]:
    """Name and id of a call, as plain words whatever a model made up; `number` is its place in the turn."""
    name = result.name if _WORD.fullmatch(result.name) else "error"
    return name, result.id if _WORD.fullmatch(result.id) else f"call{number:05}"
