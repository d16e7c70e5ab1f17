"""GGUF files as models: the same numbers and tokens as from safetensors, converted once, refused with a sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers.utils.import_utils

from swirl.core.errors import ModelError
from swirl.models import adapters, gguf_files
from swirl.models.loading import configured_context, load_chat, load_model, load_tokenizer, save
from swirl.models.pointers import follow, point_to_same, write_pointer
from tests import gguf_writer
from tests.conftest import ROOT
from tests.families import smollm2

IDS = torch.tensor([[1, 90, 17, 201, 350, 4, 2, 66]])
# White space before a digit is cut in another way where digits are not split apart first, which is how transformers
# would read "smollm".
TEXTS = ["What is 12  x 345?", "capital  of\tNorway\n\n2nd <|im_end|>", "it's\n 7", "~ \t\n\r\x0b\x0c7"]
REAL = ROOT / "data/weights/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of converted files that begins empty."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("assets")
        patch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(folder))
        yield folder


def logprobs(model: Any) -> torch.Tensor:
    return torch.log_softmax(model(input_ids=IDS).logits, -1)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_gguf_file_is_the_model_and_the_tokenizer_that_were_written(quantised: bool, tmp_path: Path) -> None:
    made = gguf_writer.model(len(smollm2()), quantised)
    made.save_pretrained(tmp_path / "same")
    file = gguf_writer.write(tmp_path / "weights/tiny.gguf", made, quantised)
    write_pointer(tmp_path / "project/models/base", "../weights/tiny.gguf", root=tmp_path / "project")
    base = tmp_path / "project/models/base"
    assert [path.name for path in base.iterdir()] == ["model.json"]
    assert json.loads((base / "model.json").read_text()) == {
        "source": "pretrained",
        "model": "../../../weights/tiny.gguf",
        "revision": "",
        "files": {"tiny.gguf": hashlib.sha256(file.read_bytes()).hexdigest()},
        "trust_remote_code": False,
    }
    for dtype in ("float32", "bfloat16"):
        read, same = load_model(base, "cpu", "eager", dtype), load_model(tmp_path / "same", "cpu", "eager", dtype)
        assert read.dtype == getattr(torch, dtype) and not read.training
        assert torch.equal(logprobs(read), logprobs(same))
    for text in TEXTS:
        assert load_tokenizer(base)(text)["input_ids"] == smollm2()(text)["input_ids"]
    chat = load_chat(base)
    assert chat.end_ids == {2}
    assert chat.markup([("user", "Hi")]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert configured_context(base) == 512


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny GGUF file; `write_pointer(tmp_path / "base", "tiny.gguf", root=tmp_path)` points to it."""
    return gguf_writer.write(tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())))


def test_a_file_is_converted_once_and_again_when_what_was_kept_has_changed(
    file: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write_pointer(tmp_path / "base", "tiny.gguf", root=tmp_path)
    assert kept.is_relative_to(cache)
    assert follow(tmp_path / "base") == (kept, False)
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in kept.iterdir()} - {"chat_template.jinja"} == {"SHA256SUMS", *names}
    assert {path.name for path in kept.parent.iterdir()} == {kept.name, "lock"}
    whole = (kept / "model.safetensors").read_bytes()
    with monkeypatch.context() as without:
        without.setattr(gguf_files, "_convert", None)  # never called
        assert follow(tmp_path / "base") == (kept, False)
        (kept / "model.safetensors").write_bytes(whole[:-1])
        load_chat(tmp_path / "base")  # which reads no weights
    load_model(tmp_path / "base", "cpu", "eager")
    assert (kept / "model.safetensors").read_bytes() == whole
    (kept / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "base")("Oslo")["input_ids"] == smollm2()("Oslo")["input_ids"]


def test_the_bytes_that_are_checked_are_those_of_the_gguf_file(file: Path, tmp_path: Path) -> None:
    kept = write_pointer(tmp_path / "base", "tiny.gguf", root=tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"tiny.gguf in .* is not what it was when .*base/model.json was written"):
        load_model(tmp_path / "base", "cpu", "eager")
    load_tokenizer(tmp_path / "base")  # which reads no weights
    shutil.rmtree(kept)
    with pytest.raises(ModelError, match=r"tiny.gguf is not the file of SHA-256 [0-9a-f]{64}; put that one back"):
        load_tokenizer(tmp_path / "base")
    assert not kept.exists()
    file.unlink()
    with pytest.raises(ModelError, match=r"base/model.json points to .*tiny.gguf, which is not there"):
        load_tokenizer(tmp_path / "base")


def refusal(path: Path, tmp_path: Path, **more: Any) -> str:
    with pytest.raises(ModelError) as caught:
        write_pointer(tmp_path / "base", str(path), **more)
    assert not (tmp_path / "base").exists()
    return str(caught.value)


def test_what_is_no_whole_gguf_file_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    assert refusal(tmp_path / "none.gguf", tmp_path) == (
        f"{tmp_path}/none.gguf is not there; `make weights` puts SmolLM2-135M-Instruct into data/weights"
    )
    assert refusal(file, tmp_path, revision="v1") == f"{file} is a file, which has no revisions; leave out 'v1'"
    for content in (b"", b"PK\3\4 a zip file"):
        file.write_bytes(content)
        assert refusal(file, tmp_path) == f"{file} is no GGUF file: it does not begin with GGUF"
    file.write_bytes(whole[:-1])
    assert refusal(file, tmp_path) == (
        f"{file} is cut short or damaged: it has {len(whole) - 1:,} bytes of {len(whole):,}; get the file again"
    )
    for length in (6, 30, 500, 2_000):
        file.write_bytes(whole[:length])
        said = f"{file} is cut short or damaged: its header cannot be read; get the file again"
        assert refusal(file, tmp_path) == said
    file.write_bytes(b"GGUF\x01" + whole[5:])
    assert "cannot be read: " in refusal(file, tmp_path) and "is GGUF v1" in refusal(file, tmp_path)


