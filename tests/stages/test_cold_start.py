"""`source: cold_start`: made-up rows in official formats teach a random model our format and the use of tools."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over, tree
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.leakage import leakage_key
from swirl.core.records import load, load_json, save
from swirl.core.types import Annotation, Question, Trajectory
from swirl.models.adapters import is_on
from swirl.models.loading import load_chat, load_model
from swirl.models.skipped import why_skipped
from swirl.pretraining import fine_tuning
from swirl.pretraining.cold_start_base import demonstrations
from swirl.pretraining.demonstrated import example_of
from swirl.rollout import engine
from swirl.stages import base_model
from swirl.wiring.attempts import attempts, roll_out_all, sampling
from swirl.wiring.policies import load_local_policy
from swirl.wiring.questions import questions_of
from tests import gguf_writer, made_up
from tests.families import smollm2
from tests.stages.conftest import ROOT, clone, interrupted_after, run_stages

SETTINGS: dict[str, Any] = {
    "runtime": {"threads": 1, "context": 1000},
    "tasks": {
        "search": {"tools": ["search"], "max_steps": 4},
        "calculate": {"tools": ["calculator"], "max_steps": 4},
        "films": {"tools": ["search", "calculator"], "max_steps": 4},
    },
    "tools": {"search_results": 1, "search_output_limit": 300},
    "rollout": {"max_action_tokens": 64, "block_size": 8, "in_flight": 8},
    "download": {
        "benchmarks": {
            "hotpotqa": {
                "source": "file", "files": {"train": "hotpotqa.jsonl"},
                "pretrain": 40, "reward": 4, "train": 4, "development": 4, "evaluation": 8,
            },
            "musique": {"source": "file", "files": {"train": "musique.jsonl"}, "pretrain": 20, "evaluation": 4},
            "gsm8k": {
                "source": "file", "files": {"train": "gsm8k.jsonl"},
                "pretrain": 20, "reward": 4, "train": 4, "development": 4, "evaluation": 4,
            },
            "films": {
                "source": "own", "files": {"train": "own.jsonl"}, "corpus": "films.jsonl", "task": "films",
                "pretrain": 20, "train": 4, "evaluation": 4,
            },
        }
    },
    "check_questions": {"min_evaluation": 4},
    "base_model": {
        "source": "cold_start", "model": "models/tiny", "revision": "", "lora": None, "epochs": 14, "batch_size": 8,
        "token_budget": 4096, "lr": 1.0e-2, "warmup": 10, "weight_decay": 0.0, "clip": 1.0,
        "gradient_checkpointing": False, "mixed_precision": "bf16",
    },
    "reward_model": {
        "source": "pretrained", "model": "models/tiny", "revision": "", "trust_remote_code": False, "verdict": "token",
        "max_tokens": 8, "votes": 1, "temperature": 0.0,
    },
}  # fmt: skip
ADAPTED = {"base_model": {"lora": {"rank": 4, "alpha": 8, "targets": ["all-linear"]}, "epochs": 2}}


@pytest.fixture(scope="module")
def params() -> Params:
    return validate(laid_over(tree(ROOT, "smoke"), SETTINGS), "cold start")


@pytest.fixture(scope="module")
def ready(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project after download and index, with a pretrained model in models/tiny."""
    layout = Layout(tmp_path_factory.mktemp("cold"))
    for folder in ("src/swirl/prompts", "data/tools"):
        shutil.copytree(ROOT / folder, layout.root / folder)
    official = layout.root / "data/official"
    rows = [made_up.hotpotqa(n) for n in range(64)]
    rows.append({**made_up.hotpotqa(0), "_id": "again"})  # one text twice, which must not land in two splits
    made_up.write(official / "hotpotqa.jsonl", rows)
    made_up.write(official / "musique.jsonl", [made_up.musique(n) for n in range(30)])
    made_up.write(official / "gsm8k.jsonl", [made_up.gsm8k(n) for n in range(40)])
    made_up.write(official / "own.jsonl", [made_up.own(n) for n in range(30)])
    corpus = [{"title": title, "text": "".join(said)} for n in range(30) for title, said in made_up.pages(n).items()]
    made_up.write(official / "films.jsonl", corpus)
    (layout.root / "src/swirl/prompts/policy/films.txt").write_text("{tools} {steps} steps. {question}")
    texts = [str(row) for row in rows] + [
        path.read_text() for path in layout.root.glob("src/swirl/prompts/policy/*")
    ] * 5
    made_up.pretrained(layout.root / "models/tiny", texts + [str(made_up.own(n)) for n in range(30)])
    with pytest.warns(UserWarning, match="the official file of"):
        run_stages(params, layout, "download")
    run_stages(params, layout, "check_questions", "index")
    return layout


