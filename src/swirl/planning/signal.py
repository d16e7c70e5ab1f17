"""States without a signal: the sampled actions of a state all get the same reward, so that no advantage pulls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection

from swirl.config.params import Params, reward_asks_judge
from swirl.config.train import Swirl
from swirl.planning.estimates import packs

LEVELS = (0.5, 0.7, 0.9, 0.95)
"""P(GOOD) for which the share of such states is shown."""
TYPICAL = 0.9
"""P(GOOD) at which the plan warns."""
LIMIT = 0.5
"""Largest share of such states at `TYPICAL` without a warning."""


def no_signal(good: float, samples: int, votes: int = 1) -> float:
    """The probability that G actions of a state all get the same reward, which is k / V for k GOOD votes of V.

    sum_k [C(V, k) p^k (1 - p)^(V - k)]^G with p = `good`, G = `samples` and V = `votes`; for one vote p^G + (1 - p)^G.
    Every vote on every action is GOOD with probability p, independently of all others. The true share is larger where
    an action is drawn twice, or where votes on an action agree: if they always do, it is that of one vote.
    """
    if good in (0, 1):
        return 1.0
    shares = []  # logarithms, since the binomials of many votes are beyond a float
    for k in range(votes + 1):
        ways = math.lgamma(votes + 1) - math.lgamma(k + 1) - math.lgamma(votes - k + 1)
        shares.append(ways + k * math.log(good) + (votes - k) * math.log1p(-good))
    return sum(math.exp(samples * share) for share in shares)


def lines(params: Params, stages: Collection[str]) -> list[str]:
    """What the plan of these stages says about states without a signal.

    Nothing where step-wise RL is not among them, is off, or takes a baseline from the whole batch (`reinforce`).
    """
    rl = params.train.swirl
    if "train@swirl" not in stages or "swirl" not in params.train.methods or rl.estimator == "reinforce":
        return []
    if not reward_asks_judge(params):
        said = "rewards are those of judge.rewards, and states whose actions all get the same have none"
        return [f"Signal of step-wise RL: {said}."]
    if len(params.judge.rewards) > 1:
        said = "the reward is the mean of judge.rewards, and states whose actions all get the same have none"
        return [f"Signal of step-wise RL: {said}."]
    if packs(params.reward_model):
        said = "the reward is P(GOOD), a graded one, so only states whose actions are all the same have none"
        return [f"Signal of step-wise RL: {said}."]
    votes = int(getattr(params.reward_model, "votes", 1))
    rows = [("P(GOOD) of an action", [f"{good:g}" for good in LEVELS])]
    for number, name in [(votes, "states without a signal"), *([(1, "where votes agree")] if votes > 1 else [])]:
        rows.append((name, [f"{no_signal(good, rl.samples, number):.1%}" for good in LEVELS]))
    pulls = "KL alone acts on such states" if rl.kl_coefficient else "without KL such states are left out of the update"
    head = (
        f"Signal of step-wise RL, G = {rl.samples} actions a state, votes = {votes}: where all rewards are equal, no "
        f"advantage pulls; {pulls}."
    )
    return [
        head,
        *(f"  {name:<24}{''.join(cell.rjust(8) for cell in cells)}" for name, cells in rows),
        *_warn(rl, votes),
    ]


def _warn(rl: Swirl, votes: int) -> list[str]:
    """A warning with the smallest G and the fewest votes that would do, where too many states have no signal."""

    def share(samples: int, of: int) -> float:
        return no_signal(TYPICAL, samples, of)

    if share(rl.samples, votes) <= LIMIT:
        return []
    enough = next(number for number in itertools.count(rl.samples + 1) if share(number, votes) <= LIMIT)
    asked = next(number for number in itertools.count(votes + 1) if share(rl.samples, number) <= LIMIT)
    requests = rl.states * rl.samples * votes
    return [
        f"  Warning: at P(GOOD) = {TYPICAL:g} more than half of the states have none "
        f"({share(rl.samples, votes):.1%}). Fewer have with",
        f"  - train.swirl.samples: {enough} ({share(enough, votes):.1%}){_states(requests, enough * votes)}; or",
        f"  - reward_model.votes: {asked} at a temperature above 0 ({share(rl.samples, asked):.1%} if the judge wavers)"
        f"{_states(requests, rl.samples * asked)}.",
    ]


def _states(requests: int, each: int) -> str:
    """How many states an update may have for no more than `requests` judge requests, at `each` a state."""
    if requests < each:
        return f": {each} judge requests an update even with one state, now {requests}"
    return f"; train.swirl.states: {requests // each} keeps to the {requests} judge requests an update"
