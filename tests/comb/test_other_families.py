"""Families whose attention or output the plan does not reach are refused; those that it reaches are read right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from swirl.comb.combs import pack
from swirl.comb.logprobs import check_packing
from swirl.comb.slots import Slots
from swirl.core.errors import ModelError

SHAPE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
PER_LAYER = {"head_dim": 8, "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}
SHARED = {"num_kv_shared_layers": 2, "laurel_rank": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
COMB = pack(list(range(3, 18)), [(5, [7, 8, 9]), (15, [9, 8, 7])])


def made(family: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**SHAPE, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    return model


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("nemotron", "let 0 of its 4 layers take over .*, 0 times in all; .* so use another model"),
        ("diffllama", "let 4 of its 4 layers take over their attention, 8 times in all"),
        ("modernbert-decoder", r"between its layers and its output layer \(lm_head.dense.weight\), which our reading"),
    ],
)
def test_a_family_that_the_plan_does_not_reach_is_refused_wherever_it_is_read(family: str, said: str) -> None:
    model = made(family)
    slots = Slots(model, 30)
    with pytest.raises(ModelError, match=said):
        slots.read([(slots.open(), [5, 6, 7])])
    with pytest.raises(ModelError):
        check_packing(model, COMB)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("afmoe", {**EXPERTS, "head_dim": 8}),  # it views what attention gives
        ("gemma4_text", {**PER_LAYER, "global_head_dim": 16}),  # a width that follows from the depth: no miniature
        ("gemma3n_text", {**PER_LAYER, **SHARED}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_family_that_it_reaches_is_read_as_the_model_reads(family: str, options: dict[str, Any]) -> None:
    model = made(family, **options)
    ids = [5, 40, 7, 33, 9, 12, 60, 3]
    with torch.no_grad():
        own = torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0], -1)
    slots = Slots(model, 30)
    one, other = slots.open(), slots.open()
    first = slots.read([(one, ids[:4]), (other, ids[2:5])])
    second = slots.read([(one, ids[4:])])
    for logits, place in ((first[0], 3), (second[0], 7)):
        torch.testing.assert_close(torch.log_softmax(logits, -1), own[place], rtol=0, atol=1e-4)
    check_packing(model, COMB)
