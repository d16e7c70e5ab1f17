"""Adapters change nothing at first, are all that is trained, give the reference when off, and can be reloaded."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.comb.combs import pack
from swirl.comb.logprobs import action_logprobs
from swirl.core.checkpoints import Checkpoints
from swirl.core.errors import ModelError
from swirl.models import adapters
from swirl.models.loading import load_chat, load_model, load_tokenizer, save
from swirl.models.pointers import write_pointer
from swirl.rl.trainer import Trainer
from swirl.rollout.engine import Policy
from tests import tiny
from tests.rl.test_trainer import BATCH, CHAT, SETTINGS, Rewards, weights

IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])
FILES = {
    "model.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def moved(model: Any, seed: int = 1) -> Any:
    """The model with its adapter moved from its initial values, at which it changes nothing."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(0, 0.3)
    return model


def adapted(model: Any, *targets: str) -> Any:
    adapters.add(model, 3, 6, targets or ("all-linear",), seed=7)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_adapter_changes_nothing_at_first_and_gives_way_to_the_base(family: str) -> None:
    model = tiny.FAMILIES[family](16).float()
    before = model(input_ids=IDS).logits
    adapted(model)
    assert torch.equal(model(input_ids=IDS).logits, before)
    after = moved(model)(input_ids=IDS).logits
    assert float((after - before).abs().max().detach()) > 0.01
    with adapters.switched_off(model):
        assert torch.equal(model(input_ids=IDS).logits, before)
    assert torch.equal(model(input_ids=IDS).logits, after)
    assert all(parameter.requires_grad == (".lora_" in name) for name, parameter in model.named_parameters())


def test_the_base_comes_back_even_when_the_block_fails() -> None:
    model = moved(adapted(tiny.qwen3(16).float()))
    after = model(input_ids=IDS).logits
    with pytest.raises(ZeroDivisionError), adapters.switched_off(model):
        _ = 1 / 0
    assert torch.equal(model(input_ids=IDS).logits, after)


def test_targets_are_the_layers_that_are_named() -> None:
    model = adapted(tiny.llama(16), "q_proj", "v_proj")
    trained = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


@pytest.mark.parametrize("name", ["query", "lm_head", "embed_tokens"])
def test_a_target_that_cannot_have_one_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"cannot be put on {name}: the layers of LlamaForCausalLM .* are down_"):
        adapted(tiny.llama(16), "q_proj", name)


