"""Benchmarks: each side of a comparison does the work that it claims, and the tables report what was measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

from swirl.bench import measure, report, rl_step, slow_tools, states, synthesis
from swirl.cli.main import app
from swirl.comb.combs import pack
from swirl.config import presets
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load, save
from swirl.core.types import SubTrajectory
from swirl.models.chat import Chat
from swirl.models.loading import save as save_model
from swirl.pretraining.architectures import random_qwen3
from swirl.rl.objective import Pulls
from swirl.rollout.engine import Calls, Policy
from tests import tiny

ROOT = Path(__file__).parents[2]

SIDE = {"bench": "rl-step", "model": "embedded", "kl": 0.04, "source": "2", "repeats": 2, "threads": 1}
SIDE |= {"workers": 1, "attention": "eager", "dtype": "float32", "length": 12, "warmup": 2}


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_side_of_slow_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool of 20 ms: 32 conversations of 3 to 5 calls each wait for 127 calls, and do not wait for them in vain."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slow_tools, "_LONGEST", 4)
    side = {"bench": "slow-tools", "name": "2", "model": "embedded", "threads": 1, "tool_seconds": 0.02}
    result = slow_tools.run_side({**side, "calls": 2, "passes": None})
    (waiting,), (together,), calls = result["parts"]["waiting"], result["seconds"], sum(3 + n % 3 for n in range(32))
    assert (calls, result["trajectories"]) == (127, 32)
    assert 127 < result["action_tokens"] <= 127 * 4
    assert min(waiting, together) > calls / 2 * 0.02
    assert result["parts"]["decoding"][0] > 0
    assert result["tool_passes"] >= 1


@pytest.mark.rare
def test_decoding_and_waiting_overlap() -> None:
    """32 conversations, a tool of half a second, passes of 10 ms and more: at most 1.3 times the slower of the two."""
    model = random_qwen3(states._Vocabulary(512), 16, 1, 2, 16, context=2048, attention="eager", seed=0).eval()
    model.base_model.register_forward_hook(lambda *_: time.sleep(0.01))
    policy = Policy("paced", model, cast("Chat", slow_tools.MadeUpChat(512)), 2048)
    decoding, made = slow_tools._rolled(policy, 0.0, Calls(4, 1))
    together, _ = slow_tools._rolled(policy, 0.5, Calls(4, 20))
    waiting = slow_tools._waited([len(trajectory.steps) for trajectory in made], 4, 0.5)
    assert together <= 1.3 * max(decoding, waiting)
    assert decoding < waiting


def test_slow_tools_refuses_trajectories_that_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slow_tools, "_LONGEST", 2)
    rolled, answers = slow_tools._rolled, []

    def other(policy: Any, seconds: float, calls: Any) -> Any:
        took, made = rolled(policy, 0.0, calls)
        answers.append(seconds)
        return took, made[::-1] if seconds else made

    monkeypatch.setattr(slow_tools, "_rolled", other)
    side = {"bench": "slow-tools", "name": "2", "model": "embedded", "threads": 1, "tool_seconds": 0.5}
    with pytest.raises(SwirlError, match="a tool of 0.5 s gives other trajectories than one"):
        slow_tools.run_side({**side, "calls": 2, "passes": 8})
    assert answers == [0.0, 0.0, 0.5]


def test_the_ratio_of_slow_tools_is_to_the_slower_of_the_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = iter(
        {
            "seconds": [t],
            "parts": {"decoding": [d], "waiting": [w]},
            "peak_mb": 1.0,
            "matmul_gflops": 1.0,
            "tool_passes": 7,
        }
        for t, d, w in [(6.0, 2.0, 4.0), (5.0, 4.0, 2.0), (4.0, 4.0, 2.0)]
    )
    monkeypatch.setattr(measure, "run", lambda root, side: next(said))
    result = slow_tools.slow_tools(tmp_path, 1)
    assert [row["ratio"] for row in result["rows"]] == [1.5, 1.25, 1.0]
    assert result["ratio"] == 1.25
    assert [row["calls_in_flight"] for row in result["rows"]] == [4, 4, 16]
    assert "16 calls at a time, results read after 7 passes: 1.00 times what the slower of" in report.text(result)


def test_every_draw_as_a_tooth_of_its_own() -> None:
    combs = [pack([5, 6, 7], [(1, [9]), (3, [8, 8])]), pack([4], [(1, [3])])]
    drawn = Pulls(torch.tensor([1.0, 3.0, -2.0]), torch.tensor([1.0, 2.0, 4.0]), torch.zeros(3))
    expanded, (weight, draws, stored), firsts = rl_step._each(combs, drawn)
    assert expanded == [pack([5, 6, 7], [(1, [9]), (3, [8, 8]), (3, [8, 8])]), pack([4], [(1, [3])] * 4)]
    assert weight.tolist() == [1.0, 1.5, 1.5, -0.5, -0.5, -0.5, -0.5]
    assert (draws.tolist(), stored.tolist()) == ([1.0] * 7, [0.0] * 7)
    assert firsts == [[0, 1], [0]]


def test_medians_are_over_all_repeats_of_all_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter(
        {"seconds": s, "parts": {"update": s}, "peak_mb": m, "matmul_gflops": 10.0, "tokens": 7, "flops": 6e9}
        for s, m in [([1.0, 9.0], 5.0), ([4.0], 1.0), ([2.0, 3.0], 6.0), ([4.0], 2.0)]
    )
    monkeypatch.setattr(measure, "run", lambda root, side: next(said))
    sides = [{"name": "a", "threads": 1}, {"name": "b", "threads": 2, "rows": 8, "attention": "eager"}]
    a, b = measure.interleave(tmp_path, sides, 2)
    assert (a["seconds"], a["fastest"], a["slowest"], a["repeats"], a["peak_mb"]) == (2.5, 1.0, 9.0, 4, 6.0)
    assert (a["update_seconds"], a["tokens"], b["seconds"], b["threads"]) == (2.5, 7, 4.0, 2)
    assert a["mfu"] == pytest.approx(6e9 / 2.5 / 10e9)
    assert capsys.readouterr().err.splitlines()[:4] == [
        "round 1/2: a", "  5 s", "round 1/2: b, rows 8, attention eager", "  4 s",
    ]  # fmt: skip


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
        "m, KL 0.0: the packed step is 8.0 times as fast as TRL's, 3.0 times as fast as the plain one (the update "
        "alone 5.0 times), 2.0 times as fast as plain where equal actions are read once (the update alone 3.0 times)",
        "the whole gradient of KL takes +4.2% of a step",
    ]
    assert "| m | 0.000 | packed | 0.500 | 0.200 |" in report.text({"bench": "rl-step", "rows": rows})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A run of a tiny model in bfloat16 with an adapter: 25 steps of actions of 3 tokens on 10 trajectories."""
    monkeypatch.chdir(tmp_path)
    changes = {"runtime": {"dtype": "bfloat16"}, "train": {"lora": {"rank": 2, "alpha": 4, "targets": ["q_proj"]}}}
    presets.write(tmp_path, laid_over(presets.tree(ROOT, "mini"), changes), "test")
    layout, chat = Layout(tmp_path), tiny.chat()
    save_model(tiny.qwen3(len(chat.tokenizer)).float(), chat.tokenizer, tmp_path / "models/base")
    trunk = chat.prompt("what is born")
    steps = [
        SubTrajectory(str(name), "q", "b", k, (*trunk, *range(5, 5 + 2 * k)), (6, 7, 8), 0.5)
        for name in range(10)
        for k in range(3 if name % 2 else 2)
    ]
    save(steps, SubTrajectory, layout.steps)
    return layout


