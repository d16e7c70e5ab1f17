"""Attention by plan: lets a transformers model read ragged batches without padding and without square masks.

All tokens of a forward pass stand in one row, in any order, with explicit position ids. A `Plan` that is passed to the
forward pass decides which tokens attend to which and computes each layer's attention; everything else (projections,
norms, feed-forward) is the model's own code, run on exactly these tokens. A forward pass without a plan is the model's
own in every respect.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from swirl.core.errors import ModelError
from swirl.core.threads import end_if_given_up

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 128
"""The most queries whose scores are in memory together, where no fused attention computes them."""
_PREFIX = "swirl_"


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a layer computes attention scores: softcap(q k^T scaling), within a window of positions."""

    scaling: float
    softcap: float | None
    window: int | None
    """How many tokens a query sees, itself included; None for all."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Scores of queries against keys: (..., Q, D) and (..., C, D) -> (..., Q, C)."""
        scores = (query * self.scaling) @ key.transpose(-1, -2)
        return scores if self.softcap is None else (scores / self.softcap).tanh() * self.softcap


class Plan(Protocol):
    """Which token sees which in one forward pass over M tokens."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Attention of one layer, in the shape of `query`.

        `query` is (KV heads, query heads per KV head, M, D), `key` and `value` are (KV heads, M, D).
        """


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """An additive mask in the dtype of `like`: 0 where allowed, the lowest finite number elsewhere."""
    import torch

    blocked = torch.zeros(allowed.shape, dtype=like.dtype, device=like.device)
    return blocked.masked_fill_(~allowed.to(like.device), torch.finfo(like.dtype).min)


class Sequences:
    """The plan for whole sequences in one row, each of which attends causally to itself alone."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = list(lengths)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `Plan`."""
        import torch

        parts = (query.split(self._lengths, 2), key.split(self._lengths, 1), value.split(self._lengths, 1))
        return torch.cat([causal(q, k, v, scoring) for q, k, v in zip(*parts, strict=True)], 2)


