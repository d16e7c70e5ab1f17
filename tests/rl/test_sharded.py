"""Two real processes end at the weights of one, whole on each or dealt out over them; see sharded_ranks.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swirl.core.checkpoints import Checkpoints
from swirl.core.distributed import ALONE
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.models.loading import save
from swirl.models.sharding import shard
from tests import tiny
from tests.rl import sharded_ranks
from tests.rl.sharded_ranks import AFTER, BATCHES, CASES, SAVED, fine_tune, learner, logits, narrow, saved
from tests.rl.test_trainer import CHAT

pytestmark = pytest.mark.rare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """Case -> metrics and weights of one process, which leaves a checkpoint for each of the two."""
    found: dict[str, Any] = {}
    for case in CASES:
        one = learner(case)
        rows = [one.update(number, batch) for number, batch in enumerate(BATCHES[:AFTER])]
        for rank in range(2):
            place = folder / case / f"one-for-{rank}"
            Checkpoints(place, "print").save(AFTER, one.masters.named, [one.optimizer], {})
        rows += [one.update(number, BATCHES[number]) for number in range(AFTER, len(BATCHES))]
        found[case] = {"rows": rows, "weights": _weights(one.policy.model), "logits": logits(one.policy.model)}
    layout = Layout(folder / "project")
    save(tiny.qwen3(16).float(), CHAT.tokenizer, layout.model("base"))
    return found


@pytest.fixture(scope="module")
def two(folder: Path, alone: dict[str, Any]) -> dict[str, Any]:
    """What the first of two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(sys.path)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", sharded_ranks.__name__, str(folder)],
            env={**common, "RANK": str(rank), "PYTHONPATH": path},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=False)
    return found


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def assert_near(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("sharding", ["none", "full"])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_at_the_weights_of_one(
    case: str, sharding: str, alone: dict[str, Any], two: dict[str, Any]
) -> None:
    before = _weights(learner(case).policy.model)
    moved = max(float((alone[case]["weights"][name] - old).abs().max()) for name, old in before.items())
    assert moved > 1e-3, "updates that move nothing compare nothing"
    found = two[case] if sharding == "full" else two["none"][case]
    assert_near(found["weights"], alone[case]["weights"])
    for ours, theirs in zip(found["rows"], alone[case]["rows"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("item", SAVED)
def test_what_is_saved_is_an_ordinary_model_or_adapter(item: str, folder: Path, two: dict[str, Any]) -> None:
    ours, theirs = folder / f"{item}-2", saved(item, folder)
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    (weights,) = [path.name for path in ours.glob("*.safetensors")]
    found, wanted = (load_file(place / weights) for place in (ours, theirs))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0.0, atol=0.02 if SAVED[item][0] else 1e-5)  # bfloat16
    for path in theirs.glob("*.json"):
        assert (ours / path.name).read_bytes() == path.read_bytes()
    base = load_file(folder / "project/models/base/model.safetensors")
    moved = [float((value.float() - base[name]).abs().max()) for name, value in wanted.items() if name in base]
    adapter = [float(value.abs().max()) for name, value in wanted.items() if "lora_B" in name]  # zeros at first
    assert max(moved or adapter) > 0.1


@pytest.mark.parametrize("case", CASES)
def test_each_holds_about_half_of_weights_and_moments(case: str, two: dict[str, Any]) -> None:
    for held, whole in ((two[case]["held"], two[case]["all"]), (two[case]["moments"], two[case]["trained"])):
        assert sum(held) == whole
        assert max(held) <= 0.52 * whole


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_resumes_with_another_number_of_processes(
    case: str, folder: Path, alone: dict[str, Any], two: dict[str, Any]
) -> None:
    assert_near(two[case]["resumed"], alone[case]["weights"])  # one wrote it, two went on
    one = learner(case)
    Checkpoints(folder / case / "two", "print").restore(AFTER, one.masters.named, [one.optimizer])
    one.masters.publish()
    for number in range(AFTER, len(BATCHES)):
        one.update(number, BATCHES[number])
    assert_near(_weights(one.policy.model), alone[case]["weights"])


@pytest.mark.parametrize("case", CASES)
def test_in_a_whole_model_each_process_reads_as_often_as_it_likes(
    case: str, alone: dict[str, Any], two: dict[str, Any]
) -> None:
    for read in two[case]["logits"]:
        torch.testing.assert_close(read, alone[case]["logits"], rtol=0.0, atol=1e-3)


def test_masters_are_float32_where_the_model_computes_in_bfloat16(two: dict[str, Any]) -> None:
    model, masters = narrow(False)
    loss = fine_tune(model, masters, ALONE)
    ours = two["half"]
    assert (ours["masters"], ours["computes"]) == ({torch.float32}, {torch.bfloat16})
    assert ours["loss"] == pytest.approx(loss, rel=1e-2)
    for name, master in masters.named.items():
        assert master.grad is not None
        gap = float((ours["gradients"][name] - master.grad).norm() / master.grad.norm())
        assert gap < 0.03, name  # bfloat16 has three digits
    assert ours["norm"] == pytest.approx(masters.clip(0.5), rel=1e-2)


def test_what_is_dealt_out_is_planned_in_the_dtype_that_it_computes_in(two: dict[str, Any]) -> None:
    """Of a parameter: gradient and moments in float32 and a reference in bfloat16, by two; gathered in bfloat16."""
    count = sum(parameter.numel() for parameter in narrow(False)[0].parameters())
    assert two["half"]["computed"] == torch.bfloat16
    assert two["half"]["planned"] == count * (4 + 8 + 2) / 2 + count * 2


def test_a_model_whose_layers_cannot_be_told_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no layers that .* set runtime.sharding: none"):
        shard(torch.nn.Linear(2, 2))


def test_trajectories_are_dealt_out_by_their_tokens(two: dict[str, Any]) -> None:
    """As the trainer dealt out its last batch."""
    most, least = max(two["tied"]["tokens"]), min(two["tied"]["tokens"])
    assert most <= 1.3 * least
