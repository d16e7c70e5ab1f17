"""What a model does in the states of logged conversations that it was not trained on, where no tool can be run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from swirl.comb.combs import Comb, group_by_budget, pack
from swirl.comb.sampling import Sampling
from swirl.comb.teeth import UnsampledComb, sample_teeth
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.flights import Flight
from swirl.core.layout import Layout
from swirl.core.records import stream
from swirl.core.seeds import derive
from swirl.core.threads import spread
from swirl.core.types import LOGGED, Question, Trajectory
from swirl.models import room
from swirl.rollout.engine import READ_AT_ONCE, Policy
from swirl.rollout.turns import agreement
from swirl.wiring.tools import Toolbox

Ids = tuple[int, ...]


class Scorer(Protocol):
    """A reward or a judge that scores actions in states."""

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth of every comb, in [0, 1]; NaN without a verdict."""
        ...


@dataclass(frozen=True, slots=True)
class DrawnAction:
    """An action that a policy drew in the state of a logged step."""

    step: int
    sample: int
    text: str
    kind: str
    reward: float
    """NaN without a verdict or a judge; 0, without asking, for one that is cut."""
    same_tools: bool | None
    same_calls: bool | None
    """As `swirl.rollout.turns.Agreement` has them."""


def logged_trajectories(layout: Layout, questions: Mapping[str, Question]) -> Iterator[Trajectory]:
    """The logged trajectories of those of the questions that are of logs, in the order of the log."""
    if any(question.task == LOGGED for question in questions.values()):
        for group in stream(Trajectory, layout.logged):
            yield from (one for one in group if one.question_id in questions)


class LoggedStates:
    """Draws actions in the states of logged trajectories, scores them, and compares them with the logged ones."""

    def __init__(
        self, params: Params, layout: Layout, policy: Policy, questions: Mapping[str, Question], ahead: float = 0.0
    ) -> None:
        """`questions` are by id; `ahead` are bytes that something else will take on the policy's device."""
        self._policy, self._questions, self._workers = policy, questions, params.runtime.workers
        self._toolbox, self._longest = Toolbox(params, layout), params.rollout.max_action_tokens
        self._flight: Flight | None = None
        if any(question.task == LOGGED for question in questions.values()):
            self._flight = room.samples(policy.model, READ_AT_ONCE, self._longest, self._workers, ahead)

    def resume(self, path: Path) -> None:
        """Go on with the flight in the file `path`, if that was smaller; see `Flight.resume`."""
        if self._flight:
            self._flight.resume(path)

    def draw(
        self, trajectories: Sequence[Trajectory], sampling: Sampling, samples: int, seed: int
    ) -> list[list[list[Ids]]]:
        """`samples` actions for each step of each trajectory; each is drawn from a seed of its own.

        Raises `DataError` for a state that the model has no room for.
        """
        bare = [comb for trajectory in trajectories for comb in _bare(trajectory, samples, seed)]
        owners = [trajectory for trajectory in trajectories for _ in trajectory.pieces]
        for trajectory, comb in zip(owners, bare, strict=True):
            if len(comb.trunk) + self._longest > self._policy.context:
                raise DataError(
                    f"logged trajectory {trajectory.id} has a state of {len(comb.trunk)} tokens, and with an action of "
                    f"{self._longest} it is longer than {self._policy.name}'s context of {self._policy.context}"
                )
        sizes = [len(comb.trunk) + len(comb.teeth) * self._longest for comb in bare]
        model, end_ids = self._policy.model, self._policy.chat.end_ids

        def drawn(tokens: int) -> dict[int, list[Ids]]:
            shares = group_by_budget(sizes, tokens, self._workers)
            made = spread(
                lambda share: sample_teeth(model, [bare[i] for i in share], sampling, end_ids), shares, self._workers
            )
            both = zip(shares, made, strict=True)
            pairs = (pair for share, of_share in both for pair in zip(share, of_share, strict=True))
            return {number: [tooth.ids for tooth in teeth] for number, teeth in pairs}

        of_comb = self._flight.run(drawn) if self._flight else {}
        teeth = iter([ids for i in range(len(bare)) for ids in of_comb[i]])
        return [[list(islice(teeth, samples)) for _ in trajectory.steps] for trajectory in trajectories]

    def looked_at(
        self, trajectories: Sequence[Trajectory], actions: Sequence[list[list[Ids]]], judge: Scorer | None
    ) -> list[list[DrawnAction]]:
        """What the drawn actions of each trajectory are, what `judge` gives them, and how they agree with the log."""
        chat = self._policy.chat
        readers = [self._toolbox.turn_reader(self._questions[t.question_id], chat) for t in trajectories]
        whole = [
            [[ids for ids in dict.fromkeys(of_step) if not reader.cut(ids)] for of_step in of_one]
            for reader, of_one in zip(readers, actions, strict=True)
        ]
        scores = iter(_scored(trajectories, whole, judge))
        found = []
        for trajectory, reader, of_one, asked in zip(trajectories, readers, actions, whole, strict=True):
            rows = []
            for step, drawn, distinct in zip(trajectory.steps, of_one, asked, strict=True):
                table = {ids: next(scores) for ids in distinct} if judge else {}
                for sample, ids in enumerate(drawn):
                    action, cut = reader.read(ids), reader.cut(ids)
                    reward = math.nan if judge is None else 0.0 if cut else table[ids]
                    same = agreement(reader.calls_in(step.action.text), None if cut else reader.calls_in(action.text))
                    rows.append(DrawnAction(step.index, sample, action.text, action.kind, reward, *same))
            found.append(rows)
        return found


def _bare(trajectory: Trajectory, samples: int, seed: int) -> list[UnsampledComb]:
    """A comb for each piece, whose teeth are to be sampled."""
    combs = []
    for piece in trajectory.pieces:
        teeth = [
            (len(trajectory.state_ids(step.index)), derive(seed, trajectory.id, step.index, k))
            for step in piece
            for k in range(samples)
        ]
        combs.append(UnsampledComb(trajectory.state_ids(piece[-1].index), tuple(teeth), lambda ids: False))
    return combs


def _scored(
    trajectories: Sequence[Trajectory], actions: Sequence[list[list[Ids]]], judge: Scorer | None
) -> list[float]:
    """The judge's scores of the actions of all steps, in their order; none without a judge."""
    if judge is None:
        return []
    combs = []
    for trajectory, of_one in zip(trajectories, actions, strict=True):
        for piece in trajectory.pieces:
            teeth = [(len(trajectory.state_ids(k.index)), ids) for k in piece for ids in of_one[k.index]]
            if teeth:
                combs.append(pack(trajectory.state_ids(piece[-1].index), teeth))
    return [score for comb in judge.scores(combs) for score in comb]
