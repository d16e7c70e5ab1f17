"""A tuned model as whole weights for transformers, and as a GGUF file by llama.cpp's converter, scripted or real."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from swirl.cli.show import show_model
from swirl.config.own_settings import brings_settings
from swirl.config.params import validate
from swirl.config.presets import laid_over
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.models.gguf_files import converted
from swirl.models.loading import load_chat, load_model, load_tokenizer, save
from swirl.models.pointers import write_pointer
from swirl.serving.standalone import export_adapter
from swirl.serving.whole import CONVERTER, Written, export_gguf, export_merged, find_converter
from tests import asked, gguf_writer, tiny
from tests.families import smollm2
from tests.serving.test_standalone import moved

SPOKEN = [
    {"role": "user", "content": "What is the capital of Norway?"},
    {"role": "assistant", "content": "<call>capital of Norway</call>"},
    {"role": "user", "content": "Oslo is the capital. zzresult"},
]
REAL = asked.ROOT / "data/weights/SmolLM2-135M-Instruct.Q4_1.gguf"


def tokenizer() -> Any:
    """SmolLM2's tokenizer with tokens that were added: a special one, and a word."""
    made = copy.deepcopy(smollm2())
    made.add_special_tokens({"additional_special_tokens": ["<call>", "</call>"]})
    made.add_tokens(["zzresult"])
    return made


def project(root: Path, tied: bool) -> Layout:
    """A project whose models/swirl is an adapter on a random Llama in a folder, with more rows than tokens."""
    layout = asked.project(root, runtime={"dtype": "float32", "context": 400})
    shutil.rmtree(layout.model("swirl"))
    words = tokenizer()
    config = copy.deepcopy(gguf_writer.model(8).config)
    torch.manual_seed(3)
    whole = LlamaForCausalLM(LlamaConfig.from_dict(config.to_dict() | {
        "vocab_size": len(words) + 13, "tie_word_embeddings": tied, "initializer_range": 0.4}))  # fmt: skip
    save(whole, words, root / "data/weights/whole")
    base = layout.model("base")
    write_pointer(base, "data/weights/whole", root=root)
    tuned = moved(load_model(base, "cpu", "eager"), 3, ["all-linear"], seed=2)
    save(tuned, words, layout.model("swirl"), base, root)
    return layout


def spoken(words: Any) -> list[int]:
    """The test conversation's tokens, as a user of transformers gets them."""
    ids = words.apply_chat_template(SPOKEN, tokenize=True, add_generation_prompt=True, return_dict=False)
    return [int(i) for i in ids]


def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model.float()(input_ids=torch.tensor([ids])).logits, -1)


