"""Several rewards as one: R(a | s) = sum_i w_i R_i(a | s) / sum_i w_i, of the judge and of rewards of one's own.

Without a verdict of one of them there is none of all: the others alone would be another reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swirl.comb.combs import Comb
from swirl.core.types import NOT_JUDGED, ActionKind, Trajectory, Verdict
from swirl.judging.own_reward import OwnReward
from swirl.judging.rationale import RationaleJudge
from swirl.judging.reward import RewardModel

Judge = RewardModel | RationaleJudge


@dataclass(frozen=True, slots=True)
class Part:
    """One reward of a mixture."""

    weight: float
    """Above 0; only ratios of weights count."""
    reward: Judge | OwnReward


@dataclass(frozen=True, slots=True)
class MixedReward:
    """A weighted mean of rewards, at least one and at most one judge among them."""

    parts: tuple[Part, ...]
    threshold: float
    """Smallest R of a GOOD verdict."""

    @property
    def name(self) -> str:
        """The names of the parts."""
        return "+".join(part.reward.name for part in self.parts)

    @property
    def judge(self) -> Judge | None:
        """The judge among the parts."""
        return next((part.reward for part in self.parts if not isinstance(part.reward, OwnReward)), None)

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth, one list per comb; NaN where one of the parts gives no verdict."""
        return self._mean([part.reward.scores(combs) for part in self.parts])

    def trajectory_scores(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """R for every step, one list per trajectory; NaN as for `scores`, 0 for a step that is cut."""
        return self._mean([part.reward.trajectory_scores(trajectories) for part in self.parts])

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict per step, whose rationale begins with the score of each part; `questions` maps id to text."""
        reasons: list[str] = []
        rows: list[list[float]] = []
        for part in self.parts:
            if isinstance(part.reward, OwnReward):
                rows.append([score for row in part.reward.trajectory_scores(trajectories) for score in row])
                continue
            verdicts = part.reward.process_verdicts(trajectories, questions)
            reasons = [verdict.rationale for verdict in verdicts]
            rows.append([math.nan if verdict.score is None else verdict.score for verdict in verdicts])
        (mixed,) = self._mean([[row] for row in rows])
        steps = [(trajectory, step) for trajectory in trajectories for step in trajectory.steps]
        made = []
        for i, (trajectory, step) in enumerate(steps):
            score = None if math.isnan(mixed[i]) else mixed[i]
            cut = step.action.kind == ActionKind.CUT
            good = None if score is None else score >= self.threshold and not cut
            said = NOT_JUDGED if cut else self._said([row[i] for row in rows], reasons[i] if reasons else "")
            made.append(Verdict(trajectory.id, step.index, good, score, said, self.name))
        return made

    def _mean(self, rewards: Sequence[list[list[float]]]) -> list[list[float]]:
        """The weighted mean over the parts of rows of equal shape."""
        weights = [part.weight for part in self.parts]

        def mean(of_action: Sequence[float]) -> float:
            return sum(w * r for w, r in zip(weights, of_action, strict=True)) / sum(weights)

        return [[mean(of_action) for of_action in zip(*rows, strict=True)] for rows in zip(*rewards, strict=True)]

    def _said(self, scores: Sequence[float], reason: str) -> str:
        pairs = zip(self.parts, scores, strict=True)
        shown = ", ".join(f"{part.reward.name} {'none' if math.isnan(r) else f'{r:.2f}'}" for part, r in pairs)
        return f"{shown}\n{reason}".rstrip()
