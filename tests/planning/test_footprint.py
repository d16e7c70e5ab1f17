"""What stages hold in memory: worked out by hand, for the device of every preset, and against real processes."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.judging.reward import RewardModel
from swirl.models.shapes import shape_of
from swirl.pipeline.environment import ALLOCATOR
from swirl.planning import footprint
from swirl.planning.footprint import PROCESS, Held, Memory, lines
from swirl.planning.sizes import Size

ROOT = Path(__file__).parents[2]


def params(name: str = "mini", **changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


def held(chosen: Params, stage: str) -> Held:
    return Memory(chosen, ROOT).stages()[stage]


def test_the_constants_are_those_of_the_code() -> None:
    assert RewardModel("r", None, None, "").token_budget == footprint.JUDGED_AT_ONCE  # type: ignore[arg-type]


def test_gemma_2_27b_by_hand() -> None:
    chosen, weights, adapter = params("gemma-2-27b"), 27_226_275_840, 228_360_192
    found = held(chosen, "train@swirl")
    assert found.weights == 2 * weights  # the base below the adapter is the reference; the judge is on a server
    assert found.training == (4 + 4 + 8) * adapter  # masters, gradients, two moments
    # 46 layers of 16 heads of 128 numbers of two bytes, keys and values: 377 KB a token, of 100 development questions
    token = 46 * 16 * 128 * 2 * 2
    assert token == 376_832
    read = 16_384 * (4 * 4608 + 3 * 36_864) * 2
    assert found.flight == pytest.approx(100 * 4096 * token * 47 / 46 + read + 100 * 256_000 * 24)
    assert found.sampling == pytest.approx(16_384 * token * 47 / 46 + read + 64 * 256_000 * 24)
    # of 4,096 tokens one layer's activations, and what the others read; logits of two models; the adapter's gradients
    layer = 24 * 4608 + 12 * (32 * 128 + 16 * 128) + 2 * 4 * (32 * 128 + 16 * 128 + 36_864)
    logits = 6 * 4 * 2**25 / 2
    assert found.learning == 4096 * (layer + 46 * 2 * 4608) + logits + 2 * adapter
    assert found.device == found.weights + found.training + found.flight
    assert found.fixed == found.weights + found.training + found.learning
    assert held(chosen, "synthesize").device == 0  # a server's
    assert held(chosen, "evaluate@base").weights == 2 * weights


def test_whole_weights_and_a_judge_here() -> None:
    found, weights = held(params(), "train@swirl"), 4 * (4 * 128 * 128 + 3 * 128 * 384) + 128 * 2000
    assert found.weights == 3 * 4 * weights  # policy, reference, judge
    assert found.training == (4 + 8) * weights
    layer = 24 * 128 + 12 * (128 + 128) + 4 * 4 * (128 + 128 + 384)
    assert found.learning == 2 * (8192 * 4 * layer + 6 * 4 * 4096 * 2000 + 4 * weights)  # two workers
    assert held(params(), "train@sft").weights == 2 * 4 * weights
    assert held(params(), "train@sft").sampling == 0
    # 400 questions of five steps and 400 of ten, two trajectories each: all of them are in the last row groups
    tokens, steps = 800 * (250 + 5 * 282) + 800 * (250 + 10 * 282), 800 * 5 + 800 * 10
    assert held(params(), "synthesize").host == pytest.approx(PROCESS + tokens * 0.45 * 48 + steps * 0.45 * 400)
    # ten times as many samples: of 16,000 trajectories four row groups of 1,000
    many = held(params(synthesize={"samples": 20}), "synthesize").host
    assert many == pytest.approx(PROCESS + tokens * 0.45 * 48 * 10 / 4 + 10 * steps * 0.45 * 400)
    off = params(train={"methods": ["swirl"]})
    assert held(off, "train@sft") == Held(host=0)
    assert "evaluate@sft" not in Memory(off, ROOT).stages()


def test_a_judge_that_is_no_part_of_the_reward_is_loaded_to_grade_alone() -> None:
    rewards = [{"name": "mine:Mine", "weight": 1.0, "options": {}}]
    own, weights = params(judge={"rewards": rewards}), 4 * (4 * 128 * 128 + 3 * 128 * 384) + 128 * 2000
    assert held(own, "judge").weights == 0
    assert held(own, "train@swirl").weights == 2 * 4 * weights  # policy, reference
    assert held(own, "evaluate@base").weights == 4 * weights
    writer = {
        "source": "pretrained", "model": "google/gemma-2-2b-it", "revision": "", "trust_remote_code": False,
        "verdict": "rationale", "max_tokens": 8, "votes": 1, "temperature": 0.0,
    }  # fmt: skip
    grading = params(reward_model=writer, judge={"rewards": rewards, "outcome": "model", "grader": None})
    assert held(grading, "judge").weights == held(grading, "evaluate@base").weights - 4 * weights > 0
    assert held(grading, "train@swirl").weights == 2 * 4 * weights
    # beside another judge of steps, both are loaded
    labelling = {"evaluate": {"judge": {**writer, "model": "google/gemma-2-9b-it", "verdict": "token"}}}
    alone = held(params(**labelling), "evaluate@base")
    both = held(params(reward_model=writer, judge={"outcome": "model", "grader": None}, **labelling), "evaluate@base")
    assert both.weights - alone.weights == held(grading, "evaluate@base").weights - 4 * weights > 0
    assert both.judging == alone.judging > 0  # they read in turn


def test_a_model_that_is_dealt_out_over_eight_by_hand() -> None:
    dealt = {"processes": 8, "sharding": "full"}
    weights, adapter, embedded = 27_226_275_840, 228_360_192, 4608 * 256_000
    layers = embedded * 2 + 2 * (weights - embedded) / 46 * 2  # gathered to learn: two layers and the embeddings
    whole = held(params("gemma-2-27b", runtime=dealt, train={"lora": None}), "train@swirl")
    assert whole.weights == 2 * weights / 8  # the reference
    assert whole.training == (4 + 4 + 8) * weights / 8  # the masters are the policy
    assert whole.gathered == 2 * weights
    alone = held(params("gemma-2-27b", train={"lora": None}), "train@swirl")
    assert whole.learning == pytest.approx(alone.learning - 2 * weights + layers + 4 * weights / 46)
    assert whole.device == pytest.approx(whole.weights + whole.training + whole.gathered + whole.flight)
    assert whole.fixed == pytest.approx(whole.weights + whole.training + whole.gathered)
    some = held(params("gemma-2-27b", runtime=dealt), "train@swirl")
    assert (some.weights, some.training, some.gathered) == (2 * weights / 8, 16 * adapter / 8, 2 * weights)
    assert (some.processes, alone.gathered, alone.processes) == (1, 0, 1)
    said = lines(params("gemma-2-27b", runtime=dealt, train={"lora": None}), ROOT, 141e9)
    assert "gathered weights with flights and samples" in said[0]
    assert not [line for line in said if "train@swirl does not fit" in line]


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_state_above_the_token_budget_needs_more_than_a_stage_as_it_is_planned(sharding: str) -> None:
    dealt = params("gemma-2-27b", runtime={"processes": 8, "sharding": sharding})
    found, (tokens, more) = held(dealt, "train@swirl"), Memory(dealt, ROOT).longest()
    assert tokens > dealt.train.token_budget
    layer = 24 * 4608 + 12 * (32 * 128 + 16 * 128) + 2 * 4 * (32 * 128 + 16 * 128 + 36_864)
    assert more == pytest.approx((tokens - dealt.train.token_budget) * (layer + 46 * 2 * 4608))  # as many logits
    needed = (found.weights + found.training + found.learning + more) / footprint.SHARE
    for free, short in ((needed - 1e6, True), (needed + 1e6, False)):
        said = [line for line in lines(dealt, ROOT, free) if line.startswith("  train@swirl: a state and the actions")]
        assert bool(said) is short


def test_on_a_cpu_a_long_state_shares_the_memory_with_the_process() -> None:
    chosen = params("smollm2-135m")
    found, (tokens, more) = held(chosen, "train@swirl"), Memory(chosen, ROOT).longest()
    assert tokens == 2048 + 9 * 96  # a full context, eight drawn actions and the stored one
    needed = (found.weights + found.training + found.learning + more + found.host) / footprint.SHARE
    for free, short in ((needed - 1e6, True), (needed + 1e6, False)):
        assert any("it would take 8.1 GB" in line for line in lines(chosen, ROOT, free)) is short


def test_processes_of_a_cpu_share_its_memory() -> None:
    """Two of them hold twice as much; each looks at half of the development questions."""
    one, two = params(), params(runtime={"processes": 2, "workers": 1})
    found = held(two, "train@swirl")
    assert (found.processes, found.weights) == (2, held(one, "train@swirl").weights)
    said = lines(two, ROOT, 2 * (found.fixed + found.host) / 0.9 - 1e6)
    assert any(line.startswith("  train@swirl does not fit: ") for line in said)
    assert "each of 2 processes holds this, in one memory" in said[0]
    fits = lines(two, ROOT, 2 * (found.fixed + found.host) / 0.9 + 1e6)
    assert not [line for line in fits if line.startswith("  train@swirl does not fit: ")]


def test_what_is_not_known_is_said_to_be_so() -> None:
    nameless = {"source": "pretrained", "model": "someone/model", "revision": "", "trust_remote_code": False}
    found = held(params("qwen3-0.6b", base_model=nameless), "train@swirl")
    assert all(math.isnan(value) for value in (found.weights, found.flight, found.learning, found.device))
    unbounded = held(params("qwen3-0.6b", runtime={"context": 0}), "synthesize")
    assert math.isnan(unbounded.flight)


def test_a_device_too_small_is_said_with_what_fits() -> None:
    whole = params("gemma-2-27b", train={"lora": None})
    said = "\n".join(lines(whole, ROOT, 80e9))
    assert re.search(r"train@swirl does not fit: \d{3}\.\d GB without a conversation in flight", said)
    assert "evaluate@base: 8 conversations in flight a worker, not 256" in said
    assert lines(params(), ROOT, None)[-1].startswith("evaluate@swirl")
    assert lines(params(), ROOT, 64e9)[-1].endswith("every stage fits as it is set.")


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_preset_fits_the_device_that_its_text_promises(name: str) -> None:
    text = "".join(line for line in (ROOT / f"presets/{name}.yaml").read_text().splitlines(True) if line[0] == "#")
    promised = re.search(r"(\d+) GB", text)
    assert promised, "the text says how much memory it takes"
    chosen, free = params(name), int(promised[1]) * 1e9
    stages = Memory(chosen, ROOT).stages()
    assert not [stage for stage, one in stages.items() if math.isnan(one.device + one.host)]
    said = [line for line in lines(chosen, ROOT, free) if line.startswith("  ")]
    assert not [line for line in said if "does not fit" in line or "it would take" in line]
    smaller = {match[1] for line in said if (match := re.search(r": (\d+) conversations in flight", line))}
    assert all(f"{number} conversations in flight" in text or f" {number}," in text for number in smaller)
    if chosen.runtime.device == "cpu":
        assert all(one.device + one.host <= 0.9 * free for one in stages.values())
        assert not smaller


SIZES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "the embedded default": (
        {"runtime": {"context": 512}, "train": {"token_budget": 3600}},
        {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
         "intermediate_size": 384, "vocab_size": 2000},
    ),
    "30 million": (
        {"runtime": {"context": 512, "workers": 1}, "rollout": {"in_flight": 16},
         "train": {"token_budget": 1800, "swirl": {"states": 10}}},
        {"hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 6,
         "intermediate_size": 1536, "vocab_size": 16_384},
    ),
    "SmolLM2-135M": (
        {"runtime": {"context": 512, "workers": 1, "dtype": "bfloat16"}, "rollout": {"in_flight": 24},
         "train": {"token_budget": 1800, "lora": {"rank": 8, "alpha": 16, "targets": ["all-linear"]},
                   "swirl": {"states": 5}}},
        {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "intermediate_size": 1536, "vocab_size": 49_152},
    ),
}  # fmt: skip
"""Settings laid over mini, and the shape of the model: sizes that fit on a small machine."""


@pytest.mark.rare
@pytest.mark.parametrize("size", SIZES)
def test_a_process_holds_what_is_planned_within_30_percent(size: str) -> None:
    """Full flights and full updates, in a process of its own with the settings of a stage's; see `tests/peaks.py`."""
    changes, shape = SIZES[size]
    order = {"preset": "mini", "changes": changes, "shape": shape}
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}"
    command = [sys.executable, "-m", "tests.peaks", json.dumps(order)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    within(measured, params(**changes), shape)


def within(measured: dict[str, float], chosen: Params, config: dict[str, int]) -> None:
    """Compare measured bytes with those planned: of rolling out, and of training without a judge and without a look."""
    shape = shape_of({**config, "tie_word_embeddings": True})
    assert shape
    stages = Memory(chosen, ROOT, Size(shape.parameters, shape)).stages()
    assert measured["imported"] < PROCESS
    rolled, trained = stages["synthesize"], stages["train@swirl"]
    assert measured["rolled"] == pytest.approx(rolled.device + PROCESS, rel=0.3)
    updated = trained.weights - rolled.weights + trained.training + max(trained.sampling, trained.learning)
    assert measured["updated"] == pytest.approx(updated + PROCESS, rel=0.3)
