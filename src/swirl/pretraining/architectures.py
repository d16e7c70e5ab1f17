"""Decoders with random weights, from which models are trained from scratch."""

from __future__ import annotations

from typing import Any


def random_qwen3(
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


def random_gemma2(
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
    """A Gemma-2 decoder with random weights, float32: soft caps, and every other layer sees only `window` tokens."""
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