def gemma3n() -> Any:
    """A model with lists of layers, whose last names are numbers, as those of its decoder layers are."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    torch.manual_seed(0)
    config = CONFIG_MAPPING["gemma3n_text"](
        vocab_size=64, vocab_size_per_layer_input=64, hidden_size=16, hidden_size_per_layer_input=8,
        intermediate_size=32, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"],
        num_attention_heads=2, num_key_value_heads=1, num_kv_shared_layers=0, head_dim=8, laurel_rank=4,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def test_all_linear_layers_have_one_whatever_their_names(tmp_path: Path) -> None:
    plain = gemma3n()
    layers = {name for name, m in plain.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    model = moved(adapted(gemma3n()))
    assert {name.rpartition(".lora_A.")[0] for name, p in model.named_parameters() if ".lora_A." in name} == layers
    plain.save_pretrained(tmp_path / "base")
    adapters.save(model, tmp_path / "base", tmp_path / "swirl", tmp_path)
    targets = json.loads((tmp_path / "swirl/adapter_config.json").read_text())["target_modules"]
    assert "q_proj" in targets
    assert not {"0", "1"} & set(targets)  # the decoder layers
    adapters.load(plain, tmp_path / "swirl")
    ours, theirs = plain.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_last_names_are_kept_where_they_mean_layers_alone() -> None:
    model = adapted(tiny.llama(16))
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert model.peft_config["default"].target_modules == expected


def test_a_model_without_linear_layers_can_have_none() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match=re.escape("GPT2LMHeadModel has no linear layer (torch.nn.Linear) below its")):
        adapted(model)


def test_peft_s_own_wrapper_gives_the_same_log_probabilities() -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny.gemma2(16)
    wrapped = moved(get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"])))
    combs = [pack([5, 6, 7, 8, 9], [(2, [3, 4]), (5, [6])])]
    with torch.no_grad():
        for packed in (True, False):
            outer, inner = (action_logprobs(m, combs, packed)[0] for m in (wrapped, wrapped.get_base_model()))
            assert torch.equal(outer, inner)
            with wrapped.disable_adapter():
                assert not torch.equal(action_logprobs(wrapped, combs, packed)[0], outer)
            naive = tiny.naive_logprobs(wrapped.get_base_model(), (5, 6), (3, 4))
            torch.testing.assert_close(outer[0], naive, rtol=0, atol=1e-5)


def trainers(packed: bool, **changes: Any) -> tuple[Trainer, Trainer]:
    """Two trainers with equal policies; references: a separate base model, and the policy with its adapter off."""
    settings = dataclasses.replace(SETTINGS, packed=packed, **changes)
    made = []
    for own in (True, False):
        base = tiny.qwen3(16).float()
        policy = moved(adapted(copy.deepcopy(base)))
        reference = base.requires_grad_(False) if own else None
        rewards = Rewards(lambda token: token / 16)
        made.append(Trainer(Policy("p", policy, CHAT, 128), reference, rewards, settings))
    return made[0], made[1]


@pytest.mark.parametrize("changes", [{}, {"recompute": True}, {"workers": 2, "token_budget": 20}], ids=str)
@pytest.mark.parametrize("packed", [True, False])
def test_the_adapter_switched_off_is_the_reference(packed: bool, changes: dict[str, Any]) -> None:
    """In every share of the work, whatever the other threads do."""
    two, one = trainers(packed, **changes)
    before = weights(one.policy.model)
    for number in range(2):
        metrics = one.update(number, BATCH)
        assert metrics["kl"] > 0.01
        assert metrics == two.update(number, BATCH)
    after = weights(one.policy.model)
    for name, value in weights(two.policy.model).items():
        assert torch.equal(after[name], value)
        assert torch.equal(after[name], before[name]) == (".lora_" not in name)


def test_checkpoints_hold_the_adapter_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, learner = trainers(packed=True)
    learner.update(0, BATCH)
    kept = weights(learner.policy.model)
    Checkpoints(tmp_path / "c", "print").save(1, learner.masters.named, [learner.optimizer], {})
    held = load_file(tmp_path / "c/print/step-000001/model.safetensors")
    assert held.keys() == {name for name in kept if ".lora_" in name}
    learner.update(1, BATCH)
    Checkpoints(tmp_path / "c", "print").restore(1, learner.masters.named, [learner.optimizer])
    assert all(torch.equal(value, kept[name]) for name, value in weights(learner.policy.model).items())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A models folder with a base of random weights and its tokenizer."""
    save(tiny.qwen3(len(CHAT.tokenizer)).float(), CHAT.tokenizer, tmp_path / "models/base")
    return tmp_path / "models"


def test_an_adapter_s_folder_holds_no_base_and_loads_by_its_pointer(project: Path) -> None:
    model = moved(adapted(load_model(project / "base", "cpu", "eager")))
    after = model(input_ids=IDS).logits
    save(model, CHAT.tokenizer, project / "swirl", project / "base", project.parent)
    names = {path.name: path.read_bytes() for path in (project / "swirl").iterdir()}
    assert names.keys() - {"chat_template.jinja"} == FILES
    assert json.loads(names["model.json"])["model"] == "../base"
    assert str(project).encode() not in b"".join(names.values())
    loaded = load_model(project / "swirl", "cpu", "eager")
    assert torch.equal(loaded(input_ids=IDS).logits, after)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert load_chat(project / "swirl").prompt("born Oslo") == CHAT.prompt("born Oslo")
    assert len(load_tokenizer(project / "swirl")) == len(CHAT.tokenizer)
    save(model, CHAT.tokenizer, project / "again", project / "base", project.parent)
    assert {path.name: path.read_bytes() for path in (project / "again").iterdir()} == names

    from peft import PeftModel

    base = load_model(project / "base", "cpu", "eager")
    theirs = PeftModel.from_pretrained(base, str(project / "swirl"))
    assert torch.equal(theirs(input_ids=IDS).logits, after)


