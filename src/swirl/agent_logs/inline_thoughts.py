"""Thoughts that a server left in the text of a turn, in the marks that the model wrote."""

from __future__ import annotations

_OPENS, _CLOSES = "<think>", "</think>"


def split(text: str) -> tuple[str, str] | None:
    """The thought with which an assistant's text begins, and what it says after it; None where there is none.

    A thought may lack its opening, which some templates write: then a line must hold its end and nothing else, and
    there must be no other mark. One that does not end is text.
    """
    begun = text.lstrip()
    if begun.startswith(_OPENS):
        thought, closes, said = begun.removeprefix(_OPENS).partition(_CLOSES)
    elif _OPENS in text or text.count(_CLOSES) != 1:
        return None
    else:
        thought, closes, said = text.partition(_CLOSES)
        if not (_ends_line(thought[::-1]) and _ends_line(said)):
            return None
    return (thought.strip(), said.lstrip()) if closes else None


def _ends_line(text: str) -> bool:
    """Whether nothing follows on the line at which the text begins."""
    return text.lstrip(" \t\r")[:1] in ("", "\n")
