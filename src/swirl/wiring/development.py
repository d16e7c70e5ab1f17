"""Measurements during training: label-free looks for the guard, and metrics from golden labels for the log only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from swirl.benchmarks.oracle import label_steps
from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.distributed import Processes
from swirl.core.grading import grade
from swirl.core.layout import Layout
from swirl.core.types import LOGGED, Action, ActionKind, Trajectory
from swirl.models.sharding import whole
from swirl.pipeline.progress import SHORT, Progress
from swirl.rl.drawn_actions import Group
from swirl.rollout.engine import Policy
from swirl.rollout.reading import reader_for
from swirl.tools.actions import DEFAULT_TAGS
from swirl.wiring.attempts import attempts, flight_of, roll_out_all, sampling
from swirl.wiring.logged_states import DrawnAction, LoggedStates, logged_trajectories
from swirl.wiring.oracles import oracles_of
from swirl.wiring.questions import derivations_of, questions_of
from swirl.wiring.rewards import fitted, load_reward
from swirl.wiring.tools import built_in


class Development:
    """Measures the policy on the development questions, label-free for the guard and by golden labels for the log.

    Questions with tools are rolled out; in the states of logged conversations actions are drawn, and no tool runs.
    """

    def __init__(
        self, params: Params, layout: Layout, policy: Policy, processes: Processes, ahead: float = 0.0
    ) -> None:
        """`ahead` are bytes that training will take on the policy's device, and keep."""
        self._params, self._policy, self._processes = params, policy, processes
        self._questions = {question.id: question for question in questions_of(layout, "development")}
        rolled = [question for question in self._questions.values() if question.task != LOGGED]
        self._attempts = attempts(params, layout, rolled, 1)
        self._logged = list(logged_trajectories(layout, self._questions))
        # First: flights are planned with the memory that it leaves.
        self.judge = fitted(load_reward(params, layout), params.train.packed, params.train.token_budget)
        self._states = LoggedStates(params, layout, policy, self._questions, ahead)
        self._derivations, self._oracles = derivations_of(layout), oracles_of(layout, self._questions.values())
        share = -(-len(self._attempts) // (processes.count * params.runtime.workers))
        self._flight = flight_of(params, policy, share, ahead)

    def resume(self, kept: Checkpoints) -> None:
        """Look as an interrupted training did, whose flights are noted beside its checkpoints; see `Flight.resume`."""
        rank = self._processes.rank
        self._flight.resume(kept.flight("looks", rank))
        self._states.resume(kept.flight("logged", rank))

    def look(self) -> dict[str, float]:
        """What the policy does greedily on the development questions, and what its reward is; empty without questions.

        Keys that begin with `golden.` come from golden labels: they are logged, and decide nothing.
        """
        params, together = self._params, self._processes.together
        label = "a look at the development questions"
        with whole(self._policy.model), Progress(len(self._attempts), label, after=SHORT) as bar:
            share = self._processes.count  # this process's part stands for all
            made = together(
                self._attempts,
                lambda mine: roll_out_all(
                    params, self._policy, mine, 0.0, 0, lambda n: bar.update(n * share), self._flight
                ),
            )
            drawn = together(self._logged, self._drawn)
        judged = together(made, self.judge.trajectory_scores)
        pairs = list(zip(self._logged, drawn, strict=True))
        looked = [one for row in together(pairs, self._looked_at) for one in row]
        scores = [value for row in judged for value in row if not math.isnan(value)]  # NaN: no verdict
        scores += [one.reward for one in looked if not math.isnan(one.reward)]
        steps = [step for trajectory in made for step in trajectory.steps]
        actions = len(steps) + len(looked)
        if not actions:
            return {}
        kinds = Counter([*(step.action.kind for step in steps), *(one.kind for one in looked)])
        known = {"same_tools": [one.same_tools for one in looked], "same_calls": [one.same_calls for one in looked]}
        agreed = {name: [same for same in values if same is not None] for name, values in known.items()}
        return {
            **({"development.reward": sum(scores) / len(scores)} if scores else {}),
            **({"development.steps": len(steps) / len(made)} if made else {}),
            "development.malformed": kinds[ActionKind.MALFORMED] / actions,
            "development.cut": kinds[ActionKind.CUT] / actions,
            **{f"development.{name}": sum(same) / len(same) for name, same in agreed.items() if same},
            **(self._golden(made, judged) if self._processes.main else {}),  # only the main process logs
        }

    def _drawn(self, trajectories: list[Trajectory]) -> list[list[list[tuple[int, ...]]]]:
        return self._states.draw(trajectories, sampling(self._params, 0.0), 1, 0)

    def _looked_at(self, pairs: list[tuple[Trajectory, list[list[tuple[int, ...]]]]]) -> list[list[DrawnAction]]:
        return self._states.looked_at([one for one, _ in pairs], [drawn for _, drawn in pairs], self.judge)

    def sampled(self, drawn: Sequence[list[Group]]) -> dict[str, float]:
        """The share of an update's sampled actions that the oracle calls GOOD, for the log only.

        `drawn` is this process's share of the update (`Trainer.drawn`). Empty without derivations.
        """
        mine = [self._labels(groups) for groups in drawn]
        labels = [label for of_process in self._processes.gather(mine) for of_group in of_process for label in of_group]
        return {"golden.sampled_label": sum(labels) / len(labels)} if labels else {}

    def _labels(self, groups: list[Group]) -> list[bool]:
        """The oracle's label of each sampled action, for the states whose earlier actions are all in the groups."""
        derivation = self._derivations.get(groups[0].state.question_id)
        if derivation is None:
            return []
        tool = ActionKind.SEARCH if derivation.kind == ActionKind.SEARCH else ActionKind.CALCULATE
        tags = {tag: kind for tag, kind in DEFAULT_TAGS.items() if kind == tool}  # as in a rollout of this question
        named = built_in(tool) if self._policy.chat.native else tags
        reader = reader_for(self._policy.chat, named, self._params.actions.thought_only == "allow")

        def read(ids: tuple[int, ...]) -> list[Action]:
            """An action, as one for each of its calls."""
            action = reader.read(ids)
            called = [Action(kind, action.text, payload) for kind, payload in reader.calls(action)]
            return called or [action]

        before = [read(group.state.action_ids) for group in groups]
        labels = []
        for k, group in enumerate(groups):
            if group.state.step != k:
                continue
            earlier = [action for step in before[:k] for action in step]
            different = {ids: read(ids) for ids in group.actions}
            good = {
                ids: all(label_steps(derivation, [*earlier, *calls])[-len(calls) :]) for ids, calls in different.items()
            }
            labels += [good[ids] for ids in group.actions]
        return labels

    def _golden(self, made: list[Trajectory], judged: list[list[float]]) -> dict[str, float]:
        """Accuracy by benchmark, the oracle's process label, and how often the reward model agrees with the oracle."""
        right: dict[str, list[float]] = {}
        for trajectory in made:
            question = self._questions[trajectory.question_id]
            right.setdefault(question.benchmark, []).append(float(grade(trajectory.answer, question.answers)))
        golden = {f"golden.{name}.accuracy": sum(values) / len(values) for name, values in right.items()}
        known = [(t, row) for t, row in zip(made, judged, strict=True) if t.question_id in self._oracles]
        if not known:
            return golden
        oracle = [self._oracles[t.question_id](t) for t, _ in known]
        golden["golden.process_label"] = sum(_share(labels) for labels in oracle) / len(oracle)
        both = [pair for good, (_, row) in zip(oracle, known, strict=True) for pair in zip(good, row, strict=True)]
        agree = [good == (score >= self.judge.threshold) for good, score in both if not math.isnan(score)]
        if agree:
            golden["golden.judge_agreement"] = sum(agree) / len(agree)
        return golden


def _share(labels: Sequence[bool]) -> float:
    """The share of GOOD among a trajectory's steps; 0 without steps."""
    return sum(labels) / len(labels) if labels else 0.0
