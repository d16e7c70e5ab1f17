"""`reward_model.source: fine_tuned`: a pretrained model learns to judge the steps that the base samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.leakage import leakage_key
from swirl.core.records import load, load_json
from swirl.core.types import HeldOutStep, Question
from swirl.judge_training import fine_tuned_judge
from swirl.judge_training.fine_tuned_judge import verdicts
from swirl.judge_training.judge_checkpoints import open_checkpoints
from swirl.judge_training.teaching import Labelled
from swirl.judging.reward import RewardModel
from swirl.models.loading import load_chat, load_model
from swirl.pretraining import fine_tuning
from swirl.pretraining.training import Example
from swirl.stages import reward_model
from swirl.wiring.judges import load_reward_model
from tests import tiny
from tests.stages.conftest import clone, interrupted_after
from tests.stages.test_cold_start import SETTINGS, adapted, params, ready

__all__ = ["adapted", "params", "ready"]

CHAT = tiny.chat()
JUDGE: dict[str, Any] = {
    "reward_model": {
        "source": "fine_tuned", "model": "models/tiny", "revision": "", "lora": None, "epochs": 3, "batch_size": 4,
        "token_budget": 4096, "lr": 3.0e-3, "warmup": 2, "weight_decay": 0.0, "clip": 1.0,
        "gradient_checkpointing": False, "mixed_precision": "bf16", "heldout": 2, "pretrain": {},
        "samples": 3, "temperature": 1.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def judged(adapted: tuple[Params, Layout], tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Layout]:
    """A project with such a reward model, whose base was taught in two passes."""
    params, layout = adapted[0], clone(adapted[1], tmp_path_factory.mktemp("judged") / "root")
    with_judge = validate(laid_over(params.model_dump(), JUDGE), "judged")
    reward_model.run(with_judge, layout)
    return with_judge, layout


def labelled(*good: bool) -> Labelled:
    ids, ends = list(CHAT.prompt("what is " + " ".join(["Ada"] * len(good)))), []
    for number in range(len(good)):
        ids += CHAT.reply("Oslo is born" if number % 2 else "Rome")
        ends.append(len(ids))
        ids += CHAT.turn("Ada", closed=True)
    return Labelled(tuple(ids), tuple(ends), good)


def test_it_learns_the_verdict_alone_after_each_step() -> None:
    judge = RewardModel("reward", tiny.qwen3(len(CHAT.tokenizer)), CHAT, "is what right ?")
    items = [labelled(True, False), labelled(False)]
    losses = []
    for item in items:
        for end, good in zip(item.ends, item.good, strict=True):
            logits = tiny.naive_logits(judge.model, [*item.ids[:end], *CHAT.prompt(judge.question)])[-1]
            losses.append(-torch.log_softmax(logits, -1)[CHAT.reply("GOOD" if good else "BAD")[0]])
    examples = [example for item in items for example in verdicts(judge, item)]
    assert [sum(example.weights) for example in examples] == [1.0] * 3
    found = fine_tuning.summed_loss(judge.model, examples)
    assert float(found.detach()) == pytest.approx(float(torch.stack(losses).sum().detach()), rel=1e-5)


def test_errors_are_counted_on_questions_that_it_did_not_learn(judged: tuple[Params, Layout]) -> None:
    _, layout = judged
    metrics, steps = load_json(layout.metrics("reward_model")), load(HeldOutStep, layout.heldout)
    assert metrics["taught.questions"] == 4  # of 4 each of hotpotqa and gsm8k, 2 are held out
    assert metrics["heldout.n"] == len(steps) >= 12  # 4 questions, 3 trajectories each, a step at least
    assert {step.task for step in steps} == {"search", "calculate"}
    assert all(0 < step.score < 1 or (step.score, step.kind) == (0, "cut") for step in steps)
    assert all(step.logprob < 0 for step in steps)
    series = load_json(layout.series("reward_model"))
    assert len(series) == 9  # 12 trajectories in batches of 4, three times
    assert series[-1]["loss"] < series[0]["loss"]


@pytest.mark.slow
def test_it_learns_from_questions_of_the_base_besides(judged: tuple[Params, Layout], tmp_path: Path) -> None:
    """Its errors are still counted on the reward split alone."""
    params, layout = judged[0], clone(judged[1], tmp_path / "root")
    with_more = validate(laid_over(params.model_dump(), {"reward_model": {"pretrain": {"hotpotqa": 3}}}), "more")
    reward_model.run(with_more, layout)
    metrics = load_json(layout.metrics("reward_model"))
    assert metrics["taught.questions"] == 4 + 3
    assert metrics["heldout.n"] == load_json(judged[1].metrics("reward_model"))["heldout.n"]
    too_many = validate(laid_over(params.model_dump(), {"reward_model": {"pretrain": {"hotpotqa": 41}}}), "many")
    with pytest.raises(DataError, match=r"reward_model.pretrain.hotpotqa is 41, and split pretrain has 40 annotated"):
        reward_model.run(too_many, layout)


@pytest.mark.slow
def test_what_it_reads_is_of_reward_and_pretrain_alone(
    judged: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the text of a question to train on, to develop with or to evaluate stands in it."""
    params, layout = judged[0], clone(judged[1], tmp_path / "root")
    with_more = validate(laid_over(params.model_dump(), {"reward_model": {"pretrain": {"hotpotqa": 3}}}), "more")
    read: list[Example] = []

    def caught(_: str, __: object, conversations: list[list[Example]], *___: object) -> None:
        read.extend(example for one in conversations for example in one)
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tuned_judge, "fine_tune", caught)
    with pytest.raises(KeyboardInterrupt):
        reward_model.run(with_more, layout)
    chat = load_chat(layout.root / "models/tiny")
    texts = [leakage_key(chat.text(example.ids)) for example in read]
    asked = {leakage_key(one.text): one.split for one in load(Question, layout.questions)}
    found = {name for name in asked if any(name in text for text in texts)}
    assert {asked[name] for name in found} == {"reward", "pretrain"}
    assert len(found) == 4 + 3


