"""States without a signal: the formula by hand and by simulation, and what `swirl plan` says about them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.planning import signal
from swirl.planning.signal import no_signal

ROOT = Path(__file__).parents[2]
SERVED = [name for name in presets.names(ROOT) if presets.tree(ROOT, name)["reward_model"]["source"] == "endpoint"]


def params(name: str = "qwen3-0.6b", reward: dict[str, Any] | None = None, **swirl: Any) -> Params:
    changes = {
        "train": {"swirl": swirl},
        "reward_model": {**presets.tree(ROOT, name)["reward_model"], **(reward or {})},
    }
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


def lines(chosen: Params) -> list[str]:
    return signal.lines(chosen, ["judge", "train@swirl"])


@pytest.mark.parametrize(
    ("good", "samples", "votes", "share"),
    [
        (0.9, 4, 1, 0.6562),  # .9^4 + .1^4
        (0.5, 4, 1, 0.125),
        (0.5, 2, 2, 0.375),  # (1/4)^2 + (1/2)^2 + (1/4)^2
        (0.9, 4, 2, 0.43151698),  # .81^4 + .18^4 + .01^4
        (0.9, 2, 3, 0.59122),  # .729^2 + .243^2 + .027^2 + .001^2
        (0.9, 8, 1, 0.43046722),
        (1.0, 8, 3, 1.0),
        (0.0, 8, 3, 1.0),
        (0.5, 2, 2000, 0.0126151),  # 1 / sqrt(pi V), nearly
    ],
)
def test_the_share_by_hand(good: float, samples: int, votes: int, share: float) -> None:
    assert no_signal(good, samples, votes) == pytest.approx(share, abs=5e-7)


@pytest.mark.parametrize(("good", "samples", "votes"), [(0.9, 4, 1), (0.7, 3, 2), (0.5, 4, 3), (0.95, 8, 5)])
def test_the_share_by_simulation(good: float, samples: int, votes: int) -> None:
    drawn, number = random.Random(7), 20_000
    equal = 0
    for _ in range(number):
        rewards = {sum(drawn.random() < good for _ in range(votes)) for _ in range(samples)}
        equal += len(rewards) == 1
    share = no_signal(good, samples, votes)
    deviation = (share * (1 - share) / number) ** 0.5
    assert equal / number == pytest.approx(share, abs=4 * deviation)


def test_too_few_samples_are_warned_of_with_what_would_do() -> None:
    assert lines(params(samples=4, states=32)) == [
        "Signal of step-wise RL, G = 4 actions a state, votes = 1: where all rewards are equal, no advantage pulls; "
        "KL alone acts on such states.",
        "  P(GOOD) of an action         0.5     0.7     0.9    0.95",
        "  states without a signal    12.5%   24.8%   65.6%   81.5%",
        "  Warning: at P(GOOD) = 0.9 more than half of the states have none (65.6%). Fewer have with",
        "  - train.swirl.samples: 7 (47.8%); train.swirl.states: 18 keeps to the 128 judge requests an update; or",
        "  - reward_model.votes: 2 at a temperature above 0 (43.2% if the judge wavers); "
        "train.swirl.states: 16 keeps to the 128 judge requests an update.",
    ]
    assert not any("Warning" in line for line in lines(params(samples=7, states=18)))
    voting = {"votes": 2, "temperature": 0.7}
    said = lines(params(reward=voting, samples=4, states=16))
    assert said[1:] == [
        "  P(GOOD) of an action         0.5     0.7     0.9    0.95",
        "  states without a signal     7.0%    8.9%   43.2%   66.4%",
        "  where votes agree          12.5%   24.8%   65.6%   81.5%",
    ]
    few = lines(params(samples=3, states=1))[4]
    assert few == "  - train.swirl.samples: 7 (47.8%): 7 judge requests an update even with one state, now 3; or"


def test_without_kl_such_states_are_left_out() -> None:
    assert lines(params(kl_coefficient=0.0))[0].endswith("; without KL such states are left out of the update.")


def test_a_judge_that_reads_one_token_gives_graded_rewards() -> None:
    graded = [
        "Signal of step-wise RL: the reward is P(GOOD), a graded one, so only states whose actions are all the same "
        "have none."
    ]
    assert lines(params("mini", samples=2)) == graded
    local = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False}
    said = {"max_tokens": 8, "votes": 1, "temperature": 0.0}
    for verdict, expected in (("token", graded), ("rationale", lines(params()))):
        tree = {**presets.tree(ROOT, "qwen3-0.6b"), "reward_model": {**local, **said, "verdict": verdict}}
        assert lines(validate(tree, "local")) == expected


def test_rewards_of_ones_own_alone_have_no_votes() -> None:
    own = {"judge": {"rewards": [{"name": "mine:Mine", "weight": 1.0, "options": {}}]}}
    assert lines(validate(laid_over(presets.tree(ROOT, "qwen3-0.6b"), own), "own")) == [
        "Signal of step-wise RL: rewards are those of judge.rewards, and states whose actions all get the same have "
        "none."
    ]


def test_a_judge_beside_other_rewards_is_a_part_of_the_reward() -> None:
    for preset in ("smollm2-135m", "qwen3-0.6b"):
        both = {"judge": {"rewards": [{"name": name, "weight": 1.0, "options": {}} for name in ("judge", "mine:Mine")]}}
        assert lines(validate(laid_over(presets.tree(ROOT, preset), both), "both")) == [
            "Signal of step-wise RL: the reward is the mean of judge.rewards, and states whose actions all get the "
            "same have none."
        ]


def test_nothing_is_said_where_nothing_is_drawn_or_the_baseline_is_the_batchs() -> None:
    assert signal.lines(params(), ["judge", "train@sft"]) == []
    assert lines(params(estimator="reinforce", samples=2)) == []
    off = validate(laid_over(presets.tree(ROOT, "qwen3-0.6b"), {"train": {"methods": ["sft"]}}), "off")
    assert lines(off) == []


@pytest.mark.parametrize("name", SERVED)
def test_presets_with_a_judge_that_votes_have_a_signal_in_most_states(name: str) -> None:
    said = lines(params(name))
    assert len(said) == 3, said  # a head, P(GOOD), shares: no warning


def test_the_presets_with_such_a_judge_are_known() -> None:
    assert {"qwen3-0.6b", "gemma-2-2b", "gemma-2-9b", "gemma-2-27b"} <= set(SERVED)
