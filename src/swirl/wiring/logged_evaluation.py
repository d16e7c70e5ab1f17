"""Evaluation on held-out logged conversations: a model's actions in their states, a journalled block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from swirl.config.params import Params
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.seeds import derive
from swirl.core.types import JudgeRole, Question, StateAction, Trajectory
from swirl.judging.rationale import RationaleJudge, Tally
from swirl.rollout.engine import Policy
from swirl.wiring.attempts import blocks, sampling
from swirl.wiring.label_judges import NoJudge, load_label_judge
from swirl.wiring.logged_states import DrawnAction, LoggedStates
from swirl.wiring.policies import load_local_policy
from swirl.wiring.rewards import Reward, judge_of
from swirl.wiring.verdict_blocks import Asked, Failures


def evaluate_states(
    params: Params,
    layout: Layout,
    item: str,
    trajectories: Sequence[Trajectory],
    questions: Mapping[str, Question],
    journal: Journal,
    done: Callable[[int], None],
) -> list[StateAction]:
    """What the model `item` does in the states of `trajectories`, by `evaluate`'s samples, temperature and judge.

    Raises `DataError` when the judge's server fails for more than may fail.
    """
    settings = params.evaluate
    policy = load_local_policy(params, layout.model(item), item)
    judge, role = load_label_judge(params, layout)
    states = LoggedStates(params, layout, policy, questions)
    seed, drawn_by = derive(params.seed, "evaluate", "logged"), sampling(params, settings.temperature)
    steps = sum(len(trajectory.steps) for trajectory in trajectories) * settings.samples
    failures = Failures(params.check_steps.max_null_rate, steps, 0)
    found: list[StateAction] = []
    for number, block in enumerate(blocks(trajectories, settings.block_size or params.rollout.block_size)):
        if journal.holds(number, StateAction):
            found += journal.records(number, StateAction)
        else:
            actions = states.draw(block, drawn_by, settings.samples, seed)
            looked, whole = _looked_at(states, block, actions, judge, failures)
            rows = [
                _row(one, trajectory, policy, judge.name, role)
                for trajectory, of_one in zip(block, looked, strict=True)
                for one in of_one
            ]
            if whole:
                journal.commit(number, StateAction, rows)
            found += rows
        done(len(block))
    failures.check()
    return found


def _looked_at(
    states: LoggedStates,
    block: Sequence[Trajectory],
    actions: Sequence[list[list[tuple[int, ...]]]],
    judge: Reward | NoJudge,
    failures: Failures,
) -> tuple[list[list[DrawnAction]], bool]:
    """The drawn actions, and whether no request to the judge's server failed, so that they can be committed."""
    writer = judge_of(judge)
    if isinstance(writer, RationaleJudge):
        writer.tally = Tally(writer.name)
    looked = states.looked_at(block, actions, None if isinstance(judge, NoJudge) else judge)
    if not isinstance(writer, RationaleJudge):
        return looked, True
    failures.add((Asked(True, False, writer.tally),))
    return looked, not writer.tally.failed


def _row(one: DrawnAction, trajectory: Trajectory, policy: Policy, judge: str, role: JudgeRole) -> StateAction:
    return StateAction(
        trajectory.id,
        trajectory.question_id,
        trajectory.benchmark,
        policy.name,
        one.step,
        one.sample,
        one.text,
        one.kind,
        None if math.isnan(one.reward) else one.reward,
        judge,
        role,
        one.same_tools,
        one.same_calls,
    )
