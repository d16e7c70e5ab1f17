"""From text to the exact tokens of a conversation, append-only: sampled tokens are never encoded again from text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from swirl.core.errors import ModelError
from swirl.models.replies import Replies
from swirl.models.tokens import template_errors

_SAID = ("QUESTION-SENTINEL", "REPLY-SENTINEL", "RESULT-SENTINEL", "SECOND-REPLY-SENTINEL", "LAST-RESULT-SENTINEL")
THINK, THOUGHT = "<think>", "</think>"
"""What opens and closes a thought."""
DROPPED = "the chat template drops thoughts from past turns: they stay here, as sampled"
STRIPPED = "the chat template drops thoughts from past turns: states are as it writes them, and begin a new piece there"
KEPT = "the chat template keeps thoughts in past turns, so actions.thinking: strip takes none away"
DATED = "the chat template tells the model today's date, so that prompts change from day to day"
_OPTIONS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Options that templates may read: no hidden reasoning, and a fixed date (the default of Llama's template)."""


def tells_date(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date, in a way in which no fixed one can be given."""
    template = str(tokenizer.chat_template)
    return "strftime_now" in template and "date_string" not in template


class Chat(Replies):
    """A tokenizer's chat template taken apart into the pieces that token-exact rollouts append.

    Conversations start with a user turn and alternate. No system turn is given, since not every model family has one;
    one that the template itself puts first (SmolLM2) is part of what precedes the question.
    Raises `ModelError` when the tokenizer has no chat template, when its template rewrites earlier turns (states would
    not be prefixes of one sequence), and when no special token closes a model turn.

    One kind of rewriting is undone: text that the template puts at the start of the model's current turn but drops from
    past turns (Qwen3's empty `<think>` block) is kept in past turns. `dropped` is that text, "" for templates that only
    append.
    """

    native = False
    """Whether calls are written in the model's own tool format (`swirl.models.native_chat`)."""

    def __init__(self, tokenizer: Any, ends: Iterable[int] = (), thinking: bool = False, strip: bool = False) -> None:
        """`ends` are the ids of further tokens that end a reply, as a model's generation config lists them.

        `thinking` asks the template for turns with thoughts; they stay in past turns, whatever the template does, or,
        with `strip`, if it keeps them.
        """
        super().__init__(tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model or set one")
        self._options = {**_OPTIONS, "enable_thinking": True} if thinking else _OPTIONS
        self._take_apart()
        self.thinking = thinking
        """Whether a reply may begin with a thought, between `<think>` and `</think>`."""
        self.opens_thought = self._after_question.rstrip().endswith(THINK)
        """Whether the template opens a thought where the model's turn starts."""
        self.begun, self.thought_tags = thinking and self.opens_thought, (THINK, THOUGHT)
        if thinking and self._special & {*self._encode(THINK), *self._encode(THOUGHT)}:
            raise ModelError("the tokenizer has <think> as a special token: use actions.format: native")
        keeps = not thinking or self._keeps_thoughts(strip)
        self.strips = strip and not keeps
        """Whether past turns lose their thoughts, so that `anew` gives states after one."""
        about_thoughts = (KEPT if keeps else STRIPPED,) if strip else () if keeps else (DROPPED,)
        self.notes = (*([DATED] if tells_date(tokenizer) else []), *about_thoughts)
        """What the template does beyond what it is given, and what is done here: sentences without a full stop."""
        self.end_id = self._end_of_turn()
        self.end_text = str(tokenizer.decode([self.end_id])).strip()
        """The end-of-turn token as text."""
        self.end_ids = frozenset({self.end_id, tokenizer.eos_token_id, *ends} - {None})

    def _take_apart(self) -> None:
        """Find the template's pieces, and check that a longer conversation is made of them."""
        question, reply, result, second, last = _SAID
        opening, whole, longer = (self._render(_SAID[:turns]) for turns in (1, 3, 5))
        once = all(whole.count(said) == 1 for said in _SAID[:3]) and opening.count(question) == 1
        if not once or not whole.startswith(opening.partition(question)[0] + question):
            raise self._rewrites()
        self._before_question, given = opening.split(question)
        stays, between = whole.partition(question)[2].split(reply)
        self._after_question, (self._before_result, self._after_result) = given, between.split(result)
        self._stays = stays
        if not (stays.startswith(given) or given.startswith(stays)) or not self._after_result.endswith(given):
            raise self._rewrites()
        self.dropped, self._lead = given[len(stays) :], stays[len(given) :]
        past = self._after_result.removesuffix(given) + stays
        pieces = (self._before_question, question, stays, reply, self._before_result, result, past, second)
        if longer != "".join((*pieces, self._before_result, last, self._after_result)):
            raise self._rewrites()
        self._trims = self._render([f" {question} "]) == opening

    def _keeps_thoughts(self, exactly: bool) -> bool:
        """Whether the template shows a thought in a past turn; `exactly`: what it drops must be the thought alone."""
        question, reply, result, *_ = _SAID
        after = f"\n\n{reply}"
        said = self._render([question, f"{THINK}\n{reply}\n{THOUGHT}{after}", result])
        self._blank = said == self._render([question, after, result])
        if exactly and said.count(reply) < 2 and not self._blank and said != self._render([question, reply, result]):
            raise self._rewrites()
        return said.count(reply) == 2

    def _rewrites(self) -> ModelError:
        return ModelError(
            "the chat template rewrites earlier turns, so states are not prefixes of one sequence; use a template that "
            "only appends (tokenizer_config.json or chat_template.jinja in the model's folder)"
        )

    def _end_of_turn(self) -> int:
        """The id of the token that closes a model turn: the first token after a reply."""
        ids = self._encode(self._before_result)
        if not ids:
            raise ModelError("the chat template puts nothing between a reply and the next user turn")
        if ids[0] not in self._special:
            raise ModelError(
                f"the chat template closes a model turn with plain text ({self._before_result!r}), which cannot be "
                "told from what the model says; use a template that closes it with a special token"
            )
        return int(ids[0])

    def _render(self, said: Iterable[str]) -> str:
        """The template's text of a conversation that the user begins, up to where the model's turn starts."""
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self._options
            )
        except template_errors() as error:
            raise ModelError(f"the chat template refuses turns of user and assistant: {error}") from error
        return str(text)

    def _between(self, before: str, text: str, after: str) -> list[int]:
        """Ids of foreign text between two pieces of the template."""
        return self._joined([(before, False), (text, True), (after, False)])

    def prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`, up to where the model's turn starts."""
        return tuple(self._between(self._before_question, self._said(text), self._after_question))

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """Ids that follow a reply: its end of turn unless `closed` already, the user's `text`, the next opening."""
        ids = self._between(self._before_result, self._said(text), self._after_result)
        return tuple(ids[1:] if closed else ids)

    def anew(self, turns: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Ids of a conversation up to where the model's turn starts, its past turns without their thoughts.

        Its (role, content) pairs alternate, the first and the last are the user's.
        """
        pieces = [(self._before_question, False), (self._said(turns[0][1]), True)]
        between = self._after_result.removesuffix(self._after_question) + self._stays
        for number in range(1, len(turns), 2):
            pieces += [(between if number > 1 else self._stays, False), (self.unthought(turns[number][1]), True)]
            pieces += [(self._before_result, False), (self._said(turns[number + 1][1]), True)]
        return tuple(self._joined([*pieces, (self._after_result, False)]))

    def thinks(self, thought: str, said: str) -> str:
        """A reply that says this after a thought, or without one where it is empty."""
        if not self.thinking or not (thought.strip() or self.begun):
            return said
        inner = thought.strip().replace(THOUGHT, "")
        return f"{'' if self.begun else THINK}\n{inner}\n{THOUGHT}\n\n{said}".lstrip("\n")

    def markup(self, turns: Sequence[tuple[str, str]]) -> str:
        """A conversation as the template writes it; its (role, content) pairs alternate, the user's first."""
        return self._render([content for _, content in turns])

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that was sampled elsewhere, without its end of turn."""
        return self.reply(text)[:-1]

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that was written, not sampled (demonstrations), its end of turn included."""
        opening = self._piece(self._after_result)
        ids = self._between(self._after_result + self._lead, text, "")
        ids = ids[len(opening) :] if ids[: len(opening)] == opening else self._encode(text, True)
        return (*ids, self.end_id)

    def _said(self, text: str) -> str:
        """The user's text as the template renders it: some templates trim it."""
        return text.strip() if self._trims else text
