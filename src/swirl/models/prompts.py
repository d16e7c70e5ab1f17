"""Prompt texts: the user's first turn by kind of task, and the judge's question."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompts:
    """The user's first turn by kind of task, with `{question}` and `{steps}`, and the judge's question."""

    search: str
    calculate: str
    closed_book: str
    judge: str


def fill(prompt: str, question: str, steps: int) -> str:
    """A prompt with its `{question}` and `{steps}`; any other brace stays as it is."""
    return prompt.replace("{steps}", str(steps)).replace("{question}", question)
