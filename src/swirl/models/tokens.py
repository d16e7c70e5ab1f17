"""A tokenizer's encoding of template pieces and foreign text, and its decoding of replies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

KNOWN_PIECES = 1024
"""Pieces of a template whose ids are kept. A model that writes ids of its calls makes new pieces without end."""


def template_errors() -> tuple[type[Exception], ...]:
    """What a chat template may raise: it is a program that comes with the model."""
    from jinja2 import TemplateError

    return TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError


class Tokens:
    """Encodes and decodes for a chat; any threads may use it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._lock = Lock()  # each call's options change the state of a fast tokenizer, which threads share
        self._piece = lru_cache(KNOWN_PIECES)(self._encode)  # ids of a piece of the template, mostly encoded once
        self._said_by: dict[int, str] = {}
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}

    def _encode(self, text: str, foreign: bool = False) -> list[int]:
        """Token ids; in `foreign` text (questions, results) the names of special tokens are read as plain text."""
        with self._lock:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=foreign)["input_ids"]
        return [int(i) for i in ids]

    def _joined(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of pieces of the template and of foreign text (True), encoded together as in the whole conversation.

        If a text contains the name of a special token, each is encoded separately, so that the name is read as plain
        text.
        """
        ids = self._encode("".join(text for text, _ in pieces))
        wanted = sum(i in self._special for text, foreign in pieces if not foreign for i in self._piece(text))
        if sum(i in self._special for i in ids) == wanted:
            return ids
        return [i for text, foreign in pieces for i in (self._encode(text, True) if foreign else self._piece(text))]

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._encode(text, True))

    def text(self, ids: tuple[int, ...] | list[int]) -> str:
        """The text of a reply, without special tokens."""
        return self.so_far(ids)

    def so_far(self, ids: Sequence[int]) -> str:
        """The text of a reply that may still go on, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def said_by(self, token: int) -> str:
        """The text of one token, decoded once; pieces of characters are lost."""
        if token not in self._said_by:
            self._said_by[token] = self.so_far([token])
        return self._said_by[token]
