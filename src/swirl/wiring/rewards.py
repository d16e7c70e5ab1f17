"""From params and the layout to the reward: the judge, or a mixture of it with rewards of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from swirl.config.params import Params
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.own_class import OWN_NAME, make_own
from swirl.judging.local import LocalRationaleJudge
from swirl.judging.mixed import MixedReward, Part
from swirl.judging.own_reward import OwnReward
from swirl.judging.rationale import RationaleJudge
from swirl.judging.reward import RewardModel
from swirl.models.tokens import Tokens
from swirl.wiring.chats import policy_chat
from swirl.wiring.judges import Judge, load_reward_model

Reward = Judge | MixedReward


def load_reward(params: Params, layout: Layout) -> Reward:
    """The reward of `judge.rewards`; the reward model alone where that is empty, which is not loaded if it is no part.

    Raises `ParamsError` for a class that does not exist or has no method `scores`, and as `load_reward_model` does.
    """
    if not params.judge.rewards:
        return load_reward_model(params, layout)
    chat, parts = policy_chat(params, layout.model("base")), []
    for entry in params.judge.rewards:
        if entry.name == "judge":
            parts.append(Part(entry.weight, load_reward_model(params, layout)))
        else:
            own = own_reward("judge.rewards", entry.name, entry.options, params, layout, chat)
            parts.append(Part(entry.weight, own))
    return MixedReward(tuple(parts), params.judge.threshold)


def judge_of(reward: object) -> Judge | None:
    """The judge in a reward; None for rewards of one's own alone, and for what is no reward."""
    if isinstance(reward, MixedReward):
        return reward.judge
    return reward if isinstance(reward, RewardModel | RationaleJudge) else None


def fitted(reward: Reward, packed: bool, token_budget: int) -> Reward:
    """The reward with a judge that reads as many tokens at once as training does; itself if it does so already."""
    lower = "train.token_budget"

    def fit(judge: Judge) -> Judge:
        if isinstance(judge, LocalRationaleJudge):
            return judge.reading(token_budget, lower)
        if not isinstance(judge, RewardModel):
            return judge
        made = replace(judge, packed=packed, token_budget=token_budget, lower=lower)
        return judge if made == judge else made

    if not isinstance(reward, MixedReward):
        return fit(reward)
    given = [(part, part.reward) for part in reward.parts]
    parts = [part if isinstance(one, OwnReward) else replace(part, reward=fit(one)) for part, one in given]
    return replace(reward, parts=tuple(parts))


def own_reward(
    key: str, name: str, options: Mapping[str, object], params: Params, layout: Layout, chat: Tokens
) -> OwnReward:
    """A reward that is a class of the user's; `key` is where params.yaml names it. Raises as `load_reward` does."""
    if not OWN_NAME.fullmatch(name):
        raise ParamsError(f"{key}: there is no reward {name!r}; a reward is judge, or package.module:Class")
    scorer = make_own("reward", name, options, layout.root / params.tools.folder)
    if not callable(getattr(scorer, "scores", None)):
        kind = f"{type(scorer).__module__}.{type(scorer).__name__}"
        raise ParamsError(f"reward {name}: {kind} has no method scores(states, actions)")
    return OwnReward(name, scorer, chat)
