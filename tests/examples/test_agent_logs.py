"""examples/agent-logs: an agent's logs through the stages to the report; a tiny model that knows some by heart."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from swirl.agent_logs.stored import from_content
from swirl.agent_logs.tagged import turns_of
from swirl.agent_logs.tokenised import trajectory_of
from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import LOGGED, Conversation, JudgeRole, Question, StateAction, SubTrajectory, Trajectory
from swirl.models.loading import load_chat, load_model, save
from swirl.reporting.text import render
from swirl.serving.model_card import write_card
from tests import made_up
from tests.stages.conftest import run_stages

ROOT = Path(__file__).parents[2]
EXAMPLE = "examples/agent-logs"
SMALL: dict[str, Any] = {
    "base_model": {"source": "pretrained", "model": "taught", "revision": "", "trust_remote_code": False},
    "runtime": {"workers": 1},
    "download": {
        "benchmarks": {
            "desk": {"source": "logs", "logs": ["support.jsonl"], "train": 24, "development": 4, "evaluation": 8}
        }
    },
    "check_questions": {"min_evaluation": 8},
    "rollout": {"max_action_tokens": 48, "block_size": 10},
    "check_steps": {"min_rows": 10},
    "train": {
        "swirl": {"updates": 2, "states": 4, "samples": 2, "check_every": 2, "lr": 1e-6},
        "sft": {"epochs": 1, "batch_size": 4, "lr": 1e-6},
    },
}
MODELS = ("base", "sft", "swirl")


@pytest.fixture(scope="module")
def params() -> Params:
    """The example's own preset, with a tiny model and few conversations."""
    return validate(laid_over(presets.tree(ROOT, str(ROOT / EXAMPLE / "preset.yaml")), SMALL), "agent logs")


