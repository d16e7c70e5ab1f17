"""Prompt texts: the user's first turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swirl.errors import DataError


@dataclass(frozen=True, slots=True)
class Prompts:
    """The user's first turn, with `{question}` and `{steps}`."""

    tasks: Mapping[str, str]
    """By task."""
    closed_book: str
    """When there are no tools."""


def read_prompt(path: Path) -> str:
    """A prompt file's text. Raises `DataError` when there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; params.yaml asks for it in `tasks` and `prompts`") from None


def fill(prompt: str, question: str, steps: int) -> str:
    """A prompt with its `{question}` and `{steps}`; any other brace stays as it is."""
    return prompt.replace("{steps}", str(steps)).replace("{question}", question)
