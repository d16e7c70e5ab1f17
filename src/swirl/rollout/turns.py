"""Actions that are whole turns, as logs have them: text, any number of calls, or both; and which of them agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from swirl.core.types import Action, ActionKind
from swirl.rollout.reading import Reader
from swirl.rollout.whole_turns import WholeTurns
from swirl.tools.actions import calls_of


class TurnReader(WholeTurns, Reader):
    """Reads actions that end with their turn alone: several calls are one action, and text without a call an answer."""

    __slots__ = ()

    def read(self, ids: tuple[int, ...]) -> Action:
        """The action of these tokens: of its first call's kind; malformed if a call is, or if it says nothing."""
        text = self.chat.text(ids)
        if self.cut(ids):
            return Action(ActionKind.CUT, text, "")
        calls = calls_of(text, self.tags)
        if calls is None or not text.strip() or any(_arguments(payload) is None for _, payload in calls):
            return Action(ActionKind.MALFORMED, text, "")
        if not calls:
            return Action(ActionKind.ANSWER, text, text.strip())
        return Action(calls[0][0], text, calls[0][1])


class Agreement(NamedTuple):
    """What a drawn action has in common with the logged one."""

    same_tools: bool | None
    """The same tools in the same order, or no call in either; None where the logged action is malformed."""
    same_calls: bool | None
    """The same calls, arguments compared as JSON; None where the logged action makes none, or is malformed."""


def agreement(logged: str, drawn: str, tags: Mapping[str, str]) -> Agreement:
    """Compare two turns' texts; a drawn turn that says nothing agrees with none."""
    wanted, found = _calls(logged, tags), _calls(drawn, tags) if drawn.strip() else None
    if wanted is None:
        return Agreement(None, None)
    same = found is not None and [kind for kind, _ in wanted] == [kind for kind, _ in found]
    return Agreement(same, wanted == found if wanted else None)


def _calls(text: str, tags: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """The calls with their arguments as JSON text of one spelling; None where one is malformed."""
    calls, made = calls_of(text, tags), list[tuple[str, str]]()
    if calls is None:
        return None
    for kind, payload in calls:
        arguments = _arguments(payload)
        if arguments is None:
            return None
        made.append((kind, json.dumps(arguments, sort_keys=True)))
    return made


def _arguments(payload: str) -> dict[str, Any] | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
