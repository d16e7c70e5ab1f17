"""From text to the exact tokens of a conversation, append-only: nothing sampled is ever encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from swirl.errors import ModelError

_QUESTION, _REPLY, _RESULT = "QUESTION-SENTINEL", "REPLY-SENTINEL", "RESULT-SENTINEL"


class Chat:
    """A tokenizer's chat template taken apart into the pieces that token-exact rollouts append.

    Conversations start with a user turn and alternate. Raises `ModelError` when the tokenizer has no chat template or
    its template rewrites earlier turns, so that states would not be prefixes of one sequence.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._lock = Lock()  # a fast tokenizer is changed by each call's options, and threads share it
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model or set one")
        question = {"role": "user", "content": _QUESTION}
        reply = {"role": "assistant", "content": _REPLY}
        result = {"role": "user", "content": _RESULT}
        opening = self._render([question])
        whole = self._render([question, reply, result])
        once = opening.count(_QUESTION) == whole.count(_REPLY) == whole.count(_RESULT) == 1
        if not once or not whole.startswith(opening):
            raise ModelError(
                "the chat template rewrites earlier turns, so states are not prefixes of one sequence; "
                "use a template that only appends"
            )
        self._before_question, self._after_question = opening.split(_QUESTION)
        between = whole.split(_REPLY)[1]
        self._before_result, self._after_result = between.split(_RESULT)
        self.end_id = self._end_of_turn(tokenizer)
        added = tokenizer.added_tokens_decoder.get(self.end_id)
        special = self.end_id in tokenizer.all_special_ids or (added is not None and added.special)
        self.end_text = str(tokenizer.convert_ids_to_tokens(self.end_id)) if special else ""
        """The end of turn as it is written; empty when it is no special token, and so may stand in any text."""
        self.end_ids = frozenset({self.end_id, tokenizer.eos_token_id} - {None})

    def _end_of_turn(self, tokenizer: Any) -> int:
        """The id of the token that closes a model turn: the first token after a reply."""
        ids = self._encode(self._before_result)
        if not ids:
            raise ModelError("the chat template puts nothing between a reply and the next user turn")
        return int(ids[0])

    def _render(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _encode(self, text: str, foreign: bool = False) -> list[int]:
        """Token ids; in `foreign` text (questions, results) the names of special tokens are plain text."""
        with self._lock:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=foreign)["input_ids"]
        return [int(i) for i in ids]

    def prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a conversation that opens with the user's `text`, up to where the model speaks."""
        return (*self._encode(self._before_question), *self._encode(text, True), *self._encode(self._after_question))

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """Ids that follow a reply: its end of turn unless `closed` already, the user's `text`, the next opening."""
        before = self._encode(self._before_result)
        return (*(before[1:] if closed else before), *self._encode(text, True), *self._encode(self._after_result))

    def markup(self, turns: Sequence[tuple[str, str]]) -> str:
        """A conversation of (role, content) as the template writes it, up to where the model speaks."""
        return self._render([{"role": role, "content": content} for role, content in turns])

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a reply that somebody else sampled, without its end of turn."""
        return tuple(self._encode(text, True))

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply written by hand (demonstrations), its end of turn included."""
        return (*self.encode(text), self.end_id)

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """What a reply says, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
