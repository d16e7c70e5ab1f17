"""Actions that are whole turns, as logs have them: text, any number of calls, or both; and which of them agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from swirl.core.types import Action, ActionKind
from swirl.rollout.native_reading import NativeReader
from swirl.rollout.reading import Reader
from swirl.rollout.whole_turns import WholeTurns
from swirl.tools.actions import calls_of

Calls = list[tuple[str, str]]
"""Kind of each call, and its arguments as JSON text of one spelling."""


class TurnReader(WholeTurns, Reader):
    """Reads actions that end with their turn alone: several calls are one action, and text without a call an answer."""

    __slots__ = ()

    def read(self, ids: tuple[int, ...]) -> Action:
        """The action of these tokens: of its first call's kind; malformed if a call is, or if it says nothing."""
        text = self.chat.text(ids)
        if self.cut(ids):
            return Action(ActionKind.CUT, text, "")
        start = self._start(text)
        said = "" if start is None else text[start:]
        calls = calls_of(said, self.tags)
        if calls is None or not said.strip() or any(_arguments(payload) is None for _, payload in calls):
            return Action(ActionKind.MALFORMED, text, "")
        if not calls:
            return Action(ActionKind.ANSWER, text, said.strip())
        return Action(calls[0][0], text, calls[0][1])

    def calls_in(self, text: str) -> Calls | None:
        """The calls after the thought of a turn; None where one is malformed, and where nothing is said."""
        start = self._start(text)
        said = "" if start is None else text[start:]
        calls = calls_of(said, self.tags) if said.strip() else None
        return None if calls is None else _known((kind, _arguments(payload)) for kind, payload in calls)


class NativeTurnReader(NativeReader):
    """As `TurnReader`, in a model's own tool format. Its `tags` are the log's tools, without schemas."""

    __slots__ = ()

    def read(self, ids: tuple[int, ...]) -> Action:
        """The action of these tokens: of its first call's kind; malformed if a call is, or if it says nothing."""
        text = self.chat.text(ids)
        if self.cut(ids):
            return Action(ActionKind.CUT, text, "")
        calls, said = self.calls_in(text), self._said(text)
        if calls is None or said is None:
            return Action(ActionKind.MALFORMED, text, "")
        if not calls:
            return Action(ActionKind.ANSWER, text, said.before.strip())
        return Action(calls[0][0], text, json.dumps(said.calls[0].arguments, ensure_ascii=False))

    def calls_in(self, text: str) -> Calls | None:
        """As `TurnReader.calls_in`; text after a call is malformed, too."""
        said = self._said(text)
        if said is None or said.broken or said.after or not (said.calls or said.before.strip()):
            return None
        return _known((self.tags.get(call.name), call.arguments) for call in said.calls)


class Agreement(NamedTuple):
    """What a drawn action has in common with the logged one."""

    same_tools: bool | None
    """The same tools in the same order, or no call in either; None where the logged action is malformed."""
    same_calls: bool | None
    """The same calls, arguments compared as JSON; None where the logged action makes none, or is malformed."""


def agreement(wanted: Calls | None, found: Calls | None) -> Agreement:
    """Compare the calls in a logged turn with those in a drawn one; one that says nothing agrees with none."""
    if wanted is None:
        return Agreement(None, None)
    same = found is not None and [kind for kind, _ in wanted] == [kind for kind, _ in found]
    return Agreement(same, wanted == found if wanted else None)


def _known(calls: Iterable[tuple[str | None, Mapping[str, Any] | None]]) -> Calls | None:
    """The calls with their arguments as JSON text of one spelling; None where one is malformed."""
    made: Calls = []
    for kind, arguments in calls:
        if kind is None or arguments is None:
            return None
        made.append((kind, json.dumps(arguments, sort_keys=True)))
    return made


def _arguments(payload: str) -> dict[str, Any] | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
