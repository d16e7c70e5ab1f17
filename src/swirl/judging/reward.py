"""The generative reward model: asked for a verdict in a user turn after the action, it replies GOOD or BAD.

R(a | s) = P(GOOD) / (P(GOOD) + P(BAD)), read from the first token of its reply. The question may be any prompt file;
the model never sees golden labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swirl.comb.combs import Comb, chosen_of, group_by_budget, pack, split_teeth, within
from swirl.comb.logprobs import final_logits_of
from swirl.core.errors import ModelError
from swirl.core.flights import Flight
from swirl.core.threads import spread
from swirl.core.types import BAD, GOOD, NOT_JUDGED, ActionKind, Trajectory, Verdict
from swirl.models.chat import Chat

JUDGED_AT_ONCE = 16_384
"""Tokens that a local judge reads in one forward pass at most, where no param says it."""
LOWER = "runtime.workers if it is above 1, or take a smaller judge"
"""What helps a judge that has no room for half of these."""


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A local causal LM that judges steps. It must share the policy's tokenizer: tokens are judged as sampled."""

    name: str
    model: Any
    chat: Chat
    question: str
    """The user turn that asks for the verdict."""
    packed: bool = True
    token_budget: int = JUDGED_AT_ONCE
    """Maximum number of tokens in one forward pass, unless the actions of a single state have more; see `flight`."""
    workers: int = 1
    """Number of forward passes at the same time."""
    threshold: float = 0.5
    """Smallest R of a GOOD verdict."""
    context: int = 0
    """The most tokens of a state, an action, the question and the verdict; a longer one is not read. 0: no limit."""
    lower: str = LOWER
    """What to set lower where memory does not suffice for half of `token_budget`."""
    flight: Flight = field(init=False, repr=False, compare=False)
    """`token_budget`, halved where memory runs out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "flight", judged_flight(self.token_budget, self.lower))

    @property
    def verdict_ids(self) -> tuple[int, int]:
        """First tokens of GOOD and BAD. Raises `ModelError` when they do not differ."""
        good, bad = (self.chat.reply(word)[0] for word in (GOOD, BAD))
        if good == bad:
            raise ModelError("GOOD and BAD begin with the same token of this tokenizer; a verdict cannot be read")
        return good, bad

    def question_ids(self, closed: bool) -> tuple[int, ...]:
        """Ids of the question's turn up to where the verdict begins; `closed`: the action has its end of turn."""
        return self.chat.turn(self.question, closed)

    def tooth(self, action_ids: Sequence[int]) -> tuple[int, ...]:
        """Ids of an action, the question and GOOD: the prediction of the last token is the verdict."""
        closed = bool(action_ids) and action_ids[-1] in self.chat.end_ids
        return (*action_ids, *self.question_ids(closed), self.verdict_ids[0])

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth, one list per comb; each tooth is an action on its state, without the question.

        NaN where it does not fit into `context`.
        """
        judged = [pack(comb.trunk, [(tooth.sees, self.tooth(tooth.ids)) for tooth in comb.teeth]) for comb in combs]
        return self.read(judged)

    def trajectory_scores(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """R for every step, one list per trajectory; packed, each trajectory's tokens are read only once.

        A step that is cut has 0: half an action is not judged as if it were whole. NaN as for `scores`.
        """
        scores = iter(self.read([comb for trajectory in trajectories for comb in self.combs_of(trajectory)]))
        rows = [[score for _ in trajectory.pieces for score in next(scores)] for trajectory in trajectories]
        cut = [[step.action.kind == ActionKind.CUT for step in trajectory.steps] for trajectory in trajectories]
        return [[0.0 if half else r for half, r in zip(*pair, strict=True)] for pair in zip(cut, rows, strict=True)]

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict per step; `questions` is not used, because the conversation contains the question."""
        verdicts = []
        for trajectory, scores in zip(trajectories, self.trajectory_scores(trajectories), strict=True):
            for step, score in zip(trajectory.steps, scores, strict=True):
                cut = step.action.kind == ActionKind.CUT
                size = len(trajectory.state_ids(step.index)) + len(self.tooth(step.token_ids))
                if cut or self._fits(size):
                    good, why = not cut and score >= self.threshold, NOT_JUDGED if cut else ""
                    verdicts.append(Verdict(trajectory.id, step.index, good, score, why, self.name))
                else:
                    verdicts.append(Verdict(trajectory.id, step.index, None, None, self._too_long(size), self.name))
        return verdicts

    def combs_of(self, trajectory: Trajectory) -> list[Comb]:
        """A comb for each piece, with the conversation as trunk; after each action, a tooth asks for its verdict."""
        combs = []
        for piece in trajectory.pieces:
            teeth, trunk = list[tuple[int, tuple[int, ...]]](), list(trajectory.state_ids(piece[0].index))
            for step in piece:
                sees = len(trunk) + len(step.token_ids)
                teeth.append((sees, self.tooth(step.token_ids)[len(step.token_ids) :]))
                trunk += [*step.token_ids, *step.observation_ids]
            combs.append(pack(trunk, teeth))
        return combs

    def read(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth, one list per comb; each tooth must end with the token where the verdict is read.

        NaN where it does not fit into `context`.
        """
        fits = [self._fits(tooth.sees + len(tooth.ids)) for comb in combs for tooth in comb.teeth]
        kept = chosen_of(combs, fits)
        scores, known = iter(self.flight.run(lambda tokens: self._read(kept, tokens))), iter(fits)
        return [[next(scores) if next(known) else math.nan for _ in comb.teeth] for comb in combs]

    def _fits(self, size: int) -> bool:
        return not self.context or size <= self.context

    def _too_long(self, size: int) -> str:
        """Why there is no verdict on a step of so many tokens, with the question and the verdict."""
        most = self.context - len(self.question_ids(False)) - 1
        return (
            f"{size} tokens with the judge's question do not fit into its context of {self.context}: set "
            f"runtime.context to {most} at most, or take a judge that reads more"
        )

    def _read(self, combs: Sequence[Comb], tokens: int) -> list[float]:
        """R for every tooth of combs that fit into `context`, with so many tokens in a forward pass."""
        parts = within(combs, tokens) if self.packed else split_teeth(combs)
        groups = group_by_budget([part.packed_size for part in parts], tokens, self.workers)
        scored = spread(lambda group: self._read_group([parts[index] for index in group]), groups, self.workers)
        scores = {
            index: row
            for group, rows in zip(groups, scored, strict=True)
            for index, row in zip(group, rows, strict=True)
        }
        return [score for index in range(len(parts)) for score in scores[index]]

    def _read_group(self, combs: Sequence[Comb]) -> list[list[float]]:
        import torch

        with torch.no_grad():
            good, bad = final_logits_of(self.model, combs, self.packed, self.verdict_ids).float().unbind(-1)
            values = iter(torch.sigmoid(good - bad).tolist())
        return [[next(values) for _ in comb.teeth] for comb in combs]


def judged_flight(token_budget: int, lower: str) -> Flight:
    """How many tokens a local judge reads at once; `lower` says what to set lower."""
    return Flight("judge.tokens", token_budget, lower=lower)
