"""Local causal LMs of transformers: made, loaded and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swirl.errors import ModelError


def deterministic(threads: int) -> None:
    """Make torch repeat itself: a fixed number of threads, deterministic kernels or an error."""
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling memory that nothing of ours reads costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def fresh(
    tokenizer: Any, hidden: int, layers: int, heads: int, feed_forward: int, context: int, attention: str, seed: int
) -> Any:
    """A Qwen3 decoder with random weights, float32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    make: Any = Qwen3Config
    config = make(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        attn_implementation=attention,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def fresh_gemma2(
    tokenizer: Any,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
    context: int,
    window: int,
    attention: str,
    seed: int,
) -> Any:
    """A Gemma-2 decoder with random weights, float32: soft caps, every other layer sees `window` tokens only."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(seed)
    make: Any = Gemma2Config
    config = make(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=hidden // heads,
        query_pre_attn_scalar=hidden // heads,
        sliding_window=window,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        attn_implementation=attention,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Gemma2ForCausalLM(config)


def load_model(folder: Path, device: str, attention: str) -> Any:
    """The model of a folder, in evaluation mode. Raises `ModelError` when there is none."""
    import torch
    from transformers import AutoModelForCausalLM

    _exists(folder)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, attn_implementation=attention
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no model that transformers can load: {error}") from error
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises `ModelError` when there is none."""
    from transformers import AutoTokenizer

    _exists(folder)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no tokenizer that transformers can load: {error}") from error


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights as safetensors, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _exists(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds no model; run `dvc repro` to make it, or give the folder of one")
