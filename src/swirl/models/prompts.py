"""Prompt texts: the user's first turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swirl.core.errors import DataError

_PLACE = re.compile(r"\{(question|steps|tools)\}")


@dataclass(frozen=True, slots=True)
class Prompts:
    """The user's first turn, with `{question}`, `{steps}` and, where it is wanted, `{tools}`."""

    tasks: Mapping[str, str]
    """By task."""
    closed_book: str
    """When there are no tools; without `{tools}`."""


def read_prompt(path: Path) -> str:
    """A prompt file's text. Raises `DataError` when there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; params.yaml asks for it in `tasks` and `prompts`") from None


def fill(prompt: str, question: str, steps: int, tools: str = "") -> str:
    """A prompt with its `{question}`, `{steps}` and `{tools}`; any other brace stays as it is.

    All at once, so that none in a question or in what a tool says of itself is filled.
    """
    values = {"question": question, "steps": str(steps), "tools": tools}
    return _PLACE.sub(lambda match: values[match[1]], prompt)
