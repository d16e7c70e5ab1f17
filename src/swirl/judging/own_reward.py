"""A reward of the user's own: a class that scores a batch of states and actions, as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swirl.comb.combs import Comb
from swirl.core.errors import DataError
from swirl.core.types import ActionKind, Trajectory
from swirl.judging.rationale import readable
from swirl.models.tokens import Tokens


class Scorer(Protocol):
    """What a class of the user's project must have."""

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> Sequence[float | None]:
        """How good each action is in its state: 0 to 1, or None for no verdict.

        A state is the conversation so far, prompt, calls and results, with a line `---` between turns.
        """


@dataclass(frozen=True, slots=True)
class OwnReward:
    """Scores steps by a `Scorer`. Raises `DataError` when it fails, or gives anything but numbers from 0 to 1."""

    name: str
    """Its name in params."""
    scorer: Scorer
    chat: Tokens
    """The policy's, which turns its tokens into text."""

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth, one list per comb; NaN where there is no verdict."""
        states: list[str] = []
        actions: list[str] = []
        for comb in combs:
            known = {sees: readable(self.chat, comb.trunk[:sees]) for sees in {tooth.sees for tooth in comb.teeth}}
            states += [known[tooth.sees] for tooth in comb.teeth]
            actions += [self.chat.text(tooth.ids) for tooth in comb.teeth]
        found = iter(self._asked(states, actions))
        return [[next(found) for _ in comb.teeth] for comb in combs]

    def trajectory_scores(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """R for every step, one list per trajectory; 0 for a step that is cut, without asking."""
        steps = [(t, step) for t in trajectories for step in t.steps if step.action.kind != ActionKind.CUT]
        states = [readable(self.chat, t.state_ids(step.index)) for t, step in steps]
        found = iter(self._asked(states, [self.chat.text(step.token_ids) for _, step in steps]))
        return [[0.0 if step.action.kind == ActionKind.CUT else next(found) for step in t.steps] for t in trajectories]

    def _asked(self, states: Sequence[str], actions: Sequence[str]) -> list[float]:
        if not states:
            return []
        try:
            given: Any = self.scorer.scores(states, actions)
            values = list(given)
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"reward {self.name}: scores failed with {type(error).__name__}: {error}") from error
        if len(values) != len(actions):
            raise DataError(f"reward {self.name}: scores gave {len(values)} scores for {len(actions)} actions")
        return [self._number(value, action) for value, action in zip(values, actions, strict=True)]

    def _number(self, value: object, action: str) -> float:
        if value is None:
            return math.nan
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= 1:
            raise DataError(
                f"reward {self.name}: scores gave {str(value)[:80]!r} for the action {action[:80]!r}; expected a "
                "number from 0 to 1, or None for no verdict"
            )
        return number
