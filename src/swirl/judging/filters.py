"""The paper's four filters over one table of verdicts: they decide which trajectories are trained on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from swirl.core.types import OUTCOME, Stop, Strategy, SubTrajectory, Trajectory, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """A trajectory and its verdicts; None where the table has none."""

    trajectory: Trajectory
    steps: tuple[Verdict | None, ...]
    outcome: Verdict | None

    @property
    def passes_process(self) -> bool:
        """Answered, and every step judged GOOD."""
        answered = self.trajectory.stop is Stop.ANSWERED
        return answered and all(verdict is not None and verdict.good is True for verdict in self.steps)

    @property
    def passes_outcome(self) -> bool:
        """Answered, and the answer judged right."""
        right = self.outcome is not None and self.outcome.good is True
        return self.trajectory.stop is Stop.ANSWERED and right

    def passes(self, strategy: Strategy) -> bool:
        """Whether `strategy` keeps the trajectory. A null verdict passes no filter that needs it."""
        process = strategy in (Strategy.NONE, Strategy.OUTCOME) or self.passes_process
        return process and (strategy in (Strategy.NONE, Strategy.PROCESS) or self.passes_outcome)


def join(trajectories: Sequence[Trajectory], verdicts: Sequence[Verdict]) -> list[Judged]:
    """Each trajectory with its verdicts; trajectories without steps are left out."""
    table = {(verdict.trajectory_id, verdict.step): verdict for verdict in verdicts}
    return [
        Judged(t, tuple(table.get((t.id, step.index)) for step in t.steps), table.get((t.id, OUTCOME)))
        for t in trajectories
        if t.steps
    ]


def keep(judged: Sequence[Judged], strategy: Strategy, most: int, rng: random.Random) -> list[Judged]:
    """The trajectories that `strategy` keeps, in order; of more than `most` (0: no limit), a random sample."""
    passed = [item for item in judged if item.passes(strategy)]
    if most and len(passed) > most:
        chosen = set(rng.sample(range(len(passed)), most))
        passed = [item for index, item in enumerate(passed) if index in chosen]
    return passed


def sub_trajectories(judged: Sequence[Judged]) -> list[SubTrajectory]:
    """The sub-trajectories of all kept trajectories: K pairs (state, action) for K actions (paper, section 3.1)."""
    rows = []
    for item in judged:
        trajectory = item.trajectory
        for step, verdict in zip(trajectory.steps, item.steps, strict=True):
            rows.append(
                SubTrajectory(
                    trajectory_id=trajectory.id,
                    question_id=trajectory.question_id,
                    benchmark=trajectory.benchmark,
                    step=step.index,
                    state_ids=trajectory.state_ids(step.index),
                    action_ids=step.token_ids,
                    score=verdict.score if verdict else None,
                )
            )
    return rows
