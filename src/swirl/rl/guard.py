"""The guard of step-wise RL: stops a run that deteriorates, by metrics that need no golden label."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the guard: `train.swirl.guard` in params.yaml."""

    max_kl: float
    max_step_growth: float
    max_malformed: float
    max_reward_drop: float
    max_unjudged: float


@dataclass(frozen=True, slots=True)
class Look:
    """Metrics of a look at the development questions, and means over the updates before it; no golden label."""

    reward: float | None
    """None when the reward model gave no verdict."""
    kl: float
    steps: float | None
    """A trajectory; None where there are only actions in logged states."""
    malformed: float | None
    """Share of the actions that do nothing: malformed or cut; None without development questions."""
    unjudged: float = 0.0
    """Share of the sampled actions without a verdict of the reward model; only KL trains the policy on these."""


def stop_reason(looks: list[Look], limits: Limits) -> str:
    """The reason to stop, by comparing the last look with the first and the best; empty when there is none."""
    start, now = looks[0], looks[-1]
    if not all(math.isfinite(value) for value in astuple(now) if value is not None):
        return f"a metric is not a finite number: {now}"
    best = max((look.reward for look in looks if look.reward is not None), default=0.0)
    if now.kl > limits.max_kl:
        return f"KL to the reference is {now.kl:.3f} nats per action, above {limits.max_kl}"
    if now.steps is not None and start.steps is not None and now.steps > limits.max_step_growth * start.steps:
        return f"steps a trajectory grew from {start.steps:.2f} to {now.steps:.2f}, above x {limits.max_step_growth}"
    if now.malformed is not None and now.malformed > max(limits.max_malformed, start.malformed or 0.0):
        return f"{now.malformed:.1%} of actions are malformed or cut, above {limits.max_malformed:.1%}"
    if now.unjudged > limits.max_unjudged:
        return f"the reward model gave no verdict on {now.unjudged:.1%} of the actions, above {limits.max_unjudged:.1%}"
    if now.reward is not None and now.reward < best - limits.max_reward_drop:
        return f"the mean reward fell from {best:.3f} to {now.reward:.3f}, more than {limits.max_reward_drop}"
    return ""
