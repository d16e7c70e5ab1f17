"""From params and the layout to judges of steps: the reward model, and any that is described as it is."""

from __future__ import annotations

from pathlib import Path

from swirl.comb.sampling import Sampling
from swirl.config.params import Params
from swirl.config.reward_model import (
    EndpointReward,
    FineTunedReward,
    NoReward,
    PretrainedReward,
    RewardModelSection,
)
from swirl.config.served import Served
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.seeds import derive
from swirl.judging.local import LocalRationaleJudge
from swirl.judging.rationale import JudgePrompts, RationaleJudge
from swirl.judging.remote import EndpointJudge
from swirl.judging.reward import RewardModel
from swirl.models.loading import context_of, load_chat, load_model, make_deterministic
from swirl.models.native_chat import AnyChat
from swirl.wiring.chats import policy_chat
from swirl.wiring.judge_prompts import judge_prompt, judge_question
from swirl.wiring.servers import client_of, judge_cache

Judge = RewardModel | RationaleJudge
REWARD = "reward"
"""What a reward model that runs here is called."""


def read_judge_prompts(params: Params, layout: Layout) -> JudgePrompts:
    """The prompts process.txt, reward.txt and outcome.txt in the judge's prompt folder."""
    process, reward, outcome = (judge_prompt(params, layout, name) for name in ("process", "reward", "outcome"))
    return JudgePrompts(process, reward, outcome)


def load_reward_model(params: Params, layout: Layout, text_only: bool = False) -> Judge:
    """The reward model of the pipeline. Raises `ModelError` when it cannot judge the base's tokens.

    With `text_only` it judges texts only, so models/base is not needed.
    """
    return load_judge(REWARD, params.reward_model, layout.model("reward"), params, layout, text_only)


def load_judge(
    name: str,
    settings: RewardModelSection,
    folder: Path,
    params: Params,
    layout: Layout,
    text_only: bool = False,
) -> Judge:
    """The judge of a section: behind its server, or else the model in `folder`, called `name`.

    Raises `ModelError` and takes `text_only` as `load_reward_model` does.
    """
    if isinstance(settings, NoReward):
        raise ModelError("there is no reward model to ask: reward_model.source is none")
    make_deterministic(params.runtime.threads)
    if isinstance(settings, EndpointReward):
        return endpoint_judge(settings.server, settings, params, layout, text_only)
    run = params.runtime
    model, chat = load_model(folder, run.device, run.attention, run.dtype), load_chat(folder)
    if isinstance(settings, PretrainedReward) and settings.verdict == "rationale":
        policy, prompts = _policy_chat(params, layout, text_only), read_judge_prompts(params, layout)
        sampling, seed, context = _sampling(settings), derive(params.seed, "judge"), context_of(model, run.context)
        judge = LocalRationaleJudge(
            name, model, chat, context, prompts, policy, sampling, settings.votes, seed, workers=run.workers
        )
        judge.again = params.judge.retry_failed
        return judge
    if isinstance(settings, PretrainedReward | FineTunedReward) and not text_only:
        _check_same_tokens(name, chat, load_chat(layout.model("base")))
    # Not `run.context`, which limits a conversation: the judge's question comes after it.
    question, context = judge_question(params, layout), context_of(model)
    return RewardModel(
        name, model, chat, question, workers=run.workers, threshold=params.judge.threshold, context=context
    )


def endpoint_judge(
    served: Served, settings: object, params: Params, layout: Layout, text_only: bool = False
) -> EndpointJudge:
    """The judge on the server `served`, with the `votes`, `temperature` and `max_tokens` that `settings` has."""
    client, prompts = client_of(served, params.clients, judge_cache(layout)), read_judge_prompts(params, layout)
    seed, chat = derive(params.seed, "judge"), _policy_chat(params, layout, text_only)
    votes = int(getattr(settings, "votes", 1))
    judge = EndpointJudge(endpoint_name(served), client, prompts, chat, _sampling(settings), votes, seed)
    judge.again = params.judge.retry_failed
    return judge


def endpoint_name(served: Served) -> str:
    """What a judge on a server is called."""
    return f"endpoint:{served.model}"


def _policy_chat(params: Params, layout: Layout, text_only: bool) -> AnyChat | None:
    return None if text_only else policy_chat(params, layout.model("base"))


def _sampling(settings: object) -> Sampling:
    """How rationales are sampled; settings without a temperature (a grader's) mean greedy."""
    return Sampling(getattr(settings, "temperature", 0.0), 1.0, 0, getattr(settings, "max_tokens", 1024))


def _check_same_tokens(name: str, judge: object, policy: object) -> None:
    """Raise `ModelError` unless both vocabularies are equal, because the judge reads the policy's own tokens."""
    ours, theirs = (chat.tokenizer.get_vocab() for chat in (judge, policy))  # type: ignore[attr-defined]
    if ours != theirs:
        raise ModelError(
            f"the judge {name} has another tokenizer than the base, so it cannot read the base's tokens; set its "
            "verdict to rationale, which reads text, or take a judge of the same family"
        )