@pytest.mark.slow
def test_the_sides_of_a_run_do_a_step_of_its_own(run: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its first 24 states, in its number format, with its adapter; TRL's side is another program's."""
    done: list[dict[str, Any]] = []

    def here(root: Path, sides: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
        for side in sides[:3]:
            done.append({**side, **rl_step.run_side(side)})
        rest = [{**side, "seconds": 9.0} for side in sides[3:]]
        return [{**row, "seconds": row["seconds"][0]} for row in done] + rest

    monkeypatch.setattr(rl_step, "interleave", here)
    monkeypatch.setattr(rl_step.trl, "check_installed", lambda: None)
    result = rl_step.rl_step(run.root, 2, 1, 1, "models/base")
    assert [row["name"] for row in result["rows"]] == ["as configured", "packed", "plain, equal once", "trl"]
    natural, packed, plain = done
    assert {(row["dtype"], row["lora"]["rank"], row["length"]) for row in done} == {("bfloat16", 2, 3)}
    groups = states.groups_of(run.root, "first")
    assert [len(group) for group in groups] == [2, 3] * 4 + [2, 2]
    trunks = sum(len(group[-1].state_ids) for group in groups)
    assert trunks < packed["tokens"] <= trunks + 24 * 8 * 3 < plain["tokens"]
    assert natural["longest"] == 32 and natural["tokens"] > packed["tokens"]
    assert all(row["process_mb"] > row["peak_mb"] >= 0 and row["flops"] > 0 for row in done)


def test_the_sides_of_a_run_are_on_its_device(run: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL counts by the faster attention on a CPU, and on a GPU by the fastest of three sizes of forward pass."""
    asked: list[tuple[str, str, int, str]] = []

    def nowhere(root: Path, sides: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
        asked.extend((side["name"], side["device"], side.get("rows", 0), side["attention"]) for side in sides)
        return [{"name": side["name"], "seconds": 1.0 + (side.get("rows") != 64)} for side in sides]

    monkeypatch.setattr(rl_step, "interleave", nowhere)
    monkeypatch.setattr(rl_step.trl, "check_installed", lambda: None)
    rl_step.rl_step(run.root, 2, 1, 1, "models/base")
    assert asked[-2:] == [("trl", "cpu", 8, "sdpa"), ("trl", "cpu", 8, "eager")]
    assert {device for _, device, *_ in asked} == {"cpu"}
    asked.clear()
    presets.write(run.root, laid_over(presets.tree(ROOT, "mini"), {"runtime": {"device": "cuda"}}), "test")
    rows = rl_step.rl_step(run.root, 2, 1, 1, "models/base")["rows"]
    assert {device for _, device, *_ in asked} == {"cuda"}
    assert [rows for name, _, rows, _ in asked if name == "trl"] == [8, 64, 192]
    assert [row["rows"] for row in rows if row["name"] == "trl"] == [64]


def test_transformers_ways_of_synthesis_count_by_the_faster_attention(
    run: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours has as many workers as there are cores; each other side runs with both kinds of attention."""
    asked: list[tuple[str, str, int]] = []

    def nowhere(root: Path, sides: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
        asked.extend((side["name"], side.get("attention", ""), side.get("workers", 0)) for side in sides)
        made = {"trajectories": 10, "action_tokens": 100, "read_tokens": 600, "read_rate": 300.0, "action_rate": 50.0}
        return [{"name": s["name"], "seconds": 2.0 if s.get("attention") == "sdpa" else 5.0, **made} for s in sides]

    monkeypatch.setattr(synthesis, "interleave", nowhere)
    rows = synthesis.synthesis(run.root, 3, 1, 1, "models/base", 64)["rows"]
    tried = [(name, how, 0) for name in ("batched", "floor") for how in ("sdpa", "eager")]
    assert asked == [("ours", "", 3), *tried]
    assert [(row["name"], row.get("attention"), row["seconds"]) for row in rows] == [
        ("ours", None, 5.0),
        ("batched", "sdpa", 2.0),
        ("floor", "sdpa", 600 / 300 + 100 / 50),
    ]
    asked.clear()
    synthesis.synthesis(run.root, 2, 1, 1)
    names = [name for name, *_ in asked]
    assert names == ["ours", *(name for name in ("batched", "generate_batch", "one at a time") for _ in "ab")]


def test_a_model_that_is_not_there_is_no_benchmark_s(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no model 'models/other' to measure: it is a model's folder"):
        rl_step.rl_step(tmp_path, 1, 1, 1, "models/other")
    with pytest.raises(DataError, match="there is no model 'models/other' to measure: it is a model's folder"):
        synthesis.synthesis(tmp_path, 1, 1, 1, "models/other")


def test_too_few_states_for_a_step_are_said(run: Layout) -> None:
    save(load(SubTrajectory, run.steps)[:23], SubTrajectory, run.steps)
    with pytest.raises(DataError, match="has only 23 steps; the benchmark needs 24"):
        states.groups_of(run.root, "first")


def test_the_floor_of_synthesis_reads_each_token_once(run: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 tokens of prompts and results at 500 a second, 300 of actions at 100 a second: 5 s."""
    common = {"peak_mb": 1.0, "trajectories": 10}
    ours = {**common, "name": "ours", "seconds": 6.0, "action_tokens": 300.0, "read_tokens": 1000.0}
    batched = {**common, "name": "batched", "seconds": 12.0, "action_tokens": 310.0}
    rates = {**common, "name": "floor", "seconds": 0.002, "read_rate": 500.0, "action_rate": 100.0}
    slower = {**rates, "seconds": 0.004, "read_rate": 250.0}
    rows = [ours, {**batched, "seconds": 13.0}, batched, rates, slower]
    monkeypatch.setattr(synthesis, "interleave", lambda *_: rows)
    result = synthesis.synthesis(run.root, 2, 1, 1, "models/base")
    assert result["rows"][2]["seconds"] == 5.0
    assert report.ratios(result) == [
        "ours makes 2.00 times the trajectories of: batched",
        "ours makes 0.83 times the trajectories of: floor",
    ]
    side = {"bench": "synthesis", "name": "floor", "model": "models/base", "threads": 1, "questions": 4, "repeats": 1}
    measured = synthesis.run_side(side)
    assert measured["read_rate"] > 0 and measured["action_rate"] > 0


def test_without_trl_the_rl_step_says_so_before_it_measures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("swirl.bench.trl.find_spec", lambda name: None)
    with pytest.raises(SwirlError, match=r"pip install -c constraints.txt -e '.\[bench\]'"):
        rl_step.rl_step(tmp_path, 1, 1, 1)


def test_a_benchmark_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["bench", "speed"])
    known = "rl-step, scaling, synthesis, slow-tools, retrieval, overhead, paper-scale"
    assert str(result.exception).startswith(f"there is no benchmark 'speed'; there are {known}")
