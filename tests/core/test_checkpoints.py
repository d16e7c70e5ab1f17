"""Checkpoints: the two newest are kept, one that is torn is set aside and the one before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.core.checkpoints import Checkpoints


class Run:
    """A matrix that Muon trains and a vector that AdamW trains, as pretraining has them."""

    def __init__(self) -> None:
        self.weights = {
            "matrix": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
            "vector": torch.nn.Parameter(torch.ones(3)),
        }
        self.optimizers: list[Any] = [
            torch.optim.AdamW([self.weights["vector"]], lr=0.1),
            torch.optim.Muon([self.weights["matrix"]], lr=0.1),
        ]

    def step(self) -> None:
        for weight in self.weights.values():
            weight.grad = weight.detach() - 1.5
        for optimizer in self.optimizers:
            optimizer.step()

    def values(self) -> list[Any]:
        return [weight.detach().tolist() for weight in self.weights.values()]


def three_checkpoints(folder: Path) -> tuple[Checkpoints, list[Any]]:
    """After 1, 2 and 3 steps; and the weights after a fourth one."""
    run, checkpoints = Run(), Checkpoints(folder, "mine")
    for number in (1, 2, 3):
        run.step()
        checkpoints.save(number, run.weights, run.optimizers, {"series": [number]})
    run.step()
    return checkpoints, run.values()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_two_newest_are_kept_and_a_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    _, expected = three_checkpoints(tmp_path / "c")
    assert names(tmp_path / "c/mine") == ["step-000002", "step-000003"]
    (tmp_path / "c/mine/partial").mkdir()  # left by a kill
    again, run = Checkpoints(tmp_path / "c", "mine"), Run()
    assert again.newest() == 3
    assert again.restore(3, run.weights, run.optimizers) == {"series": [3]}
    run.step()
    assert run.values() == expected


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "record.json"])
@pytest.mark.parametrize("left", [0, 1, 0.5, -1, None], ids=["empty", "one byte", "half", "all but one", "missing"])
def test_a_torn_one_is_set_aside_and_the_one_before_is_used(
    file: str, left: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected = three_checkpoints(tmp_path / "c")
    folder = tmp_path / "c/mine"
    path = folder / "step-000003" / file
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[: round(left * len(whole)) if left == 0.5 else int(left)])
    again, run = Checkpoints(tmp_path / "c", "mine"), Run()
    assert again.newest() == 2
    assert names(folder) == ["step-000002", "torn-step-000003"]
    said = capsys.readouterr().out
    aside = folder / "torn-step-000003"
    assert said.startswith(f"this cannot be read and is made again; it is kept as {aside}, ") and file in said
    assert again.restore(2, run.weights, run.optimizers) == {"series": [2]}
    run.step()
    again.save(3, run.weights, run.optimizers, {"series": [3]})
    assert again.newest() == 3
    run.step()
    assert run.values() == expected


def test_without_one_that_can_be_read_it_starts_anew(tmp_path: Path) -> None:
    checkpoints, _ = three_checkpoints(tmp_path / "c")
    for number in (2, 3):
        (tmp_path / f"c/mine/step-{number:06d}/record.json").write_text(json.dumps([1]), encoding="utf-8")
    assert checkpoints.newest() is None
    assert names(tmp_path / "c/mine") == ["torn-step-000002", "torn-step-000003"]


def test_those_of_another_run_are_not_used_and_stay(tmp_path: Path) -> None:
    checkpoints, _ = three_checkpoints(tmp_path / "c")
    other = Checkpoints(tmp_path / "c", "other")
    assert other.newest() is None
    other.finish()
    assert Checkpoints(tmp_path / "c", "mine").newest() == 3
    checkpoints.finish()
    assert Checkpoints(tmp_path / "c", "mine").newest() is None
