"""`judge.rewards`: the reward model, rewards of one's own, or both, through judging, filtering and training."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import OUTCOME, ActionKind, Draw, JudgeRole, SubTrajectory, Trajectory, Verdict
from swirl.judging.mixed import MixedReward
from swirl.judging.reward import RewardModel
from swirl.stages import evaluate, judge, train
from swirl.stages import filter as filtering
from swirl.wiring.label_judges import label_judge_name, load_label_judge
from swirl.wiring.rewards import fitted, judge_of, load_reward

CLASS = '''
class Calls:
    """Rewards a call of a tool, and an answer a little."""

    def __init__(self, answer=0.2):
        self.answer = answer

    def scores(self, states, actions):
        assert all(states) and len(states) == len(actions)
        return [self.answer if "<answer>" in action else 1.0 for action in actions]


class Nothing:
    pass
'''


def with_rewards(params: Params, *rewards: dict[str, Any], **more: Any) -> Params:
    return validate(laid_over(params.model_dump(), {"judge": {"rewards": list(rewards)}, **more}), "tests")


def part(name: str, weight: float = 1.0, **options: Any) -> dict[str, Any]:
    return {"name": name, "weight": weight, "options": options}


@pytest.fixture
def layout(copy: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project with a module of rewards in its folder of tools."""
    (copy.root / "data/tools/own_rewards_of_a_test.py").write_text(CLASS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return copy


OWN = "own_rewards_of_a_test:Calls"


def test_the_judge_alone_is_the_default(params: Params, layout: Layout) -> None:
    assert params.judge.rewards == []
    assert isinstance(load_reward(params, layout), RewardModel)


@pytest.mark.slow
def test_own_rewards_alone_need_no_judge_and_decide_verdicts_filter_and_training(
    params: Params, layout: Layout
) -> None:
    shutil.rmtree(layout.model("reward"))
    layout.model("reward").mkdir()
    changed = with_rewards(params, part(OWN, answer=0.6), filter={"strategy": "process"})
    judge.run(changed, layout)
    trajectories = load(Trajectory, layout.trajectories)
    kinds = {(t.id, step.index): step.action for t in trajectories for step in t.steps}
    steps = [verdict for verdict in load(Verdict, layout.verdicts) if verdict.step != OUTCOME]
    assert len(steps) == len(kinds)
    for verdict in steps:
        action = kinds[verdict.trajectory_id, verdict.step]
        cut = action.kind == ActionKind.CUT
        assert verdict.score == pytest.approx(0.0 if cut else 0.6 if "<answer>" in action.text else 1.0)
        assert (verdict.good, verdict.judge) == (not cut, OWN)
    filtering.run(changed, layout)
    assert {round(row.score or 0.0, 6) for row in load(SubTrajectory, layout.steps)} == {0.6, 1.0}
    train.run(changed, layout, "swirl")
    draws = load(Draw, layout.draws("swirl"))
    assert draws
    for draw in draws:
        assert draw.reward == pytest.approx(0.0 if draw.cut else 0.6 if "<answer>" in draw.text else 1.0)


def test_a_mixture_with_the_judge(params: Params, layout: Layout) -> None:
    reward = load_reward(with_rewards(params, part("judge", 3.0), part(OWN, 1.0)), layout)
    assert isinstance(reward, MixedReward)
    small = judge_of(fitted(reward, packed=False, token_budget=99))
    assert isinstance(small, RewardModel)
    assert (small.packed, small.token_budget) == (False, 99)
    trajectories = load(Trajectory, layout.trajectories)
    alone = load_reward(params, layout).trajectory_scores(trajectories)
    for trajectory, mixed, of_judge in zip(trajectories, reward.trajectory_scores(trajectories), alone, strict=True):
        own = [
            0.0 if step.action.kind == ActionKind.CUT else 0.2 if "<answer>" in step.action.text else 1.0
            for step in trajectory.steps
        ]
        assert mixed == pytest.approx([(3 * r + o) / 4 for r, o in zip(of_judge, own, strict=True)])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (part("polite"), "judge.rewards: there is no reward 'polite'; a reward is judge, or package.module:Class"),
        (part("no_such_module:X"), "reward no_such_module:X: there is no module no_such_module in "),
        (part("own_rewards_of_a_test:Y"), r"reward own_rewards_of_a_test:Y: .* has no class Y"),
        (part(OWN, words=3), r"reward .*: Calls cannot be made with its options \(words\): TypeError"),
        (
            part("own_rewards_of_a_test:Nothing"),
            r"reward .*: own_rewards_of_a_test.Nothing has no method scores\(states, actions\)",
        ),
    ],
)
def test_what_is_no_reward(entry: dict[str, Any], said: str, params: Params, layout: Layout) -> None:
    with pytest.raises(ParamsError, match=said):
        load_reward(with_rewards(params, entry), layout)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ([part("judge"), part("judge", 2.0)], "judge: rewards names judge twice; give it once"),
        ([part("judge", answer=1)], "judge.rewards.0: the judge takes no options here"),
        ([part("judge", 0.0)], "judge.rewards.0.weight = 0.0: Input should be greater than 0"),
        ([{"name": "judge"}], "judge.rewards.0.weight: missing"),
    ],
)
def test_settings_that_make_no_sense(rewards: list[dict[str, Any]], said: str, params: Params) -> None:
    with pytest.raises(ParamsError) as caught:
        with_rewards(params, *rewards)
    assert said in str(caught.value)


def test_a_reward_that_fails_ends_the_stage(params: Params, layout: Layout) -> None:
    with pytest.raises(DataError, match=f"reward {OWN}: scores gave '7.0' for the action"):
        judge.run(with_rewards(params, part(OWN, answer=7.0)), layout)


@pytest.mark.parametrize(
    ("rewards", "name"),
    [([], "reward"), ([part("judge"), part(OWN)], f"reward+{OWN}"), ([part(OWN)], OWN)],
    ids=["judge", "both", "own"],
)
def test_the_judge_of_an_evaluation_is_called_the_same_before_it_is_loaded(
    rewards: list[dict[str, Any]], name: str, params: Params, layout: Layout
) -> None:
    chosen = with_rewards(params, *rewards, evaluate={"judge": "same"})
    judge, role = load_label_judge(chosen, layout)
    assert (judge.name, role) == (name, JudgeRole.REWARD)
    assert label_judge_name(chosen) == (name, JudgeRole.REWARD)


@pytest.mark.slow
def test_an_evaluation_labels_steps_by_the_mixture(params: Params, layout: Layout) -> None:
    chosen = with_rewards(params, part("judge"), part(OWN), evaluate={"judge": "same"})
    evaluate.run(chosen, layout, "base")
    verdicts = load(Verdict, layout.prediction_verdicts("base"))
    assert verdicts and {verdict.judge for verdict in verdicts} == {f"reward+{OWN}"}