@pytest.fixture(scope="module")
def done(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The example's project after every stage."""
    layout = Layout(tmp_path_factory.mktemp("logs"))
    shutil.copytree(ROOT / EXAMPLE, layout.root / EXAMPLE)
    shutil.copytree(ROOT / "src/swirl/prompts", layout.root / "src/swirl/prompts")
    run_stages(params, layout, "download", "check_questions", "index")
    teach(layout)
    run_stages(params, layout, "base_model", "reward_model", "synthesize", "check_trajectories", "judge", "filter")
    run_stages(params, layout, "check_steps")
    for stage, items in (("train", ("sft", "swirl")), ("evaluate", ("ceiling", *MODELS))):
        module = __import__(f"swirl.stages.{stage}", fromlist=["run"])
        for item in items:
            module.run(params, layout, item)
    run_stages(params, layout, "report")
    return layout


def teach(layout: Layout) -> None:
    """Saves a model in `taught/` that has learnt the logged actions of a few conversations."""
    logged = [from_content(row.content) for row in load(Conversation, layout.conversations)]
    texts = [turn.text for one in logged for turn in turns_of(one)]
    folder = made_up.pretrained(layout.root / "taught", texts, 2048)
    chat, model = load_chat(folder), load_model(folder, "cpu", "eager", "float32")
    known = [trajectory_of(one, chat, "desk") for one in logged[:8]]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(120):
        one = known[step % len(known)]
        ids, labels = list(one.prompt_ids), [-100] * len(one.prompt_ids)
        for taken in one.steps:
            ids += [*taken.token_ids, *taken.observation_ids]
            labels += [*taken.token_ids, *[-100] * len(taken.observation_ids)]
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save(model, chat.tokenizer, folder)


def test_the_reward_scores_whatever_a_model_writes() -> None:
    asked = "refund only where the policy allows it.\nI want my money back for order F12345.\n---\n"
    calls = {
        '<lookup_order> {"order_id": "F12345"} </lookup_order>': 1.0,
        '<lookup_order> {"order_id": "F99999"} </lookup_order>': 0.0,
        "<lookup_order> {} </lookup_order>": 0.0,
        '<lookup_order> {"order_id": null} </lookup_order>': 0.0,
        '<lookup_order> {"order_id": ["F12345"]} </lookup_order>': 0.0,
        "<lookup_order> F12345 </lookup_order>": 0.0,
        "<lookup_order> [[1]] </lookup_order>": 0.0,
        '<issue_refund> {"order_id": 7, "amount": "all"} </issue_refund>': 0.0,
        "<search_policy> {} </search_policy>": 0.0,
        "": 0.0,
    }
    place = importlib.util.spec_from_file_location("desk_rewards", ROOT / EXAMPLE / "rewards/desk_rewards.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    assert module.Procedure().scores([asked] * len(calls), list(calls)) == list(calls.values())
    assert all(0 <= score <= 1 for score in module.Grounded().scores([asked] * len(calls), list(calls)))


@pytest.mark.slow
def test_conversations_are_dealt_out_and_trained_on(done: Layout) -> None:
    questions = load(Question, done.questions)
    assert {split: sum(q.split == split for q in questions) for split in ("train", "development", "evaluation")} == {
        "train": 24,
        "development": 4,
        "evaluation": 8,
    }
    assert {q.task for q in questions} == {LOGGED}
    assert questions[0].tools == ("logged:lookup_order", "logged:search_policy", "logged:issue_refund")
    made = load(Trajectory, done.trajectories)
    assert {t.question_id for t in made} == {q.id for q in questions if q.split == "train"}
    held = load(Trajectory, done.logged)
    assert {t.question_id for t in held} == {q.id for q in questions if q.split != "train"}
    kept = load(SubTrajectory, done.steps)
    assert kept and all(row.score == 1.0 for row in kept if row.step == 0)
    assert load_json(done.too_long) == []


@pytest.mark.slow
def test_looks_and_evaluation_are_in_logged_states(done: Layout) -> None:
    series = load_json(done.series("train-swirl"))
    looks = [row for row in series if row["development.reward"] is not None]
    assert [row["step"] for row in looks] == [0, 2]
    for row in looks:
        assert {"development.malformed", "development.cut", "development.same_tools", "development.same_calls"} <= set(
            row
        )
        assert "development.steps" not in row
    held = load(Trajectory, done.logged)
    splits = {q.id: q.split for q in load(Question, done.questions)}
    steps = sum(len(t.steps) for t in held if splits[t.question_id] == "evaluation")
    for model in MODELS:
        actions = load(StateAction, done.state_actions(model))
        assert len(actions) == steps
        assert {(one.model, one.judge, one.judge_role) for one in actions} == {
            (model, "desk_rewards:Grounded", JudgeRole.SECOND)
        }
    assert not done.state_actions("ceiling").exists()


@pytest.mark.slow
def test_the_report_has_every_model_in_logged_states_and_no_score(done: Layout) -> None:
    results = load_json(done.results)
    assert results["scores"] == []
    rows = {(row["model"], row["measure"]): row for row in results["states"]}
    assert {model for model, _ in rows} == set(MODELS)
    reward = rows["swirl", "reward"]
    assert (reward["benchmark"], reward["n"], reward["judge"]) == ("desk", 8, "desk_rewards:Grounded")
    assert reward["over_base_low"] <= reward["over_base"] <= reward["over_base_high"]
    assert reward["over_base"] == pytest.approx(reward["mean"] - rows["base", "reward"]["mean"])
    assert rows["base", "reward"]["over_base"] is None
    assert load_json(done.metrics("evaluate-swirl"))["desk.reward"] == reward["mean"]
    page = done.page.read_text(encoding="utf-8")
    assert 'id="states"' in page and "desk: same calls as logged" in page and 'id="results"' not in page
    assert sorted(path.name for path in done.plots.iterdir()) == ["filters.png", "training.png"]


@pytest.mark.slow
def test_the_report_in_the_terminal_fits_a_hundred_columns(done: Layout) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(done))
    said = console.export_text()
    assert "In the states of logged conversations, %" in said and "desk: mean step reward" in said
    assert 'Reward: by the judge "desk_rewards:Grounded", a second judge' in " ".join(said.split())
    assert "…" not in said and "Accuracy with tools" not in said


@pytest.mark.slow
def test_the_card_of_an_exported_model_has_its_numbers(params: Params, done: Layout, tmp_path: Path) -> None:
    write_card(tmp_path, "merged", done.model("swirl"), params, done)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| desk | reward by `desk_rewards:Grounded`, a second judge, not the reward | 8 |" in card
    assert "| desk | same calls | 8 |" in card
    assert "Of 24 logged conversations, the filter `process` kept " in card
    assert "Reward: the mean by weights of `desk_rewards:Procedure` (weight 1)." in card


def test_the_logs_are_what_the_script_writes(tmp_path: Path) -> None:
    shutil.copy(ROOT / EXAMPLE / "make_logs.py", tmp_path)
    subprocess.run([sys.executable, str(tmp_path / "make_logs.py")], check=True)
    made = (tmp_path / "data/support.jsonl").read_bytes()
    assert made == (ROOT / EXAMPLE / "data/support.jsonl").read_bytes()
    assert len(made.splitlines()) == 320
    assert set(json.loads(made.splitlines()[0])) == {"session_id", "messages", "tools"}