def exact(model: Any, ids: list[int]) -> torch.Tensor:
    """The log-probability of each token but the first, given those before it, in float64."""
    model = model.double()
    with torch.no_grad(), tiny.Exact():
        found = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits, -1)
    return found[0, :-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def ours(folder: Path) -> tuple[list[int], torch.Tensor]:
    ids = spoken(load_tokenizer(folder))
    return ids, logprobs(load_model(folder, "cpu", "eager"), ids)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_plain_transformers_and_peft_load_what_is_exported(tied: bool, tmp_path: Path) -> None:
    """With tied and untied embeddings, tokens that were added, and rows of the embedding that no token has."""
    layout = project(tmp_path / "project", tied)
    ids, wanted = ours(layout.model("swirl"))
    assert {i for i in ids if i >= len(smollm2())} == {len(smollm2()), len(smollm2()) + 1, len(smollm2()) + 2}
    params, out = asked.params_of(layout), tmp_path / "out"
    written = export_merged(layout.model("swirl"), out / "merged", params, layout)
    export_adapter(layout.model("swirl"), out / "adapter", params, layout)
    shutil.rmtree(layout.root)

    assert written.dtype == "float32"
    for folder in (out / "merged", out / "adapter"):
        words: Any = AutoTokenizer.from_pretrained(folder)
        assert spoken(words) == ids
        assert len(words) == len(tokenizer())
    for model in (
        AutoModelForCausalLM.from_pretrained(out / "merged"),
        AutoPeftModelForCausalLM.from_pretrained(out / "adapter"),
    ):
        assert model.get_input_embeddings().weight.shape[0] == len(tokenizer()) + 13
        torch.testing.assert_close(logprobs(model, ids), wanted, rtol=1e-5, atol=1e-5)
    with safe_open(out / "merged/model.safetensors", "pt") as file:
        names = list(file.keys())
    assert [name for name in names if ".lora_" in name or ".base_layer." in name] == []
    assert ("lm_head.weight" in names) != tied
    content = b"".join(path.read_bytes() for path in (out / "merged").iterdir() if path.suffix == ".json")
    assert str(tmp_path).encode() not in content


def test_a_merged_model_is_one_of_ours_with_its_own_settings(tmp_path: Path) -> None:
    layout = project(tmp_path / "project", tied=True)
    ids, wanted = ours(layout.model("swirl"))
    out = layout.root / "out"
    export_merged(layout.model("swirl"), out, asked.params_of(layout), layout, "float32")
    again, found = ours(out)
    assert again == ids
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert brings_settings(out)
    assert show_model(out).startswith(f"model       {out}\nweights     model.safetensors, 0.")
    assert (out / "prompts/search.txt").read_text() == "{question}\n"
    assert load_chat(out).end_ids == load_chat(layout.model("swirl")).end_ids
    with pytest.raises(ModelError, match="out holds a model that was exported as merged; choose a new folder"):
        export_adapter(layout.model("swirl"), out, asked.params_of(layout), layout)
    export_merged(layout.model("swirl"), out, asked.params_of(layout), layout, "bfloat16")
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


def test_weights_that_bfloat16_holds_stay_in_it(tmp_path: Path) -> None:
    layout = asked.project(tmp_path / "project")
    model = load_model(layout.model("swirl"), "cpu", "eager", "bfloat16")
    save(model, load_tokenizer(layout.model("swirl")), layout.model("swirl"))
    written = export_merged(layout.model("swirl"), tmp_path / "out", asked.params_of(layout), layout)
    size = (tmp_path / "out/model.safetensors").stat().st_size
    assert written == Written(sum(weight.numel() for weight in model.parameters()), size, "bfloat16")


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {root!r})
from transformers import AutoModelForCausalLM
from tests import gguf_writer
folder, *options = sys.argv[1:]
assert options[::2] == ["--outfile", "--outtype", "--model-name"], options
assert options[3:] == ["f32", "--model-name", "out"], options
assert not (Path(folder) / "adapter_config.json").exists()
print("converting", file=sys.stderr)
if {fails!r}:
    sys.exit("NotImplementedError: BPE pre-tokenizer was not recognized")
gguf_writer.write(Path(options[1]), AutoModelForCausalLM.from_pretrained(folder))
"""


def scripted(folder: Path, fails: bool = False) -> Path:
    """A converter that writes a small Llama as llama.cpp's own does, or fails as it does."""
    folder.mkdir()
    path = folder / CONVERTER
    path.write_text(f"#!{sys.executable}\n" + SCRIPT.format(root=str(asked.ROOT), fails=fails))
    path.chmod(0o755)
    return path


def small(root: Path) -> Layout:
    """A project whose models/swirl is an adapter on the tiny Llama that `gguf_writer` can write."""
    layout = asked.project(root)
    shutil.rmtree(layout.model("swirl"))
    save(gguf_writer.model(len(smollm2())), smollm2(), root / "data/weights/whole")
    base = layout.model("base")
    write_pointer(base, "data/weights/whole", root=root)
    save(moved(load_model(base, "cpu", "eager"), 3, ["all-linear"], 2), smollm2(), layout.model("swirl"), base, root)
    return layout


