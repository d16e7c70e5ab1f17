"""Benchmarks: each side of a comparison does the work that it claims, and the tables report what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from swirl.bench import measure, report, rl_step
from swirl.cli.main import app
from swirl.comb.combs import pack
from swirl.core.errors import SwirlError

SIDE = {"bench": "rl-step", "model": "embedded", "kl": 0.04, "source": "2", "repeats": 2, "threads": 1}
SIDE |= {"workers": 1, "attention": "eager"}


@pytest.mark.parametrize("packed", [True, False])
def test_a_side_of_the_rl_step(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On made-up states: 4 trunks of 64 tokens, each with 16 teeth of 12 tokens that see 40 or 64 trunk tokens."""
    monkeypatch.chdir(tmp_path)
    result = rl_step.run_side({**SIDE, "name": "ours", "packed": packed, "token_budget": 8192})
    assert len(result["seconds"]) == len(result["parts"]["sample"]) == len(result["parts"]["update"]) == 2
    assert all(p + q < s for p, q, s in zip(*result["parts"].values(), result["seconds"], strict=True))
    # Equal actions are computed only once, but a random model practically never samples the same 12 tokens twice.
    assert result["tokens"] == (4 * (64 + 16 * 12) if packed else 4 * 8 * (40 + 64 + 2 * 12))
    assert result["matmul_gflops"] > 0.1


def test_every_draw_as_a_tooth_of_its_own() -> None:
    combs = [pack([5, 6, 7], [(1, [9]), (3, [8, 8])]), pack([4], [(1, [3])])]
    expanded, weight, count, firsts = rl_step._each(
        combs, torch.tensor([1.0, 3.0, -2.0]), torch.tensor([1.0, 2.0, 4.0])
    )
    assert expanded == [pack([5, 6, 7], [(1, [9]), (3, [8, 8]), (3, [8, 8])]), pack([4], [(1, [3])] * 4)]
    assert weight.tolist() == [1.0, 1.5, 1.5, -0.5, -0.5, -0.5, -0.5]
    assert count.tolist() == [1.0] * 7
    assert firsts == [[0, 1], [0]]


def test_medians_are_over_all_repeats_of_all_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = iter(
        {"seconds": s, "parts": {"update": s}, "peak_mb": m, "matmul_gflops": 10.0, "tokens": 7, "flops": 6e9}
        for s, m in [([1.0, 9.0], 5.0), ([4.0], 1.0), ([2.0, 3.0], 6.0), ([4.0], 2.0)]
    )
    monkeypatch.setattr(measure, "_run", lambda root, side: next(said))
    a, b = measure.interleave(tmp_path, [{"name": "a", "threads": 1}, {"name": "b", "threads": 2}], 2)
    assert (a["seconds"], a["fastest"], a["slowest"], a["repeats"], a["peak_mb"]) == (2.5, 1.0, 9.0, 4, 6.0)
    assert (a["update_seconds"], a["tokens"], b["seconds"], b["threads"]) == (2.5, 7, 4.0, 2)
    assert a["mfu"] == pytest.approx(6e9 / 2.5 / 10e9)


def test_ratios_of_an_rl_step() -> None:
    common = {"model": "m", "kl": 0.0}
    rows: list[dict[str, Any]] = [
        {**common, "name": "packed", "seconds": 0.5, "update_seconds": 0.2},
        {**common, "name": "packed, KL by token", "seconds": 0.48, "update_seconds": 0.19},
        {**common, "name": "plain", "seconds": 1.5, "update_seconds": 1.0},
        {**common, "name": "plain, equal once", "seconds": 1.0, "update_seconds": 0.6},
        {**common, "name": "trl", "seconds": 4.0},
    ]
    assert report.ratios({"bench": "rl-step", "rows": rows}) == [
        "m, KL 0.0: the packed step is 8.0 times as fast as TRL's and 3.0 times as fast as the plain one; "
        "the update alone 5.0 times, 3.0 times where equal actions are read once",
        "the whole gradient of KL takes +4.2% of a step",
    ]
    assert "| m | 0.000 | packed | 0.500 | 0.200 |" in report.text({"bench": "rl-step", "rows": rows})


def test_without_trl_the_rl_step_says_so_before_it_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("swirl.bench.trl.find_spec", lambda name: None)
    with pytest.raises(SwirlError, match=r"pip install -c constraints.txt -e '.\[bench\]'"):
        rl_step.rl_step(tmp_path, 1, 1, 1)


def test_a_benchmark_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["bench", "speed"])
    assert "there is no benchmark 'speed'; there are rl-step, scaling, synthesis, retrieval, overhead" in str(
        result.exception
    )
