"""Tiny random models of real families with those families' tokenizers: loaded by pointer, rolled out, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.comb.combs import pack
from swirl.comb.logprobs import check_packing
from swirl.comb.sampling import Sampling
from swirl.core.types import ActionKind, Question, Trajectory
from swirl.judging.reward import RewardModel
from swirl.models.loading import context_of, load_chat, load_model
from swirl.models.pointers import write_pointer
from swirl.rollout.engine import Attempt, Calls, Policy, roll_out
from swirl.tools import Calculator
from tests import families, tiny

ENDS = {"gemma2": ["<eos>", "<end_of_turn>"], "llama3": ["<|end_of_text|>", "<|eot_id|>"]}
MODELS = {
    "gemma2": tiny.gemma2,
    "llama3": tiny.llama,
    "qwen3": tiny.qwen3,
    "mistral": tiny.mistral,
    "smollm2": tiny.llama,
}


@pytest.fixture(scope="module", params=families.FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that points to a tiny model of one family."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = families.FAMILIES[request.param]()
    model = MODELS[request.param](len(tokenizer)).float()
    ends = tokenizer.convert_tokens_to_ids(ENDS.get(request.param, [])) or tokenizer.eos_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id = ends
    model.save_pretrained(folder / request.param)
    tokenizer.save_pretrained(folder / request.param)
    write_pointer(folder / "base", request.param, root=folder)
    return folder / "base"


def policy_of(base: Path, dtype: Any = "float32") -> Policy:
    model = load_model(base, "cpu", "eager", dtype)
    return Policy("base", model, load_chat(base), context_of(model))


def rolled_out(policy: Policy) -> list[Trajectory]:
    attempts = [
        Attempt(Question(f"q{i}", "b", "train", "3 + 4", ("7",), 1, ("calculator",)), 0, f"What is 3 + {i}?", tools, 3)
        for i, tools in enumerate([{ActionKind.CALCULATE: Calculator()}] * 3)
    ]
    return roll_out(policy, attempts, Sampling(1.0, 1.0, 0, 6), seed=3, max_malformed=0, in_flight=2, calls=Calls(4, 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rollouts_are_conversations_of_the_family(base: Path, dtype: str) -> None:
    policy = policy_of(base, dtype)
    assert policy.model.dtype == getattr(torch, dtype)
    chat, made = policy.chat, rolled_out(policy)
    for number, trajectory in enumerate(made):
        assert trajectory.prompt_ids == chat.prompt(f"What is 3 + {number}?")
        ids = list(trajectory.prompt_ids)
        for step in trajectory.steps:
            ended = step.token_ids[-1] in chat.end_ids
            assert ended or len(step.token_ids) == 6 or not step.action.faulty  # a call or an answer ends it, too
            assert not set(step.token_ids[:-1]) & chat.end_ids
            ids += step.token_ids
            if step.observation_ids:
                assert step.observation_ids == chat.turn(step.observation, closed=ended)
                ids += step.observation_ids
        assert trajectory.state_ids(len(trajectory.steps)) == tuple(ids)
    assert max(len(trajectory.steps) for trajectory in made) > 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("packed", [True, False])
def test_what_trains_and_judges_reads_them_as_the_model_does(base: Path, dtype: str, packed: bool) -> None:
    policy = policy_of(base, dtype)
    made = rolled_out(policy)
    longest = max(made, key=lambda trajectory: len(trajectory.steps))
    teeth = [(len(longest.state_ids(k)), step.token_ids) for k, step in enumerate(longest.steps)]
    check_packing(policy.model, pack(longest.state_ids(len(longest.steps) - 1), teeth))
    judge = RewardModel("judge", policy.model, policy.chat, "Is that step good? Y or N", packed=packed)
    scores = [score for row in judge.trajectory_scores(made) for score in row]
    assert len(scores) == sum(len(trajectory.steps) for trajectory in made)
    assert all(0 <= score <= 1 for score in scores)


def test_log_probabilities_of_a_rollout_are_the_model_s_own(base: Path) -> None:
    policy = policy_of(base)
    for trajectory in rolled_out(policy):
        for k, step in enumerate(trajectory.steps):
            with torch.no_grad():
                own = tiny.naive_logprobs(policy.model, trajectory.state_ids(k), step.token_ids)
            torch.testing.assert_close(torch.tensor(step.logprobs), own, rtol=0, atol=1e-4)


def test_the_context_is_the_model_s_unless_it_is_limited(base: Path) -> None:
    model = load_model(base, "cpu", "eager")
    assert [context_of(model, limit) for limit in (0, 100, 256, 100_000)] == [256, 100, 256, 256]