@pytest.mark.slow
def test_a_gguf_file_is_what_the_converter_makes_of_the_merged_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    layout, script = small(tmp_path / "project"), scripted(tmp_path / "llama.cpp")
    params, model = asked.params_of(layout), layout.model("swirl")
    out = layout.root / "out"
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    written = export_gguf(model, out, params, layout, None, None)
    file = out / "out.gguf"
    assert written.bytes == file.stat().st_size
    assert {path.name for path in out.iterdir()} == {"out.gguf", "prompts", "swirl.yaml", "README.md"}
    assert not list(layout.root.glob(".swirl-export-*"))
    from swirl.core.checksums import checksum

    ids, wanted = ours(model)
    again, found = ours(converted(file, checksum(file).sha256))
    assert again == ids
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="exported as gguf"):
        export_merged(model, out, params, layout)


def test_a_converter_that_refuses_says_why_and_leaves_no_file(tmp_path: Path) -> None:
    layout, script = small(tmp_path / "project"), scripted(tmp_path / "llama.cpp", fails=True)
    out = layout.root / "out"
    said = r"convert_hf_to_gguf.py did not convert the model \(exit status 1\): NotImplementedError: BPE pre-tokenizer"
    with pytest.raises(ModelError, match=said):
        export_gguf(layout.model("swirl"), out, asked.params_of(layout), layout, None, script.parent)
    assert not list(out.glob("*"))
    script.write_text("open(__import__('sys').argv[3], 'w').write('no')")
    with pytest.raises(ModelError, match=r"did not convert the model \(exit status 0\): it says nothing"):
        export_gguf(layout.model("swirl"), out, asked.params_of(layout), layout, None, script)


def test_a_missing_converter_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    way = "; get it with `git clone --depth 1 https://github.com/ggml-org/llama.cpp` and `pip install gguf sentenc"
    with pytest.raises(ModelError, match=rf"^{CONVERTER}, llama.cpp's converter, is not on PATH{way}"):
        find_converter(None)
    with pytest.raises(ModelError, match=rf"^{tmp_path} is not llama.cpp's converter{way}"):
        find_converter(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL.name} is not in data/weights: `make weights`")
