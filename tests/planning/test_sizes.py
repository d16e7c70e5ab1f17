"""Sizes of models and adapters, from published shapes, a folder's configuration or a number in a name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.base_model import Pretrained
from swirl.config.params import validate
from swirl.core.errors import ModelError
from swirl.planning.sizes import PUBLISHED, Size, size_of

ROOT = Path(__file__).parents[2]
PARAMS = validate(presets.tree(ROOT, "qwen3-0.6b"), "qwen3-0.6b")
ALL = ["all-linear"]


def size(model: str, root: Path = ROOT) -> Size:
    return size_of(Pretrained(source="pretrained", model=model, revision="", trust_remote_code=False), PARAMS, root)


def test_published_shapes_have_the_published_sizes() -> None:
    # the numbers on the hub; the estimates leave out norms
    for name, parameters in (
        ("google/gemma-2-2b-it", 2_614_341_888),
        ("google/gemma-2-9b-it", 9_241_705_984),
        ("google/gemma-2-27b-it", 27_227_128_320),
        ("Qwen/Qwen3-0.6B", 596_049_920),
    ):
        assert size(name).parameters == pytest.approx(parameters, rel=0.001)
    assert size("Qwen/Qwen3-0.6B").adapter(32, ALL) == 28 * 32 * (2 * 3072 + 2 * 2048 + 3 * 4096) == 20_185_088
    assert size("google/gemma-2-27b-it").adapter(64, ALL) == 456_720_384


def test_an_adapter_is_on_the_layers_that_are_named() -> None:
    whole = size("Qwen/Qwen3-0.6B")
    assert whole.adapter(8, ["q_proj", "v_proj"]) == 28 * 8 * ((1024 + 2048) + (1024 + 1024))
    assert whole.adapter(16, ["q_proj"]) == 2 * whole.adapter(8, ["q_proj"])
    assert whole.adapter(8, ["qkv_proj"]) == whole.adapter(8, ALL)  # unknown, so taken for all


def test_a_guessed_adapter_is_no_smaller_than_those_of_known_shapes() -> None:
    assert size("someone/model-7B-instruct").parameters == 7e9
    assert size("someone/model-135M").parameters == 135e6
    for shape in PUBLISHED.values():
        known, guessed = shape.adapter(16, ALL), Size(shape.parameters).adapter(16, ALL)
        assert known <= guessed <= 1.4 * known
    unknown = size("someone/model")
    assert math.isnan(unknown.parameters)
    assert math.isnan(unknown.adapter(16, ALL))


@pytest.mark.parametrize(
    "name",
    [
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "allenai/OLMoE-1B-7B-0924-Instruct",
        "Qwen/Qwen1.5-MoE-A2.7B-Chat",
        "google/gemma-3n-E4B-it",
    ],
)
def test_the_size_of_a_part_of_a_model_is_not_taken_for_the_models(name: str) -> None:
    assert math.isnan(size(name).parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("ibm-granite/granite-3.1-1b-a400m-instruct", 1e9),
        ("openai/gpt-oss-120b", 120e9),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.5e9),
    ],
)
def test_a_name_tells_the_size_of_all(name: str, parameters: float) -> None:
    assert size(name).parameters == parameters


def test_a_folder_says_what_it_holds(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16, "num_attention_heads": 2}
    config = {"model_type": "llama", **sizes, "num_key_value_heads": 1, "vocab_size": 100}
    path = tmp_path / "mine-7b/config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(config))
    assert size("mine-7b", tmp_path).parameters == 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16) + 2 * 8 * 100
    path.write_text(json.dumps({**config, "model_type": "gemma2", "head_dim": 16}))
    assert size("mine-7b", tmp_path).parameters == 2 * (2 * 8 * 32 + 2 * 8 * 16 + 3 * 8 * 16) + 8 * 100
    path.write_text(json.dumps({**config, "num_local_experts": 8}))
    assert size("mine-7b", tmp_path) == Size(7e9)
    path.write_text("[]")
    with pytest.raises(ModelError, match=r"mine-7b/config.json is no model's configuration"):
        size("mine-7b", tmp_path)


def test_a_made_model_is_as_large_as_planned() -> None:
    from swirl.pretraining.architectures import random_qwen3

    mini = validate(presets.tree(ROOT, "mini"), "mini")
    model = random_qwen3(_Words(), 128, 4, 4, 384, 512, "eager", 0)
    made = sum(parameter.numel() for parameter in model.parameters())
    assert size_of(mini.base_model, mini, ROOT).parameters == pytest.approx(made, rel=0.002)
    assert size_of(mini.reward_model, mini, ROOT) == size_of(mini.base_model, mini, ROOT)


class _Words:
    """The parts of a tokenizer that `fresh` uses."""

    pad_token_id = eos_token_id = 0

    def __len__(self) -> int:
        return 2000