def test_models_reward_is_whole_weights_that_judge(judged: tuple[Params, Layout]) -> None:
    params, layout = judged
    taught, before = (load_model(layout.root / f"models/{name}", "cpu", "eager") for name in ("reward", "tiny"))
    moved = [float((a - b).abs().max()) for a, b in zip(taught.parameters(), before.parameters(), strict=True)]
    assert max(moved) > 0
    assert isinstance(load_reward_model(params, layout), RewardModel)


@pytest.mark.slow
def test_interrupted_it_goes_on_to_the_same_bytes(
    judged: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, made = judged
    layout = clone(made, tmp_path / "root")
    monkeypatch.setattr(fine_tuning, "EVERY", 2)
    with pytest.raises(KeyboardInterrupt), interrupted_after(4):
        reward_model.run(params, layout)
    with interrupted_after(1000) as count:
        reward_model.run(params, layout)
    assert count() == 5
    for path in (made.model("reward") / "model.safetensors", made.heldout, made.series("reward_model")):
        assert (layout.root / path.relative_to(made.root)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("changed", ["data/index", "models/reward/model.json", "actions"])
def test_checkpoints_are_not_those_of_other_inputs(judged: tuple[Params, Layout], tmp_path: Path, changed: str) -> None:
    params, layout = judged[0], clone(judged[1], tmp_path / "root")
    pointer = layout.model("reward") / "model.json"
    pointer.write_text("{}")
    further = [layout.root / "data/index", pointer]
    open_checkpoints(params, layout, further)
    (folder,) = (layout.root / ".swirl/checkpoints/reward_model").iterdir()
    if changed == "actions":
        params = validate(laid_over(params.model_dump(), {"actions": {"thought_only": "allow"}}), "others")
    elif changed == "data/index":
        (layout.root / changed / "another.json").write_text("{}")
    else:
        pointer.write_text('{"model": "another"}')
    open_checkpoints(params, layout, further)
    assert [path for path in folder.parent.iterdir() if path != folder]


def test_too_few_annotated_questions_are_refused_with_the_number(judged: tuple[Params, Layout], tmp_path: Path) -> None:
    params, made = judged
    greedy = validate(laid_over(params.model_dump(), {"reward_model": {"heldout": 4}}), "greedy")
    with pytest.raises(DataError, match=r"4 annotated questions of hotpotqa, and reward_model.heldout keeps 4"):
        reward_model.run(greedy, clone(made, tmp_path / "root"))


def test_settings_are_those_of_a_fine_tuning() -> None:
    assert set(SETTINGS["base_model"]) < set(JUDGE["reward_model"])