@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_smollm2_exported(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model of 135 million parameters: 30 layers, tied embeddings, a base that is a GGUF file.

    Computed in float64: in float32 two kernels of attention alone differ by 2e-5 on it, and the weights are what is
    tested, which are float32.
    """
    if form == "gguf" and not shutil.which(CONVERTER):
        pytest.skip(f"{CONVERTER} is not on PATH: llama.cpp is not installed")
    layout = asked.project(tmp_path / "project")
    shutil.rmtree(layout.model("swirl"))
    base = layout.model("base")
    write_pointer(base, str(REAL), root=layout.root)
    tuned = moved(load_model(base, "cpu", "eager"), 4, ["all-linear"], seed=2)
    for name, weight in tuned.named_parameters():
        if ".lora_B." in name:
            weight.data *= 0.1  # as much as training moves it: more would be noise, and magnify rounding
    save(tuned, load_tokenizer(base), layout.model("swirl"), base, layout.root)
    del tuned
    ids = spoken(load_tokenizer(layout.model("swirl")))
    wanted = exact(load_model(layout.model("swirl"), "cpu", "eager"), ids)
    params, out = asked.params_of(layout), tmp_path / "out"
    model: Any
    if form == "merged":
        export_merged(layout.model("swirl"), out, params, layout)
        model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    elif form == "adapter":
        export_adapter(layout.model("swirl"), out, params, layout)
        model = AutoPeftModelForCausalLM.from_pretrained(out, attn_implementation="eager")
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
        export_gguf(layout.model("swirl"), out, params, layout, "float32", None)
        from swirl.core.checksums import checksum

        place = converted(out / "out.gguf", checksum(out / "out.gguf").sha256)
        assert spoken(load_tokenizer(place)) == ids
        model = load_model(place, "cpu", "eager")
    assert model.dtype == torch.float32
    torch.testing.assert_close(exact(model, ids), wanted, rtol=0, atol=1e-5)


def test_the_card_says_base_data_method_scores_and_what_was_not_tested(tmp_path: Path) -> None:
    layout = project(tmp_path / "project", tied=True)
    params, model, out = asked.params_of(layout), layout.model("swirl"), tmp_path / "out"
    for name, right in (("base", 0.25), ("swirl", 0.5)):
        row = {
            "benchmark": "mini-hotpotqa", "model": name, "with_tools": True, "n": 100, "accuracy": right,
            "ci_low": right - 0.1, "ci_high": right + 0.1, "p_vs_base": None, "em": 0, "f1": 0, "precision": 0,
            "recall": 0, "process_label_judge": None, "process_label_oracle": None, "steps": 2.0, "malformed": 0.0,
            "judge": "reward", "judge_role": "the same that was the reward",
        }  # fmt: skip
        save_json([row], layout.evaluation(name))
    save_json({"scores": [row | {"p_vs_base": 0.0123}]}, layout.results)
    save_json({"step": 87.0}, layout.metrics("train-swirl"))
    kept = {"trajectories": 651, "steps": 2185}
    save_json({"trajectories": 1600, "strategy": "process", "kept": kept}, layout.filters)
    export_merged(model, out, params, layout)
    card = (out / "README.md").read_text()
    parts = [line for line in card.splitlines() if line.startswith("#")]
    named = ("How to load it", "Base", "Data", "Method", "Scores", "What it was not tested for")
    assert parts == ["# out", *(f"## {name}" for name in named)]
    for line in (
        "library_name: transformers\n",
        "- mini-gsm8k (embedded): questions by split: train 400, development 100, evaluation 400\n",
        "Of 1600 trajectories that the base made of the training questions, the filter `process` kept 651, with 2185",
        ": 87 updates of 24 states with 8 sampled actions each, estimator rloo, KL weight 0.2, learning rate 0.0002,",
        "| mini-hotpotqa | yes | 100 | 25.0 (15.0 to 35.0) | 50.0 (40.0 to 60.0) | 0.012 |\n",
        "- Anything but mini-beerqa, mini-cofca, mini-gsm8k, mini-hotpotqa, mini-musique, with the tools and prompts",
    ):
        assert line in card, line
    assert "Reward: a judge of source embedded.\n" in card
    own = [{"name": "judge", "weight": 3.0, "options": {}}, {"name": "mine:Own", "weight": 1.0, "options": {}}]
    mixed = validate(laid_over(params.model_dump(), {"judge": {"rewards": own}}), "tests")
    export_merged(model, out, mixed, layout)
    said = "Reward: the mean by weights of a judge of source embedded (weight 3) and `mine:Own` (weight 1).\n"
    assert said in (out / "README.md").read_text()
    lock = "stages: {evaluate@swirl: {deps: [{path: models/swirl, md5: 0123.dir}]}}\n"
    (layout.root / "dvc.lock").write_text(lock)
    export_merged(model, out, params, layout)
    assert "None: the project's evaluation is of other weights.\n" in (out / "README.md").read_text()
    shutil.copytree(model, layout.root / "copied")
    for file in ("model.json", "adapter_config.json"):
        tree = json.loads((model / file).read_text())
        (layout.root / "copied" / file).write_text(json.dumps(tree).replace("../../data", "../data"))
    export_merged(layout.root / "copied", out, params, layout)
    card = (out / "README.md").read_text()
    assert "None: the project that exported it did not measure this folder.\n" in card
    assert card.count("Not known here: this folder is no model of the project that exported it.\n") == 2
    assert "questions by split" not in card
    assert "as the exported folder names it." in card
    assert "cold start" not in card
