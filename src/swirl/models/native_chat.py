"""Conversations in a model's own tool format, append-only: tools, calls and results as its chat template writes them.

After the question, all that a model is shown are turns of tool results, errors about its turns included: some templates
move the tools, or drop thoughts, when another user turn comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swirl.core.errors import ModelError
from swirl.models.call_grammar import Call, found
from swirl.models.chat import DROPPED, KEPT, STRIPPED, Chat
from swirl.models.tokens import Tokens

Messages = list[dict[str, Any]]
Tool = Mapping[str, Any]
"""A tool as templates take it: `{"type": "function", "function": {"name", "description", "parameters"}}`."""

_QUESTION, _REPLY, _THOUGHT = "QUESTION-SENTINEL", "REPLY-SENTINEL", "THOUGHT-SENTINEL"
_VALUES = ('VALUE-SENTINEL "quoted" \\ 7', "OTHER-SENTINEL", "LAST-SENTINEL")
_NAMES = ("first_sentinel", "second_sentinel", "third_sentinel")
_ARGUMENTS = (
    {"argument_sentinel": _VALUES[0], "another_sentinel": "FURTHER-VALUE"},
    {"argument_sentinel": _VALUES[1]},
    {"argument_sentinel": _VALUES[2]},
)
_CALLS = [Call(_NAMES[i], _ARGUMENTS[i], f"CallId00{i}") for i in range(3)]
"""Ids have nine letters and digits, as Mistral's templates demand."""
_RESULTS = ("RESULT-SENTINEL", "SECOND-RESULT", "THIRD-RESULT")
_DESCRIPTION = "DESCRIPTION-SENTINEL"
_ODD = ' a "b" \\ <c> & \u00e9\n{"d": [1]}\n'
_FIX = "use actions.format: tags"
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


