"""Drawing tokens from logits, with a separate stream of uniform random numbers for each action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How actions are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """1 keeps every token."""
    top_k: int = 0
    """0 keeps every token."""
    max_tokens: int = 32
    """Maximum length of an action, its end-of-turn token included."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One action's tokens and their log-probabilities under the model at temperature 1."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def uniforms(seed: int, count: int) -> np.ndarray:
    """The draws in [0, 1) for one action's tokens: a stream of its own, whatever else is in the batch."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Choose tokens by inverting the cumulative distribution at `draws` in [0, 1), or greedily.

    `logits` is (B, V) in float32, `draws` (B,), or (B, n) for n tokens of each distribution. Returns the tokens and
    their log-probabilities at temperature 1, both in the shape of `draws`.
    """
    import torch

    many = draws if draws.ndim == 2 else draws[:, None]
    if sampling.temperature == 0:
        token = logits.argmax(-1, keepdim=True).expand(many.shape)
    else:
        kept = _keep(logits if sampling.temperature == 1 else logits / sampling.temperature, sampling)
        cumulative = torch.softmax(kept, -1).cumsum(-1, dtype=torch.float64)
        threshold = many.to(cumulative.dtype) * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True).clamp_max(logits.shape[-1] - 1)
    logprob = logits.gather(-1, token) - logits.logsumexp(-1, keepdim=True)
    return token.view(draws.shape), logprob.view(draws.shape)


def _keep(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits in which tokens outside top-k and top-p have no probability; the likeliest token always stays."""
    import torch

    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, index = logits.sort(descending=True)
        before = torch.softmax(ordered, -1).cumsum(-1) - torch.softmax(ordered, -1)
        out = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index, before >= sampling.top_p)
        logits = logits.masked_fill(out, -torch.inf)
    return logits
