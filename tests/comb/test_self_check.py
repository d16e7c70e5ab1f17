"""The check before training: in every dtype, a packed forward that is wrong is stopped and rounding is not."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2ForCausalLM, LlamaForCausalLM

from swirl.comb.attention import Scoring, head
from swirl.comb.combs import Comb, CombPlan, Reading, collate_packed, collate_plain, pack
from swirl.comb.logprobs import check_packing
from swirl.comb.miniature import in_miniature
from swirl.comb.trunks import Trunks
from swirl.core.errors import ModelError
from swirl.models import adapters
from tests import tiny


def comb_of(trunk: int, states: int = 4) -> Comb:
    """A comb of random tokens: one tooth of 12 tokens after each of `states` prefixes of the trunk."""
    rng = random.Random(trunk)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(2, tiny.VOCABULARY) for _ in range(count)]

    return pack(tokens(trunk), [(trunk * (k + 1) // states, tokens(12)) for k in range(states)])


COMBS = {"short": comb_of(20), "long": comb_of(400), "one state": comb_of(60, states=1)}


class Sees:
    """A plan that says of every pair of tokens whether one sees the other: slow, plain, and wrong on demand."""

    def __init__(self, combs: Sequence[Comb], siblings: bool = False, trunk: int = 0, window: int = 0) -> None:
        """`siblings`: a tooth sees the one before it; `trunk`, `window`: so many tokens too many are seen."""
        (comb,), self.window = combs, window
        self.trunks = Trunks([comb.trunk])
        size, lengths = len(comb.trunk), [len(tooth.ids) for tooth in comb.teeth]
        owner = torch.tensor([-1] * size + [k for k, length in enumerate(lengths) for _ in range(length)])
        sees = torch.tensor([0] * size + [tooth.sees + trunk for tooth in comb.teeth for _ in tooth.ids])
        place = torch.arange(len(owner))
        on_trunk, itself = place < sees[:, None].clamp(max=size), owner[:, None] == owner
        self.allowed = on_trunk | itself & (place <= place[:, None])
        if siblings:
            self.allowed |= (owner[:, None] == owner + 1) & (owner >= 0)
        self.position = torch.tensor([*range(size), *(t.sees + i for t in comb.teeth for i in range(len(t.ids)))])

    def attend(self, layer: int, query: Any, key: Any, value: Any, scoring: Scoring) -> Any:
        allowed = self.allowed
        if scoring.window is not None:
            allowed = allowed & (self.position[:, None] - self.position < scoring.window + self.window)
        scores = scoring.scores(query, key[:, None]).masked_fill(~allowed, torch.finfo(query.dtype).min)
        return torch.softmax(scores, -1) @ value[:, None]


def planted(name: str, patch: pytest.MonkeyPatch) -> None:
    """Plant a fault: in what sees what, or, where a comb is collated, in positions or places of reading."""
    if name in PLANS:
        patch.setattr("swirl.comb.combs.CombPlan", lambda combs: Sees(combs, **PLANS[name]))
        return
    way = collate_plain if name.startswith("plain") else collate_packed

    def collate(combs: Sequence[Comb]) -> Reading:
        reading, trunk = way(combs), len(combs[0].trunk)
        if name == "positions":
            shifted = torch.cat([reading.position_ids[:trunk], reading.position_ids[trunk:] + 1])
            return dataclasses.replace(reading, position_ids=shifted)
        return dataclasses.replace(reading, read=reading.read + 1)

    patch.setattr(f"swirl.comb.logprobs.{way.__name__}", collate)


PLANS: dict[str, dict[str, Any]] = {
    "none": {},
    "siblings": {"siblings": True},
    "trunk + 1": {"trunk": 1},
    "trunk - 1": {"trunk": -1},
    "window + 1": {"window": 1},
    "window - 1": {"window": -1},
}
WINDOWED = {"gemma2", "mistral"}
FAULTS = [*PLANS, "positions", "read", "plain read"][1:]
PLANTED = [(family, name) for family in tiny.FAMILIES for name in FAULTS if "window" not in name or family in WINDOWED]
TRIED = [*((torch.bfloat16, comb) for comb in COMBS), (torch.float16, "short"), (torch.float32, "one state")]


@pytest.mark.parametrize(("dtype", "comb"), TRIED, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rounding_passes(family: str, dtype: Any, comb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.FAMILIES[family]().to(dtype)
    check_packing(model, COMBS[comb])
    planted("none", monkeypatch)
    check_packing(model, COMBS[comb])


@pytest.mark.parametrize(("dtype", "comb"), TRIED, ids=str)
@pytest.mark.parametrize(("family", "name"), PLANTED)
def test_a_fault_is_stopped(family: str, name: str, dtype: Any, comb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.FAMILIES[family]().to(dtype)
    planted(name, monkeypatch)
    with pytest.raises(ModelError, match="in float32, which is more than rounding"):
        check_packing(model, COMBS[comb])


def test_a_window_too_wide_to_bind_in_the_comb_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.mistral(window=4096).bfloat16()
    planted("window + 1", monkeypatch)
    with pytest.raises(ModelError, match="in float32, which is more than rounding"):
        check_packing(model, COMBS["long"])


def test_a_fault_of_one_kind_of_layer_alone_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Gemma-2 of six layers, of which the fourth alone has no window, that one gets a window."""
    config, right = copy.deepcopy(tiny.gemma2().config), CombPlan.attend
    config.layer_types = [*["sliding_attention"] * 3, "full_attention", *["sliding_attention"] * 2]
    config.num_hidden_layers = 6
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(config).bfloat16().eval()
    small, _ = in_miniature(model, COMBS["long"])
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 3]
    assert small.config.layer_types == ["sliding_attention", "full_attention"]
    check_packing(model, COMBS["long"])

    def attend(plan: Any, layer: int, query: Any, key: Any, value: Any, scoring: Scoring) -> Any:
        return right(plan, layer, query, key, value, dataclasses.replace(scoring, window=scoring.window or 100))

    monkeypatch.setattr(CombPlan, "attend", attend)
    with pytest.raises(ModelError, match="in float32, which is more than rounding"):
        check_packing(model, COMBS["long"])


