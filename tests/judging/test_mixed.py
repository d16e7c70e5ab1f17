"""Rewards of one's own, and their mixture with a judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from swirl.comb.combs import pack
from swirl.core.errors import DataError
from swirl.core.types import Action, ActionKind
from swirl.judging.mixed import MixedReward, Part
from swirl.judging.own_reward import OwnReward
from swirl.judging.reward import RewardModel
from tests import tiny
from tests.judging.test_rationale import ASKED, CHAT, FIND, SAY, STOPPED, TRAJECTORY


class Says:
    """1 for an action with the word, 0.25 for another one, no verdict where the state has `nothing`."""

    def __init__(self, word: str, nothing: str = "\0") -> None:
        self.word, self.nothing = word, nothing
        self.asked: list[tuple[str, str]] = []

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> list[float | None]:
        self.asked += zip(states, actions, strict=True)
        pairs = zip(states, actions, strict=True)
        return [None if self.nothing in state else 1.0 if self.word in action else 0.25 for state, action in pairs]


def own(scorer: Any, name: str = "own:Says") -> OwnReward:
    return OwnReward(name, scorer, CHAT)


def test_an_own_reward_is_shown_states_and_actions_as_text() -> None:
    scorer = Says("Oslo")
    assert own(scorer).trajectory_scores([TRAJECTORY, STOPPED]) == [[0.25, 1.0], [0.25]]
    find, say = "<search_query> Ada </search_query>", "<answer> Oslo </answer>"
    first = scorer.asked[0][0]
    assert [action for _, action in scorer.asked] == [find, say, find]
    assert "what is" in first
    assert find not in first
    assert scorer.asked[1][0].startswith(first)
    assert scorer.asked[1][0].index(find) < scorer.asked[1][0].index("Ada -> born")


def test_drawn_actions_get_the_same_scores_as_the_steps_that_they_are() -> None:
    trunk, scorer = TRAJECTORY.state_ids(2), Says("Oslo")
    first, second = len(TRAJECTORY.state_ids(0)), len(TRAJECTORY.state_ids(1))
    combs = [pack(trunk, [(first, FIND.token_ids), (first, SAY.token_ids), (second, SAY.token_ids)])]
    assert own(scorer).scores(combs) == [[0.25, 1.0, 1.0]]
    drawn, scorer.asked = scorer.asked, []
    own(scorer).trajectory_scores([TRAJECTORY])
    assert [drawn[0], drawn[2]] == scorer.asked


def test_a_step_that_is_cut_is_not_shown() -> None:
    scorer, cut = Says("Oslo"), replace(SAY, action=Action(ActionKind.CUT, "<answer> Os", ""))
    assert own(scorer).trajectory_scores([replace(TRAJECTORY, steps=(FIND, cut))]) == [[0.25, 0.0]]
    assert len(scorer.asked) == 1
    mixed = MixedReward((Part(1.0, own(scorer)),), 0.0)
    verdicts = mixed.process_verdicts([replace(TRAJECTORY, steps=(FIND, cut))], ASKED)
    assert [(v.good, v.score) for v in verdicts] == [(True, 0.25), (False, 0.0)]


class Gives:
    def __init__(self, given: Any) -> None:
        self.given = given

    def scores(self, states: Sequence[str], actions: Sequence[str]) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.5], "scores gave 1 scores for 2 actions"),
        (
            [0.5, 1.5],
            "scores gave '1.5' for the action '<answer> Oslo </answer>'; expected a number from 0 to 1, or None",
        ),
        ([0.5, math.nan], "scores gave 'nan' for the action"),
        ([0.5, "well"], "scores gave 'well' for the action"),
        (None, "scores failed with TypeError: 'NoneType' object is not iterable"),
        (KeyError("x"), "scores failed with KeyError: 'x'"),
    ],
)
def test_what_an_own_reward_may_not_give(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"^reward own:Says: {said}"):
        own(Gives(given)).trajectory_scores([TRAJECTORY])


def test_numbers_and_truth_are_scores() -> None:
    assert own(Gives((True, 0))).trajectory_scores([TRAJECTORY]) == [[1.0, 0.0]]


def test_a_mixture_is_the_weighted_mean_and_null_where_a_part_is() -> None:
    judge = RewardModel("reward", tiny.qwen3(len(CHAT.tokenizer)).float(), CHAT, "GOOD or BAD")
    (alone,) = judge.trajectory_scores([TRAJECTORY])
    mixed = MixedReward((Part(3.0, judge), Part(1.0, own(Says("Oslo")))), 0.5)
    wanted = [(3 * alone[0] + 0.25) / 4, (3 * alone[1] + 1.0) / 4]
    assert mixed.trajectory_scores([TRAJECTORY]) == [pytest.approx(wanted)]
    trunk, sees = TRAJECTORY.state_ids(2), len(TRAJECTORY.state_ids(1))
    assert mixed.scores([pack(trunk, [(sees, SAY.token_ids)])]) == [[pytest.approx(wanted[1], abs=1e-5)]]
    verdicts = mixed.process_verdicts([TRAJECTORY], ASKED)
    assert [v.score for v in verdicts] == pytest.approx(wanted)
    assert [v.good for v in verdicts] == [score >= 0.5 for score in wanted]
    assert {v.judge for v in verdicts} == {"reward+own:Says"}
    assert verdicts[1].rationale == f"reward {alone[1]:.2f}, own:Says 1.00"
    assert mixed.judge is judge

    null = MixedReward((Part(3.0, judge), Part(1.0, own(Says("Oslo", nothing="Ada -> born")))), 0.5)
    assert [math.isnan(score) for score in null.trajectory_scores([TRAJECTORY])[0]] == [False, True]
    last = null.process_verdicts([TRAJECTORY], ASKED)[1]
    assert (last.good, last.score, last.rationale) == (None, None, f"reward {alone[1]:.2f}, own:Says none")


def test_without_the_judge_nobody_is_asked() -> None:
    mixed = MixedReward((Part(1.0, own(Says("Oslo"))), Part(1.0, own(Says("Ada"), "own:Ada"))), 0.5)
    assert mixed.judge is None
    assert mixed.trajectory_scores([TRAJECTORY]) == [[0.625, 0.625]]
