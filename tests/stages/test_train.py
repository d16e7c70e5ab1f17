"""train: golden labels steer nothing, a kill changes no byte, and what is written loads."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from swirl.errors import DataError
from swirl.layout import Layout
from swirl.params import Params, validate
from swirl.records import load, load_json, save
from swirl.stages import train
from swirl.types import Derivation, Question, SubTrajectory
from tests.smoke import merged
from tests.stages.conftest import clone


def weights(layout: Layout, name: str = "swirl") -> bytes:
    return (layout.model(name) / "model.safetensors").read_bytes()


def test_it_writes_a_model_its_curves_and_metrics(trained: Layout) -> None:
    from transformers import AutoModelForCausalLM

    tuned = AutoModelForCausalLM.from_pretrained(trained.model("swirl"))
    base = AutoModelForCausalLM.from_pretrained(trained.model("base"))
    pairs = zip(tuned.parameters(), base.parameters(), strict=True)
    assert 1e-4 < max(float((a - b).abs().max().detach()) for a, b in pairs) < 1.0
    series = load_json(trained.series("train-swirl"))
    assert [row["step"] for row in series] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in series if row.get("development.reward") is not None] == [0, 2, 4, 6]
    named = {"reward", "kl", "entropy", "loss", "gradient_norm"}
    assert all(named <= {key for key, value in row.items() if value is not None} for row in series[1:])
    metrics = load_json(trained.metrics("train-swirl"))
    assert metrics["reward"] == series[-1]["reward"]
    assert metrics["start.development.reward"] == series[0]["development.reward"]
    assert not (trained.root / ".swirl/checkpoints/train-swirl").exists()


def shuffle_golden_labels(layout: Layout) -> None:
    """Every development answer becomes what the tiny base always says, and derivations trade places."""
    questions = [
        dataclasses.replace(q, answers=("7",)) if q.split == "development" else q
        for q in load(Question, layout.questions)
    ]
    save(questions, Question, layout.questions)
    derivations = load(Derivation, layout.derivations)
    others = random.Random(0).sample(derivations, len(derivations))
    swapped = [
        dataclasses.replace(d, calls=("3 + 4",) * len(o.calls), results=o.results)
        for d, o in zip(derivations, others, strict=True)
    ]
    save(swapped, Derivation, layout.derivations)


@pytest.mark.parametrize("item", ["swirl", "sft"])
def test_golden_labels_change_what_is_logged_and_no_weight(
    item: str, params: Params, trained: Layout, copy: Layout, tmp_path: Path
) -> None:
    reference = trained
    if item == "sft":
        reference = clone(copy, tmp_path / "reference")
        train.run(params, reference, item)
    shuffle_golden_labels(copy)
    train.run(params, copy, item)
    assert weights(copy, item) == weights(reference, item)
    ours, theirs = (load_json(layout.series(f"train-{item}")) for layout in (copy, reference))
    assert without_golden(ours) == without_golden(theirs)
    name = "golden.mini-gsm8k.accuracy"
    assert [row.get(name) for row in ours] != [row.get(name) for row in theirs]


def without_golden(series: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("golden.")} for row in series]


def test_golden_labels_cannot_move_the_guard(params: Params, copy: Layout, project: Layout, tmp_path: Path) -> None:
    """With limits so tight that the guard stops the run, it stops at the same update with any labels."""
    tight = validate(merged(params.model_dump(), {"train": {"swirl": {"guard": {"max_kl": 1e-9}}}}), "tests")
    other = clone(project, tmp_path / "other")
    shuffle_golden_labels(other)
    for layout in (copy, other):
        train.run(tight, layout, "swirl")
        series = load_json(layout.series("train-swirl"))
        assert [row["step"] for row in series] == [0, 1, 2]
        assert series[-1]["stopped"] == 1.0
    assert weights(copy) == weights(other)


def test_a_run_that_the_guard_stops_keeps_the_last_good_weights(params: Params, copy: Layout) -> None:
    tight = validate(merged(params.model_dump(), {"train": {"swirl": {"guard": {"max_kl": 1e-9}}}}), "tests")
    train.run(tight, copy, "swirl")
    from safetensors.torch import load_file

    kept, base = (load_file(copy.model(name) / "model.safetensors") for name in ("swirl", "base"))
    assert all(torch.equal(kept[name], base[name]) for name in base)


def test_killed_and_resumed_it_gives_the_same_bytes(
    params: Params,
    trained: Layout,
    copy: Layout,
    kill_stage: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoints = copy.root / ".swirl/checkpoints/train-swirl"
    kill_stage(copy, "train", "--item", "swirl", when=(checkpoints / "step-000002").exists)
    assert not (copy.model("swirl") / "model.safetensors").exists()
    import_module("swirl.stages.train").run(params, copy, "swirl")
    assert "resuming after 2" in capsys.readouterr().out
    assert weights(copy) == weights(trained)
    assert copy.series("train-swirl").read_bytes() == trained.series("train-swirl").read_bytes()
    assert copy.metrics("train-swirl").read_bytes() == trained.metrics("train-swirl").read_bytes()


def test_packed_and_plain_training_agree(params: Params, trained: Layout, copy: Layout) -> None:
    """Sampling could flip on a rounding; at these sizes it does not, so six updates end at the same weights."""
    from safetensors.torch import load_file

    plain = validate(merged(params.model_dump(), {"train": {"packed": False}}), "tests")
    train.run(plain, copy, "swirl")
    ours, theirs = (load_file(layout.model("swirl") / "model.safetensors") for layout in (copy, trained))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=2e-4)


def test_nothing_to_train_on_is_said(params: Params, copy: Layout) -> None:
    save([], SubTrajectory, copy.steps)
    with pytest.raises(DataError, match="steps.parquet holds no steps: the filter kept nothing"):
        train.run(params, copy, "swirl")
