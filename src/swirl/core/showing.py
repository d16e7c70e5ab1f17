"""How a search result shows a passage, and how a passage is recognised in a result."""

from __future__ import annotations

from swirl.core.types import Passage

_TOLD_BY = 80
"""Characters at the start of a passage by which it is recognised in an observation, which may be cut."""


def shown(passage: Passage) -> str:
    """`title: text`, or the text alone where it contains the title."""
    return passage.text if passage.title in passage.text else f"{passage.title}: {passage.text}"


def shows(observation: str, passage: Passage) -> bool:
    """Whether an observation shows a passage, whole or cut: its first characters tell it from others."""
    return shown(passage)[:_TOLD_BY] in observation