def causal(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
    """Causal attention of one sequence: (KV heads, g, T, D) and (KV heads, T, D) -> (KV heads, g, T, D)."""
    import torch

    size = key.shape[1]
    if _fused(query, scoring) and (scoring.window is None or size <= scoring.window):
        heads = query.flatten(0, 1)[None]
        out: Tensor = torch.nn.functional.scaled_dot_product_attention(
            heads, key[None], value[None], is_causal=True, scale=scoring.scaling, enable_gqa=query.shape[1] > 1
        )
        return out[0].view_as(query)
    return attended(query, key, value, scoring, causal_mask(size, size, scoring.window, query), causal=True)


def causal_mask(size: int, total: int, window: int | None, like: Tensor) -> Tensor:
    """Additive mask (size, total) of the last `size` of `total` tokens on all of them."""
    import torch

    column, place = torch.arange(total), torch.arange(total - size, total)[:, None]
    sees = column <= place
    if window is not None:
        sees &= place - column < window
    return additive(sees, like)


def attended(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring, mask: Tensor, causal: bool = False) -> Tensor:
    """Attention under an additive mask (Q, C): (KV heads, g, Q, D) and (KV heads, C, D) -> (KV heads, g, Q, D).

    `causal` says that the queries are the last of the C tokens, and that the mask lets none see a later one.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    if _fused(query, scoring):
        out: Tensor = torch.nn.functional.scaled_dot_product_attention(
            query.flatten(0, 1)[None],
            key[None],
            value[None],
            attn_mask=mask,
            scale=scoring.scaling,
            enable_gqa=query.shape[1] > 1,
        )
        return out[0].view_as(query)
    outs = []
    for first in range(0, query.shape[2], ROWS):
        some = query[:, :, first : first + ROWS]
        seen = key.shape[1] - query.shape[2] + first + some.shape[2] if causal else key.shape[1]
        parts = (some, key[:, :seen], value[:, :seen], mask[first : first + ROWS, :seen], scoring)
        if torch.is_grad_enabled() and query.requires_grad:
            outs.append(checkpoint(_weighed, *parts, use_reentrant=False, preserve_rng_state=False))
        else:
            outs.append(_weighed(*parts))
    return torch.cat(outs, 2) if len(outs) > 1 else outs[0]


def _fused(query: Tensor, scoring: Scoring) -> bool:
    """Whether torch's fused attention can do it and is the fastest way."""
    return scoring.softcap is None and not copied(query)


def copied(query: Tensor) -> bool:
    """Whether products copy operands with gaps between their rows, and are faster than torch's fused attention."""
    return query.device.type == "cpu" and query.dtype.itemsize < 4


def _weighed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    """Attention with all scores in memory; they are computed again in the backward pass."""
    import torch

    scores = scoring.scores(query.flatten(1, 2), key).unflatten(1, query.shape[1:3]) + mask
    weighted: Tensor = (torch.softmax(scores, -1).flatten(1, 2) @ value).unflatten(1, query.shape[1:3])
    return weighted


def causal_lm(model: Any) -> Any:
    """The transformers causal LM: `model` itself, or the one inside peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def read(model: Any, ids: Tensor, positions: Tensor, plan: Plan) -> Tensor:
    """Hidden states (M, H) of M tokens, given their (M,) ids and positions, with attention computed by the plan.

    Raises `ModelError` for a model whose attention a plan cannot replace, once in each layer, and `GivenUpError` in a
    thread that nobody waits for any more.
    """
    import torch

    end_if_given_up()
    model = causal_lm(model)
    _adopt(model)
    device = model.device
    passed_on = torch.zeros(1, 1, 1, 1, device=device)  # a 4D mask keeps transformers from building its own
    inputs = {"input_ids": ids.to(device)[None], "position_ids": positions.to(device)[None]}
    watched = _Watched(plan)
    states = hidden_states(model, **inputs, attention_mask=passed_on, swirl_plan=watched)[0]
    asked, layers = watched.layers, model.config.get_text_config().num_hidden_layers
    if not len(asked) == len(set(asked)) == layers:
        raise ModelError(
            f"{type(model).__name__} let {len(set(asked))} of its {layers} layers take over their attention, "
            f"{len(asked)} times in all; packing and our sampler need each of them once, so use another model"
        )
    return states


class _Watched:
    """A plan that knows for which layers it was asked."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.layers: list[int] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `Plan.attend`."""
        self.layers.append(layer)
        return self._plan.attend(layer, query, key, value, scoring)


def hidden_states(model: Any, **inputs: Any) -> Tensor:
    """What a causal LM computes below its output layer, (batch, tokens, H).

    A model whose weights are dealt out over processes has a method for it, which gathers them
    (`swirl.models.sharding`).
    """
    if hasattr(model, "gathered_states"):
        gathered: Tensor = model.gathered_states(use_cache=False, **inputs)
        return gathered
    hidden: Tensor = model.base_model(use_cache=False, **inputs).last_hidden_state
    return hidden


def head(model: Any, hidden: Tensor) -> Tensor:
    """Logits (..., V) of hidden states (..., H), with the scaling and soft cap that some model families apply."""
    model = causal_lm(model)
    return _scaled(model, model.get_output_embeddings()(hidden))


def head_of(model: Any, hidden: Tensor, tokens: Sequence[int]) -> Tensor:
    """`head` for a few tokens: logits (..., tokens), computed in the type of `hidden` whatever that of the weights."""
    import torch

    model = causal_lm(model)
    layer, rows = model.get_output_embeddings(), list(tokens)
    bias = None if layer.bias is None else layer.bias[rows].to(hidden.dtype)
    return _scaled(model, torch.nn.functional.linear(hidden, layer.weight[rows].to(hidden.dtype), bias))


def _scaled(model: Any, logits: Tensor) -> Tensor:
    """Logits with what some families do to them."""
    import torch

    if (divisor := getattr(model.config, "logits_scaling", None)) is not None:  # Granite
        logits = logits / divisor
    if (factor := getattr(model.config, "logit_scale", None)) is not None:  # Cohere
        logits = logits * factor
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _adopt(model: Any) -> None:
    """Let forward passes of `model` take a plan; those without one compute what they did before."""
    kind = model.config._attn_implementation
    if kind.startswith(_PREFIX):
        return
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        raise ModelError(
            f"{type(model).__name__} turns positions by what else is in the batch (rope_type {rope['rope_type']!r}), "
            "so one sequence would change another; use a model with fixed rotary embeddings"
        )
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"{type(model).__name__} has attention of kind {', '.join(sorted(kinds))}, which packing and our sampler "
            "do not know; use a model with full or sliding-window attention"
        )
    if not getattr(type(model), "_supports_attention_backend", False):
        raise ModelError(
            f"{type(model).__name__} does not let its attention be taken over (transformers' attention interface), "
            "which packing and our sampler need; use a model that does"
        )
    reached = {id(each) for part in (model.base_model, model.get_output_embeddings()) for each in part.parameters()}
    if between := [name for name, each in model.named_parameters() if id(each) not in reached]:
        raise ModelError(
            f"{type(model).__name__} computes something between its layers and its output layer ({between[0]}), which "
            "our reading of it leaves out; use another model"
        )
    _register(kind)
    model.config._attn_implementation = _PREFIX + kind


def _register(name: str) -> None:
    """Register the attention `swirl_NAME` with transformers: it is NAME, except in forward passes with a plan."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
    ) -> tuple[Tensor, Any]:
        plan = options.pop("swirl_plan", None)
        if plan is None:
            own = sys.modules[type(module).__module__].eager_attention_forward if name == "eager" else None
            result: tuple[Tensor, Any] = (own or ALL_ATTENTION_FUNCTIONS[name])(
                module, query, key, value, attention_mask, **options
            )
            return result
        return _planned(module, plan, query, key, value, options), None

    if _PREFIX + name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(_PREFIX + name, attention)
        if name in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(_PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])


def _planned(module: Any, plan: Plan, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
    """One layer's attention, computed by the plan: (1, heads, M, D) and (1, KV heads, M, D) -> (1, M, heads, D)."""
    import torch

    if options.get("dropout"):
        raise ModelError("attention dropout is on, which a packed forward does not do; set attention_dropout to 0")
    if key.shape != value.shape:
        raise ModelError(f"{type(module).__name__} has values of another size than keys, which packing does not know")
    if options.get("s_aux") is not None:
        raise ModelError(f"{type(module).__name__} has attention sinks, which packing does not know")
    scaling = options.get("scaling")
    scoring = Scoring(
        query.shape[-1] ** -0.5 if scaling is None else scaling, options.get("softcap"), options.get("sliding_window")
    )
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[-1]
    device = query.device.type
    if torch.is_autocast_enabled(device):  # on a CPU, attention is faster in float32 than in half precision
        kind = torch.float32 if device == "cpu" else torch.get_autocast_dtype(device)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    with torch.autocast(device, enabled=False):
        grouped = query[0].unflatten(0, (kv_heads, heads // kv_heads))
        out = plan.attend(module.layer_idx, grouped, key[0], value[0], scoring)
    return out.reshape(1, heads, -1, size).transpose(1, 2).contiguous()  # some models view it as (1, M, heads x D)
