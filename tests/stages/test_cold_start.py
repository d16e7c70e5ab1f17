"""`source: cold_start`: made-up rows in official formats teach a random model our format and the use of tools."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over, tree
from swirl.core.layout import Layout
from swirl.core.leakage import leakage_key
from swirl.core.records import load, load_json
from swirl.core.types import Annotation, Question, Trajectory
from swirl.models.loading import load_chat
from swirl.pretraining.cold_start_base import demonstrations
from swirl.stages import base_model
from swirl.wiring.attempts import attempts, roll_out_all
from swirl.wiring.policies import load_local_policy
from swirl.wiring.questions import questions_of
from tests import made_up
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
        "source": "cold_start", "model": "models/tiny", "revision": "", "lora": None, "epochs": 12, "batch_size": 8,
        "token_budget": 4096, "lr": 1.0e-2, "warmup": 10, "weight_decay": 0.0, "clip": 1.0,
        "gradient_checkpointing": False, "mixed_precision": "bf16",
    },
    "reward_model": {
        "source": "pretrained", "model": "models/tiny", "revision": "", "trust_remote_code": False, "verdict": "token",
        "max_tokens": 8, "votes": 1, "temperature": 0.0,
    },
}  # fmt: skip
ADAPTED = {"base_model": {"lora": {"rank": 4, "alpha": 8, "targets": ["all-linear"]}, "epochs": 1}}


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
    texts = [str(row) for row in rows] + [path.read_text() for path in layout.root.glob("src/swirl/prompts/policy/*")] * 5
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
def shown(params: Params, made: Layout) -> list[Trajectory]:
    trajectories, _ = demonstrations(params, made, load_chat(made.root / "models/tiny"), 1000)
    return trajectories


def stops(params: Params, layout: Layout, folder: str) -> Counter[str]:
    """How greedy rollouts of the evaluation questions end, by the model in this folder."""
    policy = load_local_policy(params, layout.root / folder, "base")
    todo = attempts(params, layout, questions_of(layout, "evaluation"), 1)
    return Counter(trajectory.stop.value for trajectory in roll_out_all(params, policy, todo, 0.0, 0))


def test_malformed_before_and_well_formed_after(params: Params, made: Layout) -> None:
    assert stops(params, made, "models/tiny") == {"malformed": 20}
    assert stops(params, made, "models/base")["answered"] >= 19


def test_the_base_is_whole_weights_with_metrics_and_a_loss_curve(made: Layout) -> None:
    assert not (made.model("base") / "model.json").exists()
    assert why_skipped(made.model("ceiling"))
    metrics, series = load_json(made.metrics("base_model")), load_json(made.series("base_model"))
    assert metrics["demonstrations.gsm8k"] == metrics["demonstrations.musique"] == metrics["demonstrations.films"] == 20
    left_out = sum(value for key, value in metrics.items() if key.startswith("left_out.hotpotqa."))
    assert metrics["demonstrations.hotpotqa"] + left_out == 40
    assert metrics["demonstrations.hotpotqa"] >= 30
    assert [row["step"] for row in series] == list(range(len(series)))
    assert sum(row["tokens"] for row in series) == 12 * metrics["tokens"]
    assert series[0]["loss"] > 5 > 1 > metrics["loss"] == series[-1]["loss"]


def test_only_questions_of_the_pretrain_split_are_learned(params: Params, made: Layout, shown: list[Trajectory]) -> None:
    """Not even the text of another split's question stands in what the model reads."""
    questions = {question.id: question for question in load(Question, made.questions)}
    assert {questions[trajectory.question_id].split for trajectory in shown} == {"pretrain"}
    assert {way.question_id for way in load(Annotation, made.annotations)} <= {q for q in questions if "/pretrain/" in q}
    chat = load_chat(made.model("base"))
    learned = [leakage_key(chat.text(example_of(trajectory).ids)) for trajectory in shown]
    others = {leakage_key(q.text) for q in questions.values() if q.split != "pretrain"}
    assert len(others) == 40
    assert not [other for other in others for text in learned if other in text]
    asked = leakage_key(questions[shown[0].question_id].text)
    assert asked in learned[0]


def test_demonstrations_are_token_for_token_what_a_rollout_records(
    params: Params, made: Layout, shown: list[Trajectory]
) -> None:
    """A model that says the demonstrated actions is rolled out: the same states, actions, observations and end."""
    chat = load_chat(made.model("base"))
    todo = {one.question.id: one for one in attempts(params, made, questions_of(made, "pretrain"), 1)}
    said = {trajectory.prompt_ids: trajectory for trajectory in shown}
    policy = Policy("scripted", Scripted(said, len(chat.tokenizer)), chat, 1000)
    played = [todo[trajectory.question_id] for trajectory in shown]
    rolled = roll_out(policy, played, Sampling(0.0, 1.0, 0, params.rollout.max_action_tokens), 0, 2, 8)
    assert len({trajectory.benchmark for trajectory in shown}) == 4
    for demonstrated, real in zip(shown, rolled, strict=True):
        assert real.stop == demonstrated.stop == "answered"
        assert real.state_ids(len(real.steps)) == demonstrated.state_ids(len(demonstrated.steps))
        assert [replace(step, logprobs=()) for step in real.steps] == list(demonstrated.steps)
