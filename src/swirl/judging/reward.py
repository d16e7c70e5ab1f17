"""The generative reward model: it is asked for a verdict in a user turn after the action, and says GOOD or BAD.

R(a | s) = P(GOOD) / (P(GOOD) + P(BAD)), read from the first token of its reply. The question may be any prompt file;
golden labels are never shown to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swirl.comb.combs import Comb, pack, share_out, split_teeth
from swirl.comb.logprobs import final_logits
from swirl.core.errors import ModelError
from swirl.core.threads import spread
from swirl.core.types import BAD, GOOD, Trajectory, Verdict
from swirl.models.chat import Chat


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A local causal LM that judges steps. It must share the policy's tokenizer: tokens are judged as sampled."""

    name: str
    model: Any
    chat: Chat
    question: str
    """The judge's turn."""
    packed: bool = True
    token_budget: int = 16384
    """Tokens that one forward reads, at most, unless one comb alone has more."""
    workers: int = 1
    """Forwards at the same time."""
    threshold: float = 0.5
    """Least R of a GOOD verdict."""

    @property
    def verdict_ids(self) -> tuple[int, int]:
        """First tokens of GOOD and BAD. Raises `ModelError` when they do not differ."""
        good, bad = (self.chat.reply(word)[0] for word in (GOOD, BAD))
        if good == bad:
            raise ModelError("GOOD and BAD begin with the same token of this tokenizer; a verdict cannot be read")
        return good, bad

    def question_ids(self, closed: bool) -> tuple[int, ...]:
        """The judge's turn, up to where the verdict is given."""
        return self.chat.turn(self.question, closed)

    def tooth(self, action_ids: Sequence[int]) -> tuple[int, ...]:
        """An action, the judge's turn and GOOD: the last token's prediction is the verdict."""
        closed = bool(action_ids) and action_ids[-1] in self.chat.end_ids
        return (*action_ids, *self.question_ids(closed), self.verdict_ids[0])

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth; the teeth are bare actions on their states. One list a comb."""
        judged = [pack(comb.trunk, [(tooth.sees, self.tooth(tooth.ids)) for tooth in comb.teeth]) for comb in combs]
        return self.read(judged)

    def trajectory_scores(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """R for every step of each trajectory, none for one without steps; each trajectory's tokens are read once."""
        scores = iter(self.read([self.comb_of(trajectory) for trajectory in trajectories if trajectory.steps]))
        return [next(scores) if trajectory.steps else [] for trajectory in trajectories]

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict a step, whatever `questions` (texts by id) say: the conversation holds the question."""
        verdicts = []
        for trajectory, scores in zip(trajectories, self.trajectory_scores(trajectories), strict=True):
            verdicts += [
                Verdict(trajectory.id, step.index, score >= self.threshold, score, "", self.name)
                for step, score in zip(trajectory.steps, scores, strict=True)
            ]
        return verdicts

    def comb_of(self, trajectory: Trajectory) -> Comb:
        """The conversation as the trunk; a tooth behind each action asks about it."""
        teeth = []
        for k, step in enumerate(trajectory.steps):
            sees = len(trajectory.state_ids(k)) + len(step.token_ids)
            teeth.append((sees, self.tooth(step.token_ids)[len(step.token_ids) :]))
        last = len(trajectory.steps)
        return pack(trajectory.state_ids(last), teeth)

    def read(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R for every tooth of combs whose teeth end where a verdict is read."""
        if not self.packed and any(len(comb.teeth) > 1 for comb in combs):
            single = iter(self.read(split_teeth(combs)))
            return [[next(single)[0] for _ in comb.teeth] for comb in combs]
        sizes = [comb.packed_size for comb in combs]
        groups = share_out(sizes, self.token_budget, self.workers)
        scored = spread(lambda group: self._read_group([combs[index] for index in group]), groups, self.workers)
        scores = {
            index: row
            for group, rows in zip(groups, scored, strict=True)
            for index, row in zip(group, rows, strict=True)
        }
        return [scores[index] for index in range(len(combs))]

    def _read_group(self, combs: Sequence[Comb]) -> list[list[float]]:
        import torch

        good, bad = self.verdict_ids
        with torch.no_grad():
            logits = final_logits(self.model, combs, self.packed).float()
            values = iter(torch.sigmoid(logits[:, good] - logits[:, bad]).tolist())
        return [[next(values) for _ in comb.teeth] for comb in combs]