def log_probabilities(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float().log_softmax(-1)


@pytest.mark.parametrize("where", ["in the project", "behind a pointer in it", "at an absolute path"])
def test_transformers_and_peft_load_the_folder_alone(
    where: str, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = "./models/base"
    if where != "in the project":
        away = where == "at an absolute path"
        place = (tmp_path_factory.mktemp("away") if away else project.parent) / "weights"
        (project / "base").rename(place)
        named = str(place) if away else "./weights"
        write_pointer(project / "base", named, root=project.parent)
    model = moved(adapted(load_model(project / "base", "cpu", "eager")))
    wanted = log_probabilities(model)
    save(model, CHAT.tokenizer, project / "swirl", project / "base", project.parent)
    config = json.loads((project / "swirl/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["task_type"]) == (named, "CAUSAL_LM")
    monkeypatch.chdir("/" if where == "at an absolute path" else project.parent)
    folder = project / "swirl" if where == "at an absolute path" else Path("models/swirl")
    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    peft = AutoPeftModelForCausalLM.from_pretrained(str(folder), attn_implementation="eager")
    for theirs in (whole, peft):
        torch.testing.assert_close(log_probabilities(theirs), wanted, rtol=0, atol=1e-6)
    ids = CHAT.tokenizer("born Oslo")["input_ids"]
    assert AutoTokenizer.from_pretrained(folder)("born Oslo")["input_ids"] == ids
    peft.save_pretrained(project / "theirs")
    names = [load_file(project / name / "adapter_model.safetensors").keys() for name in ("theirs", "swirl")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_peft_loads_the_commit_of_a_hub_model(project: Path, tmp_path: Path) -> None:
    """From the hub's cache alone, in which main has moved to another commit since."""
    cache, commits = tmp_path / "cache/hub/models--org--tiny", ("0" * 40, "1" * 40)
    for commit in commits:
        shutil.copytree(project / "base", cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(commits[1], encoding="utf-8")
    save(tiny.qwen3(len(CHAT.tokenizer), seed=5).float(), CHAT.tokenizer, cache / "snapshots" / commits[1])
    model = moved(adapted(load_model(project / "base", "cpu", "eager")))
    write_pointer(project / "pointed", str(project / "base"))
    pointer = json.loads((project / "pointed/model.json").read_text()) | {"model": "org/tiny", "revision": commits[0]}
    (project / "pointed/model.json").write_text(json.dumps(pointer), encoding="utf-8")
    save(model, CHAT.tokenizer, project / "swirl", project / "pointed", project.parent)
    code = (
        "import json, sys, torch; from peft import AutoPeftModelForCausalLM as Peft\n"
        "from transformers import AutoModelForCausalLM as Whole; from swirl.models.loading import load_model\n"
        "from pathlib import Path; eager = {'attn_implementation': 'eager'}; ids = torch.tensor([[3, 4, 5, 6, 7, 8]])\n"
        "made = [Peft.from_pretrained(sys.argv[1], **eager), load_model(Path(sys.argv[1]), 'cpu', 'eager'),\n"
        f"    Whole.from_pretrained(sys.argv[1], revision={commits[0]!r}, **eager)]\n"
        "print(json.dumps([m(input_ids=ids).logits.float().log_softmax(-1).tolist() for m in made]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(project / "swirl")],
        cwd="/",
        env={
            **os.environ,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for theirs in json.loads(done.stdout):
        torch.testing.assert_close(torch.tensor(theirs), log_probabilities(model), rtol=0, atol=1e-6)


def test_a_base_that_changed_under_an_adapter_is_refused(project: Path) -> None:
    model = adapted(load_model(project / "base", "cpu", "eager"))
    save(model, CHAT.tokenizer, project / "swirl", project / "base")
    save(tiny.qwen3(len(CHAT.tokenizer), seed=5).float(), CHAT.tokenizer, project / "base")
    with pytest.raises(ModelError, match=r"model.safetensors in .*models/base is not what it was"):
        load_model(project / "swirl", "cpu", "eager")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "is of kind 'IA3'; only LORA is known here"),
        ({"target_modules": ["nothing"]}, "holds no adapter that fits Qwen3ForCausalLM"),
        ({"target_modules": ["q_proj"]}, "does not fit its base: "),
        ({"r": 5}, "holds no adapter that fits Qwen3ForCausalLM"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(change: dict[str, Any], message: str, project: Path) -> None:
    save(adapted(load_model(project / "base", "cpu", "eager")), CHAT.tokenizer, project / "swirl", project / "base")
    path = project / "swirl/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        load_model(project / "swirl", "cpu", "eager")


def test_on_a_bfloat16_base_the_adapter_learns_in_float32_and_computes_in_bfloat16(project: Path) -> None:
    model = adapted(load_model(project / "base", "cpu", "eager", "bfloat16"))
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" in n} == {torch.float32}
    settings = dataclasses.replace(SETTINGS, lr=2e-6)
    learner = Trainer(Policy("p", moved(model), CHAT, 128), None, Rewards(lambda token: token / 16), settings)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    before = {name: master.detach().clone() for name, master in learner.masters.named.items()}
    assert {master.dtype for master in before.values()} == {torch.float32}
    learner.update(0, BATCH)
    steps = [float((master.detach() - before[n]).abs().max()) for n, master in learner.masters.named.items()]
    assert 1e-6 < max(steps) < 3e-6
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            assert torch.equal(parameter, learner.masters.named[name].bfloat16())
    save(model, CHAT.tokenizer, project / "swirl", project / "base")
    loaded = load_model(project / "swirl", "cpu", "eager", "bfloat16")
    for (name, one), (_, other) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(one, other), name
