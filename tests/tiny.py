"""Tiny models and chats for tests: random weights large enough that a wrong mask or position shows."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from swirl.models.chat import Chat
from swirl.pretraining.word_tokenizer import build_tokenizer

VOCABULARY = 40
_SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "attn_implementation": "eager",
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
TAGS = "<answer> </answer> <math_exp> </math_exp> <search_query> </search_query>"
WORDS = f"{TAGS} what is born Oslo Rome Ada error: error".split()


def llama(vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """A random Llama in float64 with grouped key-value heads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _double(LlamaForCausalLM, LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **_SHAPE), seed)


def qwen3(vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """A random Qwen3 in float64 with tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _double(Qwen3ForCausalLM, Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=True, **_SHAPE), seed)


def gemma2(vocabulary: int = VOCABULARY, seed: int = 0, window: int = 4) -> Any:
    """A random Gemma-2 in float64: a sliding window of 4 tokens in one of two layers, both soft caps on."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=vocabulary,
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"],
        attn_logit_softcapping=3.0,
        final_logit_softcapping=2.0,
        query_pre_attn_scalar=8,
        tie_word_embeddings=True,
        **_SHAPE,
    )
    return _double(Gemma2ForCausalLM, config, seed)


def mistral(vocabulary: int = VOCABULARY, seed: int = 0, window: int = 4) -> Any:
    """A random Mistral in float64: all layers have a sliding window, and its configuration lists no layer types."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(vocab_size=vocabulary, sliding_window=window, tie_word_embeddings=False, **_SHAPE)
    return _double(MistralForCausalLM, config, seed)


FAMILIES = {"llama": llama, "qwen3": qwen3, "gemma2": gemma2, "mistral": mistral}


def _double(kind: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return kind(config).double().eval()


class Exact(TorchFunctionMode):
    """Keeps float64 where transformers computes norms and softmax in float32 whatever the dtype of the model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
            if func is torch.Tensor.float or (func is torch.Tensor.to and torch.float32 in args):
                return args[0]
            if kwargs.get("dtype") == torch.float32:
                kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def naive_logits(model: Any, ids: tuple[int, ...] | list[int]) -> torch.Tensor:
    """(tokens, V): what transformers itself gives for one unpadded sequence."""
    logits: torch.Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0]
    return logits


def naive_logprobs(model: Any, state: tuple[int, ...], action: tuple[int, ...]) -> torch.Tensor:
    """(action tokens,): log p(action token | state, earlier action tokens) from `naive_logits`."""
    logprobs = torch.log_softmax(naive_logits(model, [*state, *action]), -1)
    return torch.stack([logprobs[len(state) - 1 + i, token] for i, token in enumerate(action)])


def chat(context: int = 512) -> Chat:
    """A chat over the embedded tokenizer, with a few words that are single tokens."""
    return Chat(build_tokenizer(["GOOD BAD", *WORDS], WORDS, context))