@pytest.mark.parametrize("alignment", [0, "none"])
def test_a_header_that_means_nothing_is_refused(tmp_path: Path, alignment: object) -> None:
    file = gguf_writer.write(
        tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())), **{"general.alignment": alignment}
    )
    assert refusal(file, tmp_path) == f"{file} is cut short or damaged: its header cannot be read; get the file again"


LONG = "which transformers does not read from a GGUF file, so the model would be another; use its safetensors weights"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": (
        {"architecture": "clip"},
        "holds no language model that transformers can read (ValueError: GGUF model with architecture clip is not "
        "supported yet.)",
    ),
    "tokenizer": (
        {"tokenizer.ggml.model": "bert"},
        "has a tokenizer of kind 'bert'; transformers reads gpt2, llama, t5, gemma4",
    ),
    "no tokenizer": (
        {"tokenizer.ggml.model": None},
        "has a tokenizer of kind None; transformers reads gpt2, llama, t5, gemma4",
    ),
    "split": (
        {"tokenizer.ggml.pre": "default"},
        "splits text in the way 'default' (tokenizer.ggml.pre), which would be read as another; known are gpt-2",
    ),
    "template": (
        {"tokenizer.chat_template": None},
        "has no chat template (tokenizer.chat_template); use an instruction-tuned model",
    ),
    "positions": ({"llama.rope.scaling.type": "yarn"}, f"scales its rotary positions, {LONG}"),
    "weights": ({"llama.block_count": 3}, "lacks weights of LlamaForCausalLM: model.layers.2."),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_cannot_be_read_as_it_was_meant_is_refused(what: str, tmp_path: Path) -> None:
    values, message = REFUSED[what]
    file = gguf_writer.write(tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())), **values)
    assert refusal(file, tmp_path).startswith(f"{file} {message}")


def test_scaled_positions_in_a_tensor_are_refused(tmp_path: Path) -> None:
    def add(writer: Any) -> None:
        writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))

    file = gguf_writer.write(tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())), change=add)
    assert refusal(file, tmp_path) == f"{file} scales its rotary positions, {LONG}"


def test_without_the_package_the_extra_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.utils.import_utils, "is_gguf_available", lambda: False)
    assert refusal(file, tmp_path) == f"{file} needs the extra gguf: pip install -c constraints.txt -e '.[gguf]'"


def test_an_adapter_on_a_gguf_file_is_saved_beside_a_pointer_to_it(file: Path, tmp_path: Path) -> None:
    write_pointer(tmp_path / "models/base", "../tiny.gguf", root=tmp_path / "models")
    model = load_model(tmp_path / "models/base", "cpu", "eager")
    adapters.add(model, 2, 4, ["all-linear"], seed=1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.fill_(0.1)
    save(model, load_tokenizer(tmp_path / "models/base"), tmp_path / "models/swirl", tmp_path / "models/base", tmp_path)
    assert json.loads((tmp_path / "models/swirl/model.json").read_text())["model"] == "../../tiny.gguf"
    config = json.loads((tmp_path / "models/swirl/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./tiny.gguf"
    read = load_model(tmp_path / "models/swirl", "cpu", "eager")
    assert torch.equal(logprobs(read), logprobs(model))
    assert not torch.equal(logprobs(read), logprobs(load_model(tmp_path / "models/base", "cpu", "eager")))
    point_to_same(tmp_path / "models/swirl", tmp_path / "deep/er/copy")
    assert follow(tmp_path / "deep/er/copy") == follow(tmp_path / "models/base")


def test_all_weights_tuned_from_a_gguf_file_are_a_model_s_folder(file: Path, tmp_path: Path) -> None:
    write_pointer(tmp_path / "base", "tiny.gguf", root=tmp_path)
    model = load_model(tmp_path / "base", "cpu", "eager")
    save(model, load_tokenizer(tmp_path / "base"), tmp_path / "sft")
    assert torch.equal(logprobs(load_model(tmp_path / "sft", "cpu", "eager")), logprobs(model))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "sft").iterdir())
    assert str(tmp_path).encode() not in kept and b"assets" not in kept


@pytest.mark.rare
@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.relative_to(ROOT)} is not there: make weights")
def test_the_real_smollm2_answers(tmp_path: Path) -> None:
    write_pointer(tmp_path / "base", str(REAL))
    chat = load_chat(tmp_path / "base")
    asked = chat.prompt("What is the capital of France?")
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    opening = f"{system}<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert chat.tokenizer.decode(asked) == opening
    assert chat.tokenizer.tokenize("a\n\n1 x  23") == ["a", "ĊĊ", "1", "Ġx", "ĠĠ", "2", "3"]
    for dtype in ("float32", "bfloat16"):
        model = load_model(tmp_path / "base", "cpu", "sdpa", dtype)
        said = model.generate(torch.tensor([asked]), max_new_tokens=20, do_sample=False)[0, len(asked) :].tolist()
        assert chat.text(said) == "The capital of France is Paris."
        assert said[-1] == chat.end_id
    whole = (*asked, *said, *chat.turn("And of Norway?", closed=True))
    messages = [{"role": r, "content": c} for r, c in [("user", "What is the capital of France?"),
                ("assistant", "The capital of France is Paris."), ("user", "And of Norway?")]]  # fmt: skip
    own = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(whole) == own
