"""A model tuned on logs in its own tool format, exported: plain transformers and peft see what our training saw."""

from __future__ import annotations

import copy
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, Qwen3Config

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Trajectory
from swirl.models.loading import load_model, save
from swirl.serving.standalone import export_adapter
from swirl.serving.whole import export_merged
from tests.families import SMOLLM2
from tests.stages.conftest import run_stages
from tests.stages.test_logs import REWARD, ROOT, TOOLS, line, write
from tests.stages.test_native_logs import STAGES, params
from tests.tool_templates import HERMES, needs_trl, real, tokenizer

ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens that are added and not special, as Qwen3 has them."""
NATIVE = "src/swirl/prompts/native"
UNUSED = 13
"""Rows of the embedding that no token has."""
CHATML = '<|im_start|>assistant\n<tool_call>\n{"name": "answer", "arguments": {"n": 7}}\n</tool_call><|im_end|>\n'
CALLS = {
    "qwen3": CHATML,
    "llama3_1": (
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "answer", "parameters": {"n": 7}}<|eot_id|>'
    ),
    "hermes": CHATML,
}
"""By family: how its chat template writes the call in `line(7)`."""


def words_of(family: str) -> Any:
    """A tokenizer with a family's own template; that of Hermes is one of two by name, of which tools choose theirs."""
    if family == "hermes":
        words = copy.deepcopy(tokenizer(HERMES))
        words.chat_template = {"default": SMOLLM2, "tool_use": HERMES}
    else:
        words = copy.deepcopy(tokenizer(real(family)))
    words.add_tokens([AddedToken(word, special=False, normalized=False) for word in ADDED])
    return words


def weights(folder: Path, family: str) -> None:
    """A random model: Qwen3 with tied embeddings, or Llama with untied ones."""
    words, tied = words_of(family), family == "qwen3"
    shape: dict[str, Any] = {
        "vocab_size": len(words) + UNUSED, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
        "initializer_range": 0.1, "bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": None,
    }  # fmt: skip
    config = Qwen3Config(**shape, tie_word_embeddings=True) if tied else LlamaConfig(**shape, tie_word_embeddings=False)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    ends = [words.eos_token_id, words.convert_tokens_to_ids(ADDED[2])]
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, eos_token_id=ends)
    save(model, words, folder)


def tuned(root: Path, family: str, own: Params) -> Layout:
    """A project after two updates on logged actions, in which `models/sft` is an adapter that they moved far."""
    layout = Layout(root)
    weights(root / "tiny", family)
    shutil.copytree(ROOT / "src/swirl/prompts", root / "src/swirl/prompts")
    (root / "data/tools").mkdir(parents=True)
    (root / "data/tools/rewards_of_logs.py").write_text(REWARD)
    write(layout, *(line(number) for number in range(10)))
    run_stages(own, layout, *STAGES, "judge", "filter", "check_steps")
    import_module("swirl.stages.train").run(own, layout, "sft")
    tensors = load_file(layout.model("sft") / "adapter_model.safetensors")
    assert min(value.abs().max() for name, value in tensors.items() if ".lora_B." in name) > 0.01
    return layout


def settings() -> Params:
    tree = params(runtime={"dtype": "float32"}, actions={"format": "native"}, prompts={"policy": NATIVE}).model_dump()
    lora = {"rank": 3, "alpha": 6, "targets": ["all-linear"]}
    return validate(laid_over(tree, {"train": {"lora": lora, "sft": {"lr": 0.02}}}), "tests")


def spoken(number: int) -> list[dict[str, Any]]:
    """`line(number)` as templates want it: arguments as an object, content as a text."""
    question, call, result, answer = line(number)["messages"]
    function = {"name": "answer", "arguments": {"n": number}}
    return [
        question,
        {**call, "content": "", "tool_calls": [{"type": "function", "function": function}]},
        result,
        answer,
    ]


def rendered(words: Any, messages: list[dict[str, Any]], **options: Any) -> Any:
    """What a server makes of a request: a text, or token ids with `tokenize=True`."""
    options = {"tokenize": False, "enable_thinking": False, "return_dict": False} | options
    return words.apply_chat_template(messages, tools=TOOLS, **options)


def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """Of each token but the first, given those before it."""
    with torch.no_grad():
        found = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1], -1)
    return found.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


@needs_trl
@pytest.mark.slow
@pytest.mark.parametrize("family", list(CALLS))
def test_a_model_tuned_on_native_logs_is_the_same_outside(family: str, tmp_path: Path) -> None:
    """Its template, tokens, way of drawing and log-probabilities of a conversation with a call and its result."""
    own, out = settings(), tmp_path / "out"
    layout = tuned(tmp_path / "project", family, own)
    source: Any = AutoTokenizer.from_pretrained(layout.root / "tiny")
    messages = spoken(7)
    text, ids = rendered(source, messages), rendered(source, messages, tokenize=True)
    assert CALLS[family] in text and "looks up" in text and "it is 49" in text
    if family != "llama3_1":
        assert {*source.convert_tokens_to_ids(ADDED)} <= {*ids}
    one = load(Trajectory, layout.trajectories)[0]
    number = json.loads(one.steps[0].action.payload)["n"]
    wanted = logprobs(load_model(layout.model("sft"), "cpu", "eager"), ids)
    export_merged(layout.model("sft"), out / "merged", own, layout)
    export_adapter(layout.model("sft"), out / "adapter", own, layout)
    shutil.rmtree(layout.root)

    for folder in (out / "merged", out / "adapter", out / "adapter/base"):
        words: Any = AutoTokenizer.from_pretrained(folder)
        assert rendered(words, messages) == text and rendered(words, messages, tokenize=True) == ids
        asked = rendered(words, spoken(number)[:1], tokenize=True, add_generation_prompt=True)
        assert asked == list(one.prompt_ids)
        assert words.chat_template == source.chat_template
        assert repr(words.added_tokens_decoder) == repr(source.added_tokens_decoder)
    for model in (
        AutoModelForCausalLM.from_pretrained(out / "merged", attn_implementation="eager"),
        AutoPeftModelForCausalLM.from_pretrained(out / "adapter", attn_implementation="eager"),
    ):
        assert model.dtype == torch.float32
        torch.testing.assert_close(logprobs(model, ids), wanted, rtol=0, atol=1e-5)
        assert model.get_input_embeddings().weight.shape[0] == len(source) + UNUSED
        drawn = model.generation_config
        assert (drawn.temperature, drawn.top_k, drawn.eos_token_id[0]) == (0.6, 20, source.eos_token_id)
        assert len(drawn.eos_token_id) == 2
    for folder in (out / "merged", out / "adapter"):
        card = (folder / "README.md").read_text()
        assert "made and measured in logged conversations, and expects their system turns and tools; it never" in card
        assert "It calls tools as its chat template does" in card
    for folder in (out / "merged", out / "adapter/base"):
        with safe_open(folder / "model.safetensors", "pt") as file:
            assert ("lm_head.weight" in file.keys()) == (family != "qwen3")  # noqa: SIM118
