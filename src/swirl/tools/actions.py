"""Parses a model's text into an `Action`: one tool call, one answer, or malformed.

Actions are written with tags, `<search_query> capital of France </search_query>`. The paper's inference section
doubles the brackets, `<<search_query>> ... <</search_query>>`: both forms are read, only the single one is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from swirl.core.types import Action, ActionKind

ANSWER_TAG = "answer"
"""The tag of a final answer, recognised whatever tools there are."""

DEFAULT_TAGS: Mapping[str, str] = MappingProxyType(
    {"search_query": ActionKind.SEARCH, "math_exp": ActionKind.CALCULATE}
)
"""Tag of each tool -> kind of action. A registered tool adds its own."""


def parse(text: str, tags: Mapping[str, str] = DEFAULT_TAGS) -> Action:
    """The one action in `text`; never raises, and takes time linear in the length of `text`.

    A call or answer is one opening tag, a payload that is not blank, and the closing tag of the same name and
    bracket style. Free text may stand before and after. Before it, a thought may name tags: an opening tag that
    another one follows, a closing tag that nothing opened, or an empty pair. If `text` holds any other known tag (a
    second call, a call and an answer, an unclosed tag), or none at all, the action is malformed with payload ''.
    """
    kinds = {**tags, ANSWER_TAG: ActionKind.ANSWER}
    pattern = _tag_pattern(tuple(kinds))
    pair = _first_pair(text, pattern)
    if pair is None or pattern.search(text, pair[1].end()):
        return Action(ActionKind.MALFORMED, text, "")
    opening, closing = pair
    return Action(kinds[opening["name"]], text, text[opening.end() : closing.start()].strip())


def calls_of(text: str, tags: Mapping[str, str] = DEFAULT_TAGS) -> list[tuple[str, str]] | None:
    """Every call in `text`, as (kind, payload), in order; empty when it holds no known tag. Takes linear time.

    None where an opening tag is not closed before the next one, or a closing one was not opened. An answer's tag is
    text like any other.
    """
    found, opening = list[tuple[str, str]](), None
    for match in _tag_pattern(tuple(tags)).finditer(text) if tags else ():
        closes = "/" in match.group().replace(match["name"], "", 1)
        if closes != (opening is not None):
            return None
        if opening is None:
            opening = match
            continue
        if match["name"] != opening["name"] or bool(match["double"]) != bool(opening["double"]):
            return None
        found.append((tags[match["name"]], text[opening.end() : match.start()].strip()))
        opening = None
    return None if opening is not None else found


def kind_of_call(name: str) -> str:
    """The kind of a call of the logged tool `name`; one that is called as what is no call gets `tool:` before it."""
    taken = (ActionKind.ANSWER, ActionKind.MALFORMED, ActionKind.THINK, ActionKind.CUT)
    return f"tool:{name}" if name in taken else name


def is_thought(text: str, tags: Mapping[str, str] = DEFAULT_TAGS) -> bool:
    """Whether `text` says something and holds no known tag at all, so that no call or answer was tried."""
    return bool(text.strip()) and not _tag_pattern((*tags, ANSWER_TAG)).search(text)


def end_of_action(text: str, tags: Mapping[str, str] = DEFAULT_TAGS) -> int | None:
    """Where the first call or answer of `text` ends, in characters; None when there is none. Takes linear time."""
    pair = _first_pair(text, _tag_pattern((*tags, ANSWER_TAG)))
    return pair[1].end() if pair else None


def _first_pair(text: str, pattern: re.Pattern[str]) -> tuple[re.Match[str], re.Match[str]] | None:
    """The tags of the first call or answer; None when there is none, or another tag closes what was opened."""
    opening = None
    for match in pattern.finditer(text):
        if "/" not in match.group():
            opening = match
        elif opening:
            if match.group() != opening.group().replace(opening["name"], "/" + opening["name"]):
                return None
            if text[opening.end() : match.start()].strip():
                return opening, match
            opening = None
    return None


def render(kind: str, payload: str, tags: Mapping[str, str] = DEFAULT_TAGS) -> str:
    """The action as a model should write it: `<search_query> payload </search_query>`.

    Raises `ValueError` for a kind without a tag (such as malformed), and for a payload that `parse` would not
    give back: blank, or holding a known tag.
    """
    kinds = {**tags, ANSWER_TAG: ActionKind.ANSWER}
    for tag, its_kind in kinds.items():
        if its_kind == kind:
            text = f"<{tag}> {payload.strip()} </{tag}>"
            if parse(text, tags).payload != payload.strip() or not payload.strip():
                raise ValueError(f"the payload {payload!r} cannot be written as one {kind} action")
            return text
    raise ValueError(f"no tag writes an action of kind {kind!r}; the kinds are {', '.join(kinds.values())}")


@lru_cache(maxsize=64)
def _tag_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any opening or closing tag of these names, with single or doubled brackets."""
    name = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?P<double><)?</?(?P<name>{name})>(?(double)>)")
