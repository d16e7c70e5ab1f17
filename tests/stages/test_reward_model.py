"""reward_model: a judge that loads, with error rates counted against the oracle."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.benchmarks.oracle import label_trajectory
from swirl.config.base_model import FineTuning
from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Action, Derivation, HeldOutStep, Observation, Step, Stop, Trajectory
from swirl.judge_training.teaching import Labelled, Sampled, sampled, teach, verdict_loss, write_heldout
from swirl.judging.reward import RewardModel
from swirl.pretraining import training
from swirl.pretraining.fine_tuning import fine_tune
from swirl.pretraining.training import Schedule
from swirl.stages import reward_model
from tests import tiny
from tests.stages.conftest import interrupted_after

CHAT = tiny.chat()


def judge_of(packed: bool = True) -> RewardModel:
    return RewardModel("reward", tiny.qwen3(len(CHAT.tokenizer)), CHAT, "is what right ?", packed)


def test_transformers_loads_the_judge_and_it_shares_the_bases_tokenizer(project: Layout) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(project.model("reward"))
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    base, judge = ((project.model(name) / "tokenizer.json").read_bytes() for name in ("base", "reward"))
    assert base == judge


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_bytes(
    params: Params, project: Layout, copy: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "EVERY", 2)
    with pytest.raises(KeyboardInterrupt), interrupted_after(2):
        reward_model.run(params, copy)
    assert not copy.model("reward").exists()
    with interrupted_after(1000) as count:
        reward_model.run(params, copy)
    assert count() == 1
    for path in (
        project.model("reward") / "model.safetensors",
        project.series("reward_model"),
        project.metrics("reward_model"),
        project.heldout,
    ):
        assert (copy.root / path.relative_to(project.root)).read_bytes() == path.read_bytes()


def test_it_is_trained_from_the_ceiling_and_no_other_model_moves(params: Params, project: Layout) -> None:
    from safetensors.torch import load_file

    reward, ceiling = (load_file(project.model(name) / "model.safetensors") for name in ("reward", "ceiling"))
    moved = max(float((reward[name] - ceiling[name]).abs().max()) for name in reward)
    assert 0 < moved < 0.5  # moved by a few training steps only
    assert len(load_json(project.series("reward_model"))) == params.reward_model.steps == 3


def test_held_out_steps_of_both_kinds_are_scored(project: Layout) -> None:
    steps, metrics = load(HeldOutStep, project.heldout), load_json(project.metrics("reward_model"))
    assert {step.task for step in steps} == {"search", "calculate"}
    assert all(0.0 < step.score < 1.0 and step.logprob < 0.0 for step in steps)
    assert metrics["heldout.n"] == len(steps)
    assert metrics["heldout.brier"] == pytest.approx(sum((step.score - step.good) ** 2 for step in steps) / len(steps))


def labelled(*good: bool) -> Labelled:
    ids = list(CHAT.prompt("what is " + " ".join(["Ada"] * len(good))))
    ends = []
    for number in range(len(good)):
        ids += CHAT.reply("Oslo is born" if number % 2 else "Rome")
        ends.append(len(ids))
        ids += CHAT.turn("Ada", closed=True)
    return Labelled(tuple(ids), tuple(ends), good)


class Always:
    """A model whose every verdict is the same."""

    _supports_attention_backend = True

    def __init__(self, model: Any, token: int) -> None:
        self.device, self.dtype, self.config, self.base_model = (
            model.device,
            model.dtype,
            model.config,
            model.base_model,
        )
        self.named_parameters = model.base_model.named_parameters
        self._head = Says(token, model.config.vocab_size)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self._head


class Says(torch.nn.Module):
    """An output layer whose only likely token is one."""

    def __init__(self, token: int, size: int) -> None:
        super().__init__()
        self._token, self._size = token, size

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full((len(hidden),), self._token), self._size).double()


SURE = 1 / (1 + math.exp(-1))
"""P(GOOD) of a judge whose logit of GOOD is 1 and of BAD 0."""


def sampled_with(*logprobs: float) -> Sampled:
    """A conversation of one step, whose log-probabilities these are."""
    step = Step(0, Action("search", "Ada", "Ada"), (), (5, 6), logprobs, ())
    return sampled(Trajectory("t", "q", "b", 0, "m", 0, (1, 2), (step,), Stop.ANSWERED, ""), "search", [True])


def test_a_log_probability_that_the_server_did_not_give_is_not_made_up() -> None:
    assert sampled_with(-1.0, -0.5).logprobs == (-0.75,)
    assert math.isnan(sampled_with().logprobs[0])


def test_a_judge_without_a_labelled_conversation_is_not_taught(tmp_path: Path) -> None:
    kept, judge = Checkpoints(tmp_path / "kept", "print"), judge_of()
    with pytest.raises(DataError, match="reward_model has no labelled conversation to learn from"):
        teach(judge, [], Schedule(3, 0.01, 0.01), 2, "no", random.Random(0), kept)
    settings = FineTuning.model_construct(weight_decay=0.0, lr=0.01, epochs=1, batch_size=4)
    with pytest.raises(DataError, match="reward_model has no conversation to learn from"):
        fine_tune("reward_model", judge.model, [], settings, 1, 0, kept)


@pytest.mark.parametrize(("word", "score"), [("GOOD", SURE), ("BAD", 1 - SURE)])
def test_held_out_scores_of_a_judge_that_says_one_thing(word: str, score: float, tmp_path: Path) -> None:
    judge, layout = judge_of(), Layout(tmp_path)
    judge = RewardModel("reward", Always(judge.model, CHAT.reply(word)[0]), CHAT, judge.question)
    searched = Sampled("search", ("search", "search", "answer"), (-1.0, -0.5, -2.0), labelled(True, True, False))
    calculated = Sampled("calculate", ("answer",), (-0.25,), labelled(True))
    write_heldout(judge, [searched, calculated], layout, further=7)
    steps = load(HeldOutStep, layout.heldout)
    assert [(step.task, step.kind, step.good, step.logprob) for step in steps] == [
        ("search", "search", True, -1.0), ("search", "search", True, -0.5), ("search", "answer", False, -2.0),
        ("calculate", "answer", True, -0.25),
    ]  # fmt: skip
    assert [step.score for step in steps] == pytest.approx([score] * 4, abs=1e-6)
    brier = pytest.approx((3 * (1 - score) ** 2 + score**2) / 4, abs=1e-6)
    assert load_json(layout.metrics("reward_model")) == {"further": 7, "heldout.n": 4, "heldout.brier": brier}


def test_a_held_out_step_that_is_cut_has_the_score_that_stage_judge_gives_it(tmp_path: Path) -> None:
    judge, layout = judge_of(), Layout(tmp_path)
    judge = RewardModel("reward", Always(judge.model, CHAT.reply("GOOD")[0]), CHAT, judge.question)
    write_heldout(judge, [Sampled("search", ("search", "cut"), (-1.0, -0.5), labelled(True, False))], layout)
    assert [step.score for step in load(HeldOutStep, layout.heldout)] == [pytest.approx(SURE, abs=1e-6), 0.0]
    brier = pytest.approx((1 - SURE) ** 2 / 2, abs=1e-6)
    assert load_json(layout.metrics("reward_model")) == {"heldout.n": 2, "heldout.brier": brier}


@pytest.mark.parametrize("packed", [True, False])
def test_verdict_loss_is_the_naive_cross_entropy(packed: bool) -> None:
    judge, batch = judge_of(packed), [labelled(True, False), labelled(False)]
    losses = []
    for item in batch:
        for end, good in zip(item.ends, item.good, strict=True):
            logits = tiny.naive_logits(judge.model, [*item.ids[:end], *CHAT.prompt(judge.question)])[-1]
            losses.append(-torch.log_softmax(logits, -1)[CHAT.reply("GOOD" if good else "BAD")[0]])
    loss, count = verdict_loss(judge, batch)
    assert count == 3.0
    assert float(loss.detach()) == pytest.approx(float(torch.stack(losses).sum().detach()), rel=1e-5)


def test_labels_are_the_oracles_and_ends_are_the_actions() -> None:
    actions = (Action("search", "", "Ada born"), Action("search", "", "Rome"), Action("answer", "", "Oslo"))
    between = CHAT.turn("Oslo", closed=True)
    ids = CHAT.reply("Ada")
    seen = (Observation("Oslo", error=False),)
    steps = tuple(
        Step(k, a, seen, ids, (-1.5, 0.0) if k == 0 else (0.0, 0.0), between if k < 2 else ())
        for k, a in enumerate(actions)
    )
    made = Trajectory("t", "q", "b", 0, "m", 0, (5, 6, 7), steps, Stop.ANSWERED, "")
    derivation = Derivation("q", "search", ("born Ada",), ("Oslo",))
    whole = sampled(made, "search", label_trajectory(derivation, made))
    assert (whole.task, whole.kinds, whole.logprobs) == ("search", ("search", "search", "answer"), (-0.75, 0.0, 0.0))
    item = whole.labelled
    assert item.good == (True, False, True)
    assert item.ids == (5, 6, 7, *ids, *between, *ids, *between, *ids)
    assert [item.ids[:end][-2:] for end in item.ends] == [ids] * 3
    assert item.ends[0] == 5
