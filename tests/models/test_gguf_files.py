"""GGUF files as models: the same numbers and tokens as from safetensors, converted once, refused with a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from swirl.models.loading import configured_context, load_chat, load_model, load_tokenizer
from swirl.models.pointers import write_pointer
from tests import gguf_writer
from tests.conftest import ROOT
from tests.families import smollm2

IDS = torch.tensor([[1, 90, 17, 201, 350, 4, 2, 66]])
TEXTS = ["What is 12  x 345?", "capital  of\tNorway\n\n2nd <|im_end|>", "it's\n 7"]
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
