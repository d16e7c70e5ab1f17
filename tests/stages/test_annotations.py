"""`source: annotations`: made-up rows like GSM8K's, from download through the stages to an evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from swirl.benchmarks.oracle import label_steps
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over, tree
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Action, ActionKind, Derivation, Question, WrittenSolution
from swirl.models.skipped import why_skipped
from swirl.pretraining import training
from swirl.stages import base_model, evaluate, train
from tests.stages.conftest import ROOT, clone, interrupted_after, run_stages

NAMES = ("Ada", "Bram", "Cleo", "Edda", "Falk", "Greta")


def row(number: int) -> dict[str, str]:
    first, second, each = number % 7 + 2, number % 5 + 3, number % 3 + 2
    name, total = NAMES[number % len(NAMES)], first + second
    return {
        "question": f"{name} has {first} red, {second} blue pens, row {number}. Each costs {each}. What is the cost?",
        "answer": f"{name} has {first}+{second}=<<{first}+{second}={total}>>{total} pens.\n"
        f"They cost {total}*{each}=<<{total}*{each}={total * each}>>{total * each} coins.\n#### {total * each}",
    }


SETTINGS = {
    "tasks": {"calculate": {"tools": ["calculator"], "max_steps": 4}},
    "rollout": {"max_action_tokens": 40, "block_size": 4, "in_flight": 4},
    "download": {
        "benchmarks": {
            "gsm8k": {
                "source": "file", "files": {"train": "gsm8k/train.jsonl"},
                "pretrain": 40, "reward": 8, "train": 4, "development": 2, "evaluation": 4,
            }
        }
    },
    "check_questions": {"min_evaluation": 4},
    "base_model": {
        "source": "annotations", "benchmark": "gsm8k",
        "shape": {
            "vocabulary": 400, "digits": 1, "hidden": 32, "layers": 2, "heads": 2, "feed_forward": 64, "context": 512,
            "window": 64,
        },
        "steps": 6, "batch_size": 4, "adam_lr": 0.01, "muon_lr": 0.01, "other_weight": 0.1, "thoughts": False,
        "thought_weight": 0.3,
        "drill_steps": 2, "changed_numbers": 0.5, "foreign": ["reward", "train"], "judged": 0.2,
        "copying": 0.1, "mixed_precision": "bf16",
    },
    "reward_model": {
        "source": "annotations", "heldout": 2, "samples": 1, "temperature": 1.0, "written": 1.0,
        "further_splits": ["train"], "steps": 3,
        "batch_size": 4, "adam_lr": 0.01, "muon_lr": 0.01, "mixed_precision": "bf16",
    },
    "filter": {"strategy": "none"},
}  # fmt: skip


@pytest.fixture(scope="module")
def params() -> Params:
    return validate(laid_over(tree(ROOT, "smoke"), SETTINGS), "annotations")


def downloaded(params: Params, root: Path) -> Layout:
    """A project in the folder `root` with its questions and solutions."""
    layout = Layout(root)
    for folder in ("src/swirl/prompts", "data/tools"):
        shutil.copytree(ROOT / folder, layout.root / folder)
    official = layout.root / "data/official/gsm8k/train.jsonl"
    official.parent.mkdir(parents=True)
    official.write_text("".join(json.dumps(row(number)) + "\n" for number in range(60)), encoding="utf-8")
    with pytest.warns(UserWarning, match="the official file of gsm8k train has 7,473"):
        run_stages(params, layout, "download")
    return layout


@pytest.fixture(scope="module")
def made(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = downloaded(params, tmp_path_factory.mktemp("annotations"))
    run_stages(
        params, layout, "check_questions", "index", "base_model", "reward_model", "synthesize", "judge", "filter"
    )
    return layout


def test_solutions_that_the_policy_could_not_act_out_are_refused_before_any_training(tmp_path: Path) -> None:
    """Each has two calls and an answer."""
    two = {"tasks": {"calculate": {"tools": ["calculator"], "max_steps": 2}}}
    short = validate(laid_over(laid_over(tree(ROOT, "smoke"), SETTINGS), two), "annotations")
    layout = downloaded(short, tmp_path)
    with pytest.raises(DataError) as error:
        base_model.run(short, layout)
    assert str(error.value) == (
        "none of the 40 solutions of gsm8k has at most 2 actions of up to 40 tokens, and 512 tokens in all with the "
        "prompt; raise tasks.calculate.max_steps, rollout.max_action_tokens or base_model.shape.context"
    )
    assert not (layout.root / ".swirl/checkpoints").exists()


@pytest.mark.slow
def test_every_question_has_its_solution_and_a_derivation_that_the_oracle_accepts(made: Layout) -> None:
    questions = load(Question, made.questions)
    known = {row.question_id: row for row in load(Derivation, made.derivations)}
    assert len(questions) == len(load(WrittenSolution, made.solutions)) == len(known) == 58
    for question in questions:
        golden = known[question.id]
        calls = [Action(ActionKind.CALCULATE, "", call) for call in golden.calls]
        answer = Action(ActionKind.ANSWER, "", question.answers[0])
        assert label_steps(golden, [*calls, answer]) == [True] * 3
        assert label_steps(golden, [*reversed(calls), answer]) == [True] * 3  # any order is GOOD
        assert label_steps(golden, [calls[0], calls[0], answer]) == [True, False, True]


@pytest.mark.slow
def test_the_base_is_gemma_shaped_and_has_no_ceiling(params: Params, made: Layout) -> None:
    config = load_json(made.model("base") / "config.json")
    assert (config["model_type"], config["hidden_size"], config["sliding_window"]) == ("gemma2", 32, 64)
    assert why_skipped(made.model("ceiling"))
    metrics = load_json(made.metrics("base_model"))
    assert metrics["solutions"] == metrics["solutions.used"] == 40
    assert 1 <= metrics["solutions.foreign"] <= 12
    assert len(load_json(made.series("base_model"))) == 8  # of which two are drill steps


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5], ids=["in the drills", "in the solutions"])
def test_an_interrupted_base_goes_on_to_the_same_bytes(
    steps: int, params: Params, made: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drill steps and six on solutions, whose examples come from one random stream."""
    layout = clone(made, tmp_path / "root")
    monkeypatch.setattr(training, "EVERY", 1)
    with pytest.raises(KeyboardInterrupt), interrupted_after(steps):
        base_model.run(params, layout)
    with interrupted_after(1000) as count:
        base_model.run(params, layout)
    assert count() == 8 - steps
    for path in (made.model("base") / "model.safetensors", made.series("base_model")):
        assert (layout.root / path.relative_to(made.root)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_judge_has_error_rates_and_the_policy_trains(params: Params, made: Layout) -> None:
    assert load_json(made.metrics("judge"))["heldout.n"] > 0
    train.run(params, made, "swirl")
    evaluate.run(params, made, "swirl")
    (score,) = load_json(made.evaluation("swirl"))
    assert score["n"] == 4
    assert score["process_label_oracle"] is not None
