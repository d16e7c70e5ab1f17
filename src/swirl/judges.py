"""From params and the layout to the judge of steps."""

from __future__ import annotations

from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.models.chat import Chat
from swirl.models.local import deterministic, load_model, load_tokenizer
from swirl.models.prompts import read_prompt
from swirl.params import Params


def judge_question(params: Params, layout: Layout) -> str:
    """The turn that asks a local judge for GOOD or BAD."""
    return read_prompt(layout.root / params.prompts.judge / "verdict.txt")


def load_reward_model(params: Params, layout: Layout) -> RewardModel:
    """The reward model of the pipeline."""
    folder = layout.model("reward")
    deterministic(params.runtime.threads)
    model = load_model(folder, params.runtime.device, params.runtime.attention)
    question = judge_question(params, layout)
    return RewardModel("reward", model, Chat(load_tokenizer(folder)), question, workers=params.runtime.workers)