class NativeChat(Tokens):
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
        super().__init__(tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model or set one")
        self._options = {
            "enable_thinking": thinking,
            "thinking": thinking,
            "date_string": "26 Jul 2024",
        }
        self.spaced = False
        """Whether past results have other white space than the last one (Hermes)."""
        self._heads: dict[tuple[str, str], str] = {}
        self._take_apart()
        self.end_ids = frozenset({self.end_id, tokenizer.eos_token_id, *ends} - {None})
        self._find_thoughts()
        parts = [self.grammar.opening, self.grammar.closing, self.grammar.separator or "", self.grammar.between]
        written = " ".join([*parts, *self.thought_tags])
        self.special_names = tuple(str(tokenizer.decode([i], skip_special_tokens=False)) for i in sorted(self._special))
        names = sorted(self.special_names, key=len)
        self._marks = [name for name in reversed(names) if name and name in written]
        self.marked = bool(self._marks)
        """Whether calls or thoughts are told by special tokens, which a text without them does not show."""
        self._shows = self._shown_thoughts() if thinking or self.begun else ""
        keeps = bool(self._shows) or not (thinking or self.begun)
        self.past: Literal["none", "keep", "strip"] = "strip" if strip else "keep" if thinking else "none"
        """What is asked for: turns without thoughts, past thoughts that stay, or what the template makes of them."""
        self.strips = strip and not keeps
        """Whether past turns lose their thoughts in a loop of calls, so that `anew` gives states after one."""
        self.inline = strip and self._shows == "content" == self._shown_thoughts(_ASK)
        """Whether thoughts are part of a turn's content, which stays whatever comes: nothing is there to strip."""
        self.notes = tuple(self._notes(thinking, strip, keeps))
        """What the template does to past turns, and is not done here: sentences without a full stop."""

    # A conversation.

    def prompt(self, text: str, tools: Sequence[Tool] = (), system: str = "") -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`, up to where the model's turn starts.

        Raises `ModelError` where the template leaves out a tool or the `system` turn, or rewrites what precedes.
        """
        shown = self._written_question(text)
        return tuple(self._joined([(self._head_of(tools, system), False), (shown, True), (self.given, False)]))

    def results(self, results: Sequence[Result], closed: bool) -> tuple[int, ...]:
        """Ids that follow a reply: its end of turn unless `closed` already, what answers it, the next opening."""
        ids = self._joined(self._answers(results))
        return tuple(ids[1:] if closed else ids)

    def _answers(self, results: Sequence[Result]) -> list[tuple[str, bool]]:
        """The pieces from a reply's end of turn to the next opening."""
        pieces = [(_named(self._before, results[:1]), False)]
        for i, result in enumerate(results):
            pieces.append((self._written(result.text), True))
            last = i + 1 == len(results)
            pieces.append((_named(self._after if last else self._between, results[i : i + 2], i), False))
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
        pieces, opening = [(self.given, False), *said], self._piece(self.given)
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
        pieces = [(self._head_of(tools, system), False), (self._written_question(text), True), (self.stays, False)]
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
        calls = message.get("tool_calls") or ()
        follows: Messages = [
            {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": _RESULTS[0]}
            for call in calls
        ]
        text = self.render([_ASK, message, *(follows or [_ASK])], "several calls" if len(calls) > 1 else "this turn")
        start = f"{self._head}{_QUESTION}{self.stays}" if calls else self._before_text()
        said, closed, _ = text[len(start) :].partition(self.end_text)
        return said if closed and text.startswith(start) else None

    def _before_text(self) -> str:
        """What the template writes before a past turn that calls nothing; it may begin otherwise than one that does."""
        return self.render([_ASK, _said(_REPLY), _ASK], "this turn").partition(_REPLY)[0]

    def so_far(self, ids: Sequence[int]) -> str:
        """The text of a reply that may still go on; special tokens by their names, but for the end of turn."""
        return self.markup([i for i in ids if i not in self.end_ids])

    def markup(self, ids: Sequence[int]) -> str:
        """Tokens as text, special ones by their names."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def unthought(self, text: str) -> str:
        """A reply as a past turn has it, without its thought."""
        parts = self.after_thought(text)
        if parts is None:
            return "" if self.begun else text
        return parts[1].lstrip("\n") if parts[0] else text

    def thinks(self, thought: str, said: str) -> str:
        """A reply that says this after a thought, or without one where it is empty, as the template writes it."""
        before, after = self._thought_form
        if not (thought.strip() or self.begun):
            return said
        inner = thought.strip().replace(self.thought_tags[1], "")
        return f"{'' if self.begun else before}{inner}{after}{said}"

    def thought_in(self, content: str, thought: str) -> dict[str, Any]:
        """Fields of a past turn with this content after a thought, in the form in which the template shows thoughts."""
        if self._shows == "content":
            before, after = self._thought_form
            return {"content": f"{before}{thought.strip().replace(self.thought_tags[1], '')}{after}{content}"}
        return {"reasoning_content": thought}

    def after_thought(self, text: str) -> tuple[str, str] | None:
        """A reply as its thought, tags included, and what follows it; None if it does not come to its thought's end."""
        opens, closes = self.thought_tags
        if not (self.begun or text.lstrip().startswith(opens)):
            return "", text
        thought, closed, said = text.partition(closes)
        return (thought + closed, said) if closed else None

    # Taking the template apart.

    def _take_apart(self) -> None:
        """Find the pieces between a model's turns, and check that longer conversations are made of them."""
        opening, bare = self.render([_ASK], "tools"), self.render([_ASK], "tools", generation=False)
        for what, text in (("name", _NAMES[0]), ("description", _DESCRIPTION), ("arguments", "argument_sentinel")):
            if text not in opening:
                raise ModelError(f"the chat template leaves out the {what} of tools: {_FIX}")
        if opening.count(_QUESTION) != 1 or not opening.startswith(bare):
            raise _rewrites("the question")
        self._head, self.given = opening.split(_QUESTION)
        self._generation = opening[len(bare) :]
        self._find_end(self.render([_ASK, _said(_REPLY)], "replies", generation=False).partition(_REPLY)[2])
        acted = self.render([_ASK, _acted(1), *_results(1)], "calls and results")
        self._all_shown(acted, 1)
        said = acted.partition(_QUESTION)[2]
        self.stays = _common(said, self._plain())
        alike = len(_common(self.given, self.stays))
        if alike < len(self.given) - len(self._generation):
            raise _rewrites("the opening of the model's turn")
        self.dropped, self.added = self.given[alike:], self.stays[alike:]
        """What the template writes at the start of the model's turn and drops from past turns; it is kept here."""
        said = said[len(self.stays) :]
        end, shown = said.find(self.end_text, said.find("VALUE-SENTINEL")), said.find(_RESULTS[0])
        if not 0 <= end < shown:
            raise ModelError(f"the chat template does not close a turn with calls by {self.end_text!r}: {_FIX}")
        one, self._before, self._after = said[:end], said[end:shown], said[shown + len(_RESULTS[0]) :]
        if not self._after.endswith(self._generation):
            raise _rewrites("the opening of the model's turn after a result")
        two, self._between = self._several()
        grammar = found(one, two, _CALLS[:2])
        if grammar is None:
            raise ModelError(f"the chat template writes calls in a form that is not known here ({one!r}): {_FIX}")
        self.grammar, self._one = grammar, one
        self._check([_ASK], self._head, _PROBES)
        self._as_is = False
        written = self._written(_ODD)
        self._as_is = written == _ODD
        if _ODD.strip() not in (written.strip(), str(_decoded(f'"{written}"')).strip()):
            raise ModelError(f"the chat template changes results ({_ODD!r} becomes {written!r}): {_FIX}")
        self._trims = self.render([{**_ASK, "content": f" {_QUESTION} "}], "tools") == opening

    def _find_end(self, follows: str) -> None:
        """The token that closes a model turn: the first one after a reply."""
        ids = self._encode(follows)
        if not ids or ids[0] not in self._special:
            raise ModelError(
                f"the chat template closes a model turn with no special token ({follows[:40]!r}), so that its end "
                "cannot be told from what the model says"
            )
        self.end_id = ids[0]
        self.end_text = self.markup([self.end_id]).strip()
        """The end-of-turn token as text."""

    def _plain(self) -> str:
        """What follows the question where the model's turn is a text and not the last."""
        try:
            return self.render([_ASK, _said(_REPLY), *_results(1)], "replies").partition(_QUESTION)[2]
        except ModelError:  # results follow calls alone
            return self.render([_ASK, _said(_REPLY), _ASK], "replies").partition(_QUESTION)[2]

    def _several(self) -> tuple[str | None, str]:
        """Two calls of one turn as the template writes them, and what is between their results; None if it cannot."""
        try:
            both = self.render([_ASK, _acted(2), *_results(2)], "several calls")
            self._all_shown(both, 2)
        except ModelError:
            return None, ""
        two, _, rest = both.partition(_QUESTION)[2].removeprefix(self.stays).partition(self._before + _RESULTS[0])
        between, _, after = rest.partition(_RESULTS[1])
        if after != _moved(self._after, 1):
            raise _rewrites("several results")
        return two, between

    def _check(self, asked: Messages, head: str, tools: Sequence[Tool]) -> None:
        """Raise `ModelError` unless longer conversations begin with shorter ones, but for what is dropped or added."""
        past = self._after.removesuffix(self.dropped) + self.added
        acted = f"{self._one}{self._before}{_RESULTS[0]}"
        start = f"{head}{_QUESTION}{self.stays}{acted}"
        step = [_acted(1), *_results(1)]
        if self.render([*asked, *step], "calls and results", tools) != start + self._after:
            raise _rewrites("the turns before a call")
        longer, made = (
            self.render([*asked, *step, *step], "calls and results", tools),
            start + past + acted + self._after,
        )
        if _squeezed(longer) != _squeezed(made):
            raise _rewrites("earlier calls and results")
        self.spaced = self.spaced or longer != made
        answered = self.render([*asked, *step, _said(_REPLY)], "replies", tools, generation=False)
        if not _squeezed(answered).startswith(_squeezed(start + self._after.removesuffix(self._generation))):
            raise _rewrites("earlier calls and results once there is an answer")
        if self._between:
            three = self.render([*asked, _acted(3), *_results(3)], "several calls", tools)
            results = _RESULTS[0] + self._between + _RESULTS[1] + _moved(self._between, 1) + _RESULTS[2]
            if not three.endswith(self._before + results + _moved(self._after, 2)):
                raise _rewrites("several results")

    def _all_shown(self, rendered: str, calls: int) -> None:
        """Raise `ModelError` naming what of the first calls and results is not in a rendering."""
        for name, value, result in list(zip(_NAMES, _VALUES, _RESULTS, strict=True))[:calls]:
            for what, text in (("calls", name), ("arguments of calls", value.split()[0]), ("results", result)):
                if rendered.count(text) <= self._head.count(text):
                    raise ModelError(f"the chat template leaves out the {what}: {_FIX}")

    def _find_thoughts(self) -> None:
        """The tags around thoughts, whether the template opens one itself, and whether past thoughts stay."""
        self.thought_tags, self._thought_form = ("<think>", "</think>"), ("<think>\n", "\n</think>\n\n")
        try:
            told = self.render([_ASK, {**_said(_REPLY), "reasoning_content": _THOUGHT}], "thoughts", generation=False)
        except ModelError:
            told = ""
        opening, _, rest = told.partition(_THOUGHT)
        closes = rest.partition(_REPLY)[0].strip()
        if closes and closes.replace("/", "", 1) in opening:
            opens = closes.replace("/", "", 1)
            self.thought_tags = (opens, closes)
            self._thought_form = (opens + opening.rpartition(opens)[2], rest.partition(_REPLY)[0])
        self.begun = self.given.rstrip().endswith(self.thought_tags[0])
        """Whether the template opens a thought where the model's turn starts."""

    def _shown_thoughts(self, *later: dict[str, Any]) -> str:
        """The field in which past turns show their thoughts in a loop of calls, or before these `later` messages.

        Empty where none is shown.
        """
        opens, closes = self.thought_tags
        forms = {"reasoning_content": _THOUGHT, "content": f"{opens}\n{_THOUGHT}\n{closes}\n\n"}
        past: Messages = [*_results(1), *([_said(_REPLY)] if later else []), *later]
        for field, text in forms.items():
            if _THOUGHT in self.render([_ASK, {**_acted(1), field: text}, *past], "thoughts"):
                return field
        return ""

    def _notes(self, thinking: bool, strip: bool, keeps: bool) -> Iterable[str]:
        if self.dropped and not strip:
            instead = f", and writes {self.added!r} instead" if self.added else ""
            yield f"the chat template drops {self.dropped!r} from past turns{instead}: they keep it here"
        if self.spaced:
            yield "the chat template changes the white space of past results: they stay as they were read here"
        if "strftime_now" in str(self.tokenizer.chat_template) and "date_string" not in str(
            self.tokenizer.chat_template
        ):
            yield "the chat template tells the model today's date, so that prompts change from day to day"
        if _REPLY not in self.render([_ASK, {**_acted(1), "content": _REPLY}, *_results(1)], "calls and results"):
            yield "the chat template drops what is said beside a call from past turns: it stays here, as sampled"
        if strip:
            yield STRIPPED if not keeps else STRIPPED_LATER if not self._shown_thoughts(_ASK) else KEPT
        elif not keeps:
            yield DROPPED
        if self.begun and not thinking:
            yield "the chat template opens a thought in every turn, so actions.thinking: none has no effect"

    # Rendering.

    def render(
        self, messages: Messages, what: str, tools: Sequence[Tool] | None = None, generation: bool = True
    ) -> str:
        """The template's text; with the tools of the sentinels unless others are given."""
        from jinja2 import TemplateError

        given = [dict(tool) for tool in (_PROBES if tools is None else tools)] or None
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tools=given, tokenize=False, add_generation_prompt=generation, **self._options
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ModelError(f"the chat template refuses {what}: {error}; {_FIX}") from error
        return str(text)

    def _head_of(self, tools: Sequence[Tool], system: str) -> str:
        """What precedes the question, checked when it is first asked for."""
        key = (json.dumps(tools), system)
        if key not in self._heads:
            plain = [self.plain(tool) for tool in tools]
            asked: Messages = [*([{"role": "system", "content": system}] if system else []), _ASK]
            opening = self.render(asked, "a system turn" if system else "tools", plain)
            if opening.count(_QUESTION) != 1 or opening.split(_QUESTION)[1] != self.given:
                raise _rewrites("the question")
            head = opening.split(_QUESTION)[0]
            if system.strip() not in head:
                raise ModelError(
                    "the chat template leaves out the system turn: put what system.txt says into the tasks' prompts"
                )
            for function in (tool["function"] for tool in plain):
                names = [function["name"], *function["parameters"].get("properties", {})]
                if lost := [name for name in names if name not in head and json.dumps(name)[1:-1] not in head]:
                    raise ModelError(f"the chat template leaves out {lost[0]!r} of the tool {names[0]}: {_FIX}")
            if tools:
                self._check(asked, head, plain)
            self._heads[key] = head
        return self._heads[key]

    def plain(self, value: Any) -> Any:
        """A tool without names of special tokens, which a server's description may hold: a blank breaks them up."""
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        if isinstance(value, str):
            for name in self.tokenizer.convert_ids_to_tokens(sorted(self._special)):
                value = value.replace(name, f"{name[:1]} {name[1:]}") if len(name) > 1 else value
        return value

    def _written_question(self, text: str) -> str:
        return text.strip() if self._trims else text

    def _written(self, result: str) -> str:
        """A result as the template writes it: in JSON, for example."""
        if self._as_is:
            return result
        [message] = _results(1)
        start = f"{self._head}{_QUESTION}{self.stays}{self._one}{self._before}"
        text = self.render([_ASK, _acted(1), {**message, "content": result}], "results")
        fits = text.startswith(start) and text.endswith(self._after)
        return text[len(start) : len(text) - len(self._after)] if fits else result


AnyChat = Chat | NativeChat
"""A chat in either format of actions."""

_ASK = {"role": "user", "content": _QUESTION}
_PROBES = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": _DESCRIPTION,
            "parameters": {
                "type": "object",
                "properties": {
                    key: {"type": "string", "description": "a text"}
                    for key in ("argument_sentinel", "another_sentinel")
                },
                "required": ["argument_sentinel"],
            },
        },
    }
    for name in _NAMES
]


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _acted(count: int) -> dict[str, Any]:
    """The model's turn with the first calls."""
    calls = [
        {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for call in _CALLS[:count]
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _results(count: int) -> Messages:
    """The results of the first calls."""
    return [
        {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}
        for call, result in zip(_CALLS[:count], _RESULTS, strict=False)
    ]


def _moved(piece: str, by: int) -> str:
    """A piece about the first calls, about those that are `by` further on."""
    for i in reversed(range(3 - by)):
        piece = piece.replace(_CALLS[i].id, _CALLS[i + by].id).replace(_NAMES[i], _NAMES[i + by])
    return piece


def _named(piece: str, results: Sequence[Result], first: int = 0) -> str:
    """A piece with names and ids of these results, of which the first is number `first` of its turn."""
    for i, result in enumerate(results):
        name = result.name if _WORD.fullmatch(result.name) else "error"
        key = result.id if _WORD.fullmatch(result.id) else f"call{first + i:05}"
        piece = piece.replace(_CALLS[i].id, key).replace(_NAMES[i], name)
    return piece


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _rewrites(what: str) -> ModelError:
    return ModelError(
        f"the chat template rewrites {what}, so states are not prefixes of one sequence; use a template that only "
        "appends (tokenizer_config.json or chat_template.jinja in the model's folder), or actions.format: tags"
    )
