"""The four filters over one hand-made table of verdicts."""

from __future__ import annotations

import random

import pytest

from swirl.core.types import OUTCOME, Action, Step, Stop, Strategy, SubTrajectory, Trajectory, Verdict
from swirl.judging.filters import join, keep, sub_trajectories


def attempt(name: str, stop: Stop = Stop.ANSWERED, steps: int = 2) -> Trajectory:
    """Prompt tokens 1, 2; step k: action 10k+10, 10k+11, observation 10k+12, 10k+13 (none after the last step)."""
    made = tuple(
        Step(
            k,
            Action("answer" if k == steps - 1 and stop is Stop.ANSWERED else "search", "", "x"),
            (),
            (10 * k + 10, 10 * k + 11),
            (-0.5, -0.5),
            () if k == steps - 1 else (10 * k + 12, 10 * k + 13),
        )
        for k in range(steps)
    )
    return Trajectory(name, f"q-{name}", "mini-hotpotqa", 0, "base", 0, (1, 2), made, stop, "")


def verdicts(name: str, *good: bool | None, outcome: bool | None) -> list[Verdict]:
    """One verdict per step and one on the outcome; the score is 0.75 if good, 0.25 if bad, else None."""
    scores = {True: 0.75, False: 0.25, None: None}
    table = [*enumerate(good), (OUTCOME, outcome)]
    return [Verdict(name, step, word, scores[word], "", "judge") for step, word in table]


TRAJECTORIES = [
    attempt("all-good"),
    attempt("wrong-answer"),
    attempt("one-bad"),
    attempt("null-step"),
    attempt("null-outcome"),
    attempt("unanswered", Stop.STEP_LIMIT),
    attempt("step-not-judged"),
]
VERDICTS = [
    *verdicts("all-good", True, True, outcome=True),
    *verdicts("wrong-answer", True, True, outcome=False),
    *verdicts("one-bad", False, True, outcome=True),
    *verdicts("null-step", True, None, outcome=True),
    *verdicts("null-outcome", True, True, outcome=None),
    # Even a judge that calls everything good does not make an unanswered trajectory pass.
    *verdicts("unanswered", True, True, outcome=True),
    *verdicts("step-not-judged", True, outcome=True),
]


def kept(strategy: Strategy, most: int = 0, seed: int = 0) -> list[str]:
    judged = keep(join(TRAJECTORIES, VERDICTS), strategy, most, random.Random(seed))
    return [item.trajectory.id for item in judged]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (Strategy.NONE, [trajectory.id for trajectory in TRAJECTORIES]),
        (Strategy.PROCESS, ["all-good", "wrong-answer", "null-outcome"]),
        (Strategy.OUTCOME, ["all-good", "one-bad", "null-step", "step-not-judged"]),
        (Strategy.BOTH, ["all-good"]),
    ],
)
def test_what_each_strategy_keeps(strategy: Strategy, names: list[str]) -> None:
    assert kept(strategy) == names


def test_max_trajectories_makes_arms_equal_and_repeatable() -> None:
    arms = [kept(strategy, most=3, seed=5) for strategy in (Strategy.NONE, Strategy.PROCESS, Strategy.OUTCOME)]
    assert [len(arm) for arm in arms] == [3, 3, 3]
    assert arms[0] == kept(Strategy.NONE, most=3, seed=5)
    order = [trajectory.id for trajectory in TRAJECTORIES]
    assert sorted(arms[0], key=order.index) == arms[0]
    assert len({tuple(kept(Strategy.NONE, most=3, seed=seed)) for seed in range(10)}) > 1
    assert kept(Strategy.BOTH, most=3) == ["all-good"]


def test_a_trajectory_without_steps_is_left_out() -> None:
    assert join([attempt("empty", Stop.CONTEXT_FULL, steps=0)], []) == []


def test_sub_trajectories_are_exact_prefixes_and_their_actions() -> None:
    table = [
        Verdict("t", 0, True, 0.75, "", "judge"),
        Verdict("t", 1, None, None, "", "judge"),
        Verdict("t", OUTCOME, True, 1.0, "", "judge"),
    ]
    assert sub_trajectories(join([attempt("t", steps=3)], table)) == [
        SubTrajectory("t", "q-t", "mini-hotpotqa", 0, (1, 2), (10, 11), 0.75),
        SubTrajectory("t", "q-t", "mini-hotpotqa", 1, (1, 2, 10, 11, 12, 13), (20, 21), None),
        SubTrajectory("t", "q-t", "mini-hotpotqa", 2, (1, 2, 10, 11, 12, 13, 20, 21, 22, 23), (30, 31), None),
    ]