@pytest.fixture(scope="module")
def made(params: Params, ready: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = clone(ready, tmp_path_factory.mktemp("made") / "root")
    base_model.run(params, layout)
    return layout


@pytest.fixture(scope="module")
def adapted(params: Params, ready: Layout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Layout]:
    """The same, taught by an adapter in two passes."""
    layout = clone(ready, tmp_path_factory.mktemp("adapted") / "root")
    others = validate(laid_over(params.model_dump(), ADAPTED), "adapted")
    base_model.run(others, layout)
    return others, layout


@pytest.fixture(scope="module")
def shown(params: Params, ready: Layout) -> list[Trajectory]:
    trajectories, _ = demonstrations(params, ready, load_chat(ready.root / "models/tiny"), 1000)
    return trajectories


class ScriptedSlots:
    """In place of a model: says given actions, one after the other, whatever it reads in between."""

    def __init__(self, script: dict[tuple[int, ...], list[tuple[int, ...]]], context: int) -> None:
        self._script, self._vocabulary = script, 1 + max(t for actions in script.values() for a in actions for t in a)
        self._left: dict[int, list[tuple[int, ...]]] = {}
        self._action: dict[int, list[int]] = {}
        self._count = 0

    def open(self) -> int:
        self._count += 1
        return self._count - 1

    def clear(self, slot: int) -> None:
        assert not self._left.pop(slot)
        assert not self._action[slot]

    def keep(self, slots: list[int]) -> None:
        self._left = {new: self._left[old] for new, old in enumerate(slots)}
        self._action = {new: self._action[old] for new, old in enumerate(slots)}
        self._count = len(slots)

    def read(self, new: list[tuple[int, tuple[int, ...]]]) -> torch.Tensor:
        logits = torch.zeros(len(new), self._vocabulary)
        for row, (slot, tokens) in enumerate(new):
            if slot not in self._left:
                self._left[slot], self._action[slot] = list(self._script[tokens]), []
            if not self._action[slot]:
                self._action[slot] = list(self._left[slot].pop(0))
            logits[row, self._action[slot].pop(0)] = 1.0
        return logits


def stops(params: Params, layout: Layout, folder: str) -> Counter[str]:
    """How greedy rollouts of the evaluation questions end, by the model in this folder."""
    policy = load_local_policy(params, layout.root / folder, "base")
    todo = attempts(params, layout, questions_of(layout, "evaluation"), 1)
    return Counter(trajectory.stop.value for trajectory in roll_out_all(params, policy, todo, 0.0, 0))


@pytest.mark.slow
def test_malformed_before_and_well_formed_after(params: Params, made: Layout) -> None:
    assert stops(params, made, "models/tiny") == {"malformed": 20}
    assert stops(params, made, "models/base")["answered"] >= 19


@pytest.mark.slow
def test_the_base_is_whole_weights_with_metrics_and_a_loss_curve(made: Layout) -> None:
    assert not (made.model("base") / "model.json").exists()
    assert why_skipped(made.model("ceiling"))
    metrics, series = load_json(made.metrics("base_model")), load_json(made.series("base_model"))
    assert metrics["demonstrations.gsm8k"] == metrics["demonstrations.musique"] == metrics["demonstrations.films"] == 20
    left_out = sum(value for key, value in metrics.items() if key.startswith("left_out.hotpotqa."))
    assert metrics["demonstrations.hotpotqa"] + left_out == 40
    assert metrics["demonstrations.hotpotqa"] >= 30
    assert [row["step"] for row in series] == list(range(len(series)))
    assert sum(row["tokens"] for row in series) == 14 * metrics["tokens"]
    assert series[0]["loss"] > 5 > 1 > metrics["loss"] == series[-1]["loss"]


def test_only_questions_of_the_pretrain_split_are_learned(
    params: Params, ready: Layout, shown: list[Trajectory]
) -> None:
    """Not even the text of another split's question stands in what the model reads."""
    questions = {question.id: question for question in load(Question, ready.questions)}
    assert {questions[trajectory.question_id].split for trajectory in shown} == {"pretrain"}
    assert {way.question_id for way in load(Annotation, ready.annotations)} <= {
        q for q in questions if "/pretrain/" in q
    }
    chat = load_chat(ready.root / "models/tiny")
    learned = [leakage_key(chat.text(example_of(trajectory).ids)) for trajectory in shown]
    others = {leakage_key(q.text) for q in questions.values() if q.split != "pretrain"}
    assert len(others) == 48
    assert not [other for other in others for text in learned if other in text]
    asked = leakage_key(questions[shown[0].question_id].text)
    assert asked in learned[0]


def test_demonstrations_are_token_for_token_what_a_rollout_records(
    params: Params, ready: Layout, shown: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says the demonstrated actions is rolled out: the same states, actions, observations and end."""
    monkeypatch.setattr(engine, "Slots", ScriptedSlots)
    todo = {one.question.id: one for one in attempts(params, ready, questions_of(ready, "pretrain"), 1)}
    script = {one.prompt_ids: [step.token_ids for step in one.steps] for one in shown}
    policy = engine.Policy("scripted", script, load_chat(ready.root / "models/tiny"), 1000)
    played = [todo[trajectory.question_id] for trajectory in shown]
    rolled = engine.roll_out(policy, played, sampling(params, 0.0), 0, 2, 8, engine.Calls(4, 1))
    assert {trajectory.benchmark for trajectory in shown} == {"hotpotqa", "musique", "gsm8k", "films"}
    for demonstrated, real in zip(shown, rolled, strict=True):
        assert (real.stop, real.prompt_ids) == (demonstrated.stop, demonstrated.prompt_ids)
        assert [replace(step, logprobs=()) for step in real.steps] == list(demonstrated.steps)
        assert real.state_ids(len(real.steps)) == demonstrated.state_ids(len(demonstrated.steps))
        assert not any(step.tool_error for step in real.steps)


def test_what_has_weight_are_the_actions(shown: list[Trajectory], ready: Layout) -> None:
    chat = load_chat(ready.root / "models/tiny")
    one = next(trajectory for trajectory in shown if trajectory.question_id == "films/pretrain/o3")
    example = example_of(one)
    own = [token for token, weight in zip(example.ids, example.weights, strict=True) if weight]
    assert chat.text(own) == "".join(made_up.own(3)["demonstration"])
    assert "97" in chat.text(own) and "2000 - 1903 -> 97" in chat.text(example.ids)
    assert set(example.weights) == {0.0, 1.0}
    assert example.ids == one.state_ids(2) + one.steps[2].token_ids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "kept", "rule", "value"),
    [(3, 0, "EVERY", 8), (20, 16, "EVERY", 8), (3, 3, "PATIENCE_S", 0.0)],
    ids=["before the first checkpoint", "in the second pass", "a checkpoint by the clock"],
)
def test_interrupted_it_goes_on_to_the_same_bytes(
    steps: int,
    kept: int,
    rule: str,
    value: float,
    ready: Layout,
    adapted: tuple[Params, Layout],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two passes of 13 steps."""
    (params, whole), cut = adapted, clone(ready, tmp_path / "cut")
    monkeypatch.setattr(fine_tuning, rule, value)
    with pytest.raises(KeyboardInterrupt), interrupted_after(steps):
        base_model.run(params, cut)
    with interrupted_after(1000) as count:
        base_model.run(params, cut)
    assert count() == 26 - kept
    for path in (whole.model("base") / "model.safetensors", whole.series("base_model"), whole.metrics("base_model")):
        assert (cut.root / path.relative_to(whole.root)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_an_adapter_is_merged_into_the_base_and_kept(adapted: tuple[Params, Layout]) -> None:
    _, layout = adapted
    base, start = (load_model(layout.root / name, "cpu", "eager") for name in ("models/base", "models/tiny"))
    taught = load_model(layout.model("base") / "adapter", "cpu", "eager")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        merged, apart, before = (model(input_ids=ids).logits for model in (base, taught, start))
    assert torch.allclose(merged, apart, atol=1e-4)
    assert float((merged - before).abs().max()) > 1e-2
    assert not is_on(base) and is_on(taught)
    assert [name for name, _ in base.named_parameters()] == [name for name, _ in start.named_parameters()]
    metrics = load_json(layout.metrics("base_model"))
    assert metrics["trained_parameters"] < metrics["parameters"] / 4


@pytest.mark.slow
def test_in_bfloat16_what_trains_is_float32(params: Params, ready: Layout, tmp_path: Path) -> None:
    """Steps of at most 2e-5, less than half of what bfloat16 tells apart near 0.02, add up all the same."""
    from safetensors.torch import load_file

    layout = clone(ready, tmp_path / "root")
    changes = {"runtime": {"dtype": "bfloat16"}, "base_model": {"epochs": 2, "lr": 2e-5, "warmup": 0}}
    base_model.run(validate(laid_over(params.model_dump(), changes), "bfloat16"), layout)
    saved = load_file(layout.model("base") / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    name = "model.layers.0.mlp.up_proj.weight"
    start = load_file(layout.root / "models/tiny/model.safetensors")[name]
    large = start.abs() > 0.016
    assert float((saved[name] != start.bfloat16())[large].float().mean()) > 0.5


def test_training_that_diverges_is_stopped(params: Params, ready: Layout, tmp_path: Path) -> None:
    fast = validate(laid_over(params.model_dump(), {"base_model": {"lr": 1e30, "warmup": 0}}), "fast")
    with pytest.raises(
        DataError, match=r"^step 2 of base_model, cold start: the loss is .*nan.*; lower its lr \(1e\+30\)$"
    ):
        base_model.run(fast, clone(ready, tmp_path / "root"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the official file of")
def test_a_gguf_file_is_taught_as_a_folder_is(params: Params, ready: Layout, tmp_path: Path) -> None:
    layout = clone(ready, tmp_path / "root")
    gguf_writer.write(layout.root / "data/weights/tiny.gguf", gguf_writer.model(len(smollm2())))
    changes = {
        "base_model": {**ADAPTED["base_model"], "epochs": 1, "model": "data/weights/tiny.gguf"},
        "download": {"benchmarks": {"gsm8k": SETTINGS["download"]["benchmarks"]["gsm8k"]}},
        "runtime": {"context": 512},
        "rollout": {"max_action_tokens": 120},
    }
    others = validate(laid_over(params.model_dump(), changes), "gguf")
    run_stages(others, layout, "download", "index", "base_model")
    pointer = load_json(layout.model("base") / "adapter/model.json")
    assert pointer["model"].endswith("data/weights/tiny.gguf")
    base, taught = (load_model(layout.model("base") / name, "cpu", "eager") for name in (".", "adapter"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(base(input_ids=ids).logits, taught(input_ids=ids).logits, atol=1e-4)
    assert load_json(layout.metrics("base_model"))["demonstrations.gsm8k"] == 20


def test_an_own_demonstration_that_cannot_be_played_is_named(params: Params, ready: Layout, tmp_path: Path) -> None:
    layout = clone(ready, tmp_path / "root")
    ways = load(Annotation, layout.annotations)
    number = next(n for n, way in enumerate(ways) if way.question_id == "films/pretrain/o3")
    ways[number] = replace(ways[number], steps=("<sql_query> film </sql_query>", "<answer> 97 </answer>"))
    save(ways, Annotation, layout.annotations)
    said = (
        "question films/pretrain/o3, field 'demonstration', action 1 of 2: expected one call (<search_query>, "
        "<math_exp>), and nothing after it, got '<sql_query> film </sql_query>'"
    )
    with pytest.raises(DataError, match=re.escape(said)):
        base_model.run(params, layout)


def test_questions_that_nothing_is_annotated_of_are_refused(params: Params, ready: Layout, tmp_path: Path) -> None:
    layout = clone(ready, tmp_path / "root")
    save(
        [way for way in load(Annotation, layout.annotations) if "films" not in way.question_id],
        Annotation,
        layout.annotations,
    )
    with pytest.raises(
        DataError, match=re.escape("no question of films in split pretrain becomes a demonstration (no_annotation: 20)")
    ):
        base_model.run(params, layout)
