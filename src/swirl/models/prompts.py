"""Prompt texts: the user's first turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swirl.core.errors import DataError

_PLACE = re.compile(r"\{(question|steps|calls|tools)\}")


@dataclass(frozen=True, slots=True)
class Prompts:
    """Templates of the user's first turn, with `{question}` and, optionally, `{calls}`, `{steps}` and `{tools}`."""

    tasks: Mapping[str, str]
    """Task -> template."""
    closed_book: str
    """The template for answering without tools; it has no `{tools}`."""
    system: str = ""
    """The system turn, in the model's own tool format; empty for none."""


def read_prompt(path: Path) -> str:
    """A prompt file's text, without a byte order mark. Raises `DataError` when there is none, or it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; params.yaml asks for it in `tasks` and `prompts`") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 from byte {error.start} on; save it as UTF-8") from None


def fill(prompt: str, question: str, steps: int, tools: str = "") -> str:
    """Fill in a prompt's `{question}`, `{steps}`, `{calls}` and `{tools}`; any other brace stays as it is.

    `steps` is the number of actions that there may be. The last one must be the answer, so `{calls}` is one less. All
    are filled in at once, so that a placeholder inside a question or a tool's description stays as it is, too.
    """
    values = {"question": question, "steps": str(steps), "calls": str(max(0, steps - 1)), "tools": tools}
    return _PLACE.sub(lambda match: values[match[1]], prompt)