def test_layers_that_the_miniature_leaves_out_are_compared_in_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    config, right = copy.deepcopy(tiny.llama().config), CombPlan.attend
    config.num_hidden_layers = 4
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).bfloat16().eval()
    check_packing(model, COMBS["short"])

    def attend(plan: Any, layer: int, query: Any, key: Any, value: Any, scoring: Scoring) -> Any:
        return query if layer == 2 else right(plan, layer, query, key, value, scoring)

    monkeypatch.setattr(CombPlan, "attend", attend)
    with pytest.raises(ModelError, match="in bfloat16, which is more than rounding"):
        check_packing(model, COMBS["short"])


def test_a_projection_that_is_a_little_off_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundredths off: the whole model in half precision does not tell that from rounding."""
    model = tiny.llama().bfloat16()
    monkeypatch.setattr("swirl.comb.logprobs.head", lambda model, hidden: head(model, hidden) * 1.02)
    with pytest.raises(ModelError, match="our log-probabilities of .* in float32"):
        check_packing(model, COMBS["short"])


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_adapters_are_checked_with_their_base(family: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.FAMILIES[family]().bfloat16()
    if wrapped:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]))
    else:
        adapters.add(model, 2, 4, ["all-linear"], seed=1)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    check_packing(model, COMBS["short"])
    small, _ = in_miniature(model, COMBS["short"])
    assert sum(".lora_A" in name for name, _ in small.named_parameters()) == 2 * (1 if wrapped else 7)
    planted("siblings", monkeypatch)
    with pytest.raises(ModelError, match="in float32, which is more than rounding"):
        check_packing(model, COMBS["short"])


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_of_a_model_of_two_layers_the_miniature_is_the_model(family: str) -> None:
    """Qwen3's embeddings are tied, and the token that pads is none of the comb's."""
    model = tiny.FAMILIES[family](vocabulary=60).float()
    model.get_input_embeddings().padding_idx = 59
    adapters.add(model, 2, 4, ["all-linear"], seed=1)
    model.model.layers[1].mlp.up_proj.lora_B["default"].weight.data.normal_()
    small, comb = in_miniature(model, COMBS["long"])
    tokens = sorted({*COMBS["long"].trunk, *(token for tooth in COMBS["long"].teeth for token in tooth.ids)})
    ids = torch.tensor([comb.trunk])
    expected = model(input_ids=torch.tensor(tokens)[ids]).logits[..., tokens]
    torch.testing.assert_close(small(input_ids=ids).logits, expected, rtol=1e-6, atol=1e-5)


def test_the_comb_of_a_miniature_is_exactly_this() -> None:
    """Tokens are numbered by size; each end of the comb hangs where it was, there in reverse, and half as far along."""
    comb = pack([7, 5, 9, 30], [(2, [20, 9]), (3, [8]), (4, [6, 5])])
    _, short = in_miniature(tiny.llama(), comb)  # 5 6 7 9 20 30 are 0 1 2 3 4 5
    assert short == pack([2, 0, 3, 5], [(2, [4, 3]), (2, [3, 4]), (1, [4, 3]), (4, [1, 0]), (4, [0, 1]), (2, [1, 0])])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_miniature_is_small_and_leaves_the_model_as_it_is(family: str) -> None:
    model = tiny.FAMILIES[family](vocabulary=5000).bfloat16()
    before = {name: (id(value), value.dtype, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    config, modules = model.config.to_json_string(), list(map(id, model.modules()))
    small, _ = in_miniature(model, COMBS["long"])
    small.set_attn_implementation("sdpa" if family != "gemma2" else "eager")
    assert {value.dtype for value in small.state_dict().values()} == {torch.float32}
    assert small.get_input_embeddings().weight.shape == small.get_output_embeddings().weight.shape == (38, 16)
    assert len(small.model.layers) == 2
    shared = {value.data_ptr() for value in small.state_dict().values()}
    assert not shared & {value.data_ptr() for value in model.state_dict().values()}

    assert (model.config.to_json_string(), model.config._attn_implementation) == (config, "eager")
    assert list(map(id, model.modules())) == modules
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    for name, (place, dtype, value) in before.items():
        assert (id(after[name]), after[name].dtype) == (place, dtype)
        assert torch.equal(after[name], value)


def test_a_model_whose_layers_are_no_list_is_refused() -> None:
    model = tiny.llama().bfloat16()
    model.model.layers = torch.nn.ModuleDict({str(k): layer for k, layer in enumerate(model.model.layers)})
    with pytest.raises(ModelError, match="LlamaForCausalLM has no list of its 2 layers, so that packing"):
        check_packing(model, COMBS["short"])
