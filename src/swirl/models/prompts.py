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
    """Templates of the user's first turn, with `{question}`, `{steps}` and, optionally, `{tools}`."""

    tasks: Mapping[str, str]
    """Task -> template."""
    closed_book: str
    """The template for answering without tools; it has no `{tools}`."""


def read_prompt(path: Path) -> str:
    """A prompt file's text. Raises `DataError` when there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; params.yaml asks for it in `tasks` and `prompts`") from None


def fill(prompt: str, question: str, steps: int, tools: str = "") -> str:
    """Fill in a prompt's `{question}`, `{steps}` and `{tools}`; any other brace stays as it is.

    All are filled in at once, so that a placeholder inside a question or a tool's description stays as it is, too.
    """
    values = {"question": question, "steps": str(steps), "tools": tools}
    return _PLACE.sub(lambda match: values[match[1]], prompt)
