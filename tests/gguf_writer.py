"""A tiny Llama with a byte-level tokenizer and SmolLM2's chat template, as a GGUF file and as a model's folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.families import smollm2

HEADS, KEY_HEADS = 4, 2
EPS = float(np.float32(1e-5))
"""A GGUF file holds it in float32."""


def model(vocabulary: int, quantised: bool = False) -> Any:
    """A random Llama in float32; `quantised` matrices hold numbers that Q8_0 can say, so it loses nothing."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=8,
        max_position_embeddings=512,
        rms_norm_eps=EPS,
        rope_theta=5000.0,
        tie_word_embeddings=True,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    made: Any = LlamaForCausalLM(config).eval()
    q8 = gguf.GGMLQuantizationType.Q8_0
    for weight in made.parameters() if quantised else ():
        if weight.dim() == 2:
            weight.data = torch.tensor(gguf.dequantize(gguf.quantize(weight.data.numpy(), q8), q8))
    return made


def write(
    path: Path, made: Any, quantised: bool = False, change: Callable[[Any], None] | None = None, **values: Any
) -> Path:
    """Write a model of `model` with the tokenizer `smollm2` as llama.cpp's converter does, and return its path.

    `values` replace those of the header by their names; None leaves one out. `change` is called with the writer.
    """
    import gguf

    config = made.config
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, values.pop("architecture", "llama"))
    for key, value in (_header(config) | values).items():
        if value is not None:
            _add(writer, key, value)
    for name, weight in _tensors(made).items():
        kind = gguf.GGMLQuantizationType.Q8_0 if quantised and weight.ndim == 2 else None
        writer.add_tensor(name, gguf.quantize(weight, kind) if kind else weight, raw_dtype=kind)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _header(config: Any) -> dict[str, Any]:
    """What the header says of the model and of the tokenizer `smollm2`."""
    tokenizer = smollm2()
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return {
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.rope.dimension_count": config.head_dim,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [3 if name in tokenizer.all_special_tokens else 1 for name in names],
        "tokenizer.ggml.merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(made: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Weights by their names in GGUF, the rows of queries and keys in llama.cpp's order of rotary pairs."""
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attn_norm",
        "model.layers.": "blk.",
    }
    found = {}
    for key, weight in made.named_parameters():
        name, values = key, weight.detach().numpy()
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name.split(".")[-2], 0)
        if heads:
            rows, columns = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        found[name] = np.ascontiguousarray(values)
    return found
