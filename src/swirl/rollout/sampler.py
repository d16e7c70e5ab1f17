"""Sampling from a local causal LM: many conversations at once, every token read once.

The conversations share one key-value cache. Rows are ragged, so columns that hold no token of a row are masked for it,
and position ids count real tokens only; a step then reads just the tokens that are new.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.models.attention import additive_mask

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
    """Longest action, its end of turn included."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One action's tokens and their log-probabilities under the model at temperature 1."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Conversations:
    """B conversations in flight on one model."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        """Read the prompts (each at least one token)."""
        import torch

        from swirl.rollout.cache import growing_cache

        self._model = model
        self._cache = growing_cache(model.config.num_hidden_layers)
        self._known = torch.zeros(len(prompts), 0, dtype=torch.bool, device=model.device)
        self._positions = torch.zeros(len(prompts), 0, dtype=torch.long, device=model.device)
        self._lengths = torch.zeros(len(prompts), dtype=torch.long, device=model.device)
        self._next_logits: Tensor
        self.read(prompts)

    def __len__(self) -> int:
        return len(self._lengths)

    def read(self, rows: Sequence[Sequence[int]]) -> None:
        """Append each row's new tokens (at least one each)."""
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows], device=self._model.device)
        sizes = torch.tensor([len(row) for row in rows], device=self._model.device)
        order = torch.arange(width, device=self._model.device)
        fresh = order < sizes[:, None]
        causal = (order <= order[:, None]) & fresh[:, None, :]
        allowed = torch.cat([self._known[:, None, :].expand(-1, width, -1), causal], -1)
        positions = self._lengths[:, None] + torch.minimum(order, sizes[:, None] - 1)
        hidden = self._forward(ids, allowed, positions)
        last = hidden[torch.arange(len(rows), device=hidden.device), sizes - 1]
        self._known = torch.cat([self._known, fresh], 1)
        self._lengths = self._lengths + sizes
        self._next_logits = self._head(last)

    def select(self, keep: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        import torch

        index = torch.tensor(keep, device=self._model.device)
        self._cache.batch_select_indices(index)
        self._known, self._positions, self._lengths = self._known[index], self._positions[index], self._lengths[index]
        self._next_logits = self._next_logits[index]

    def act(self, seeds: Sequence[int], sampling: Sampling, end_ids: Collection[int]) -> list[Sampled]:
        """Draw one action a row, each from its own seed. All but its last token are read; that one is not yet."""
        import torch

        device = self._model.device
        ends = torch.tensor(sorted(end_ids), device=device)
        draws = torch.from_numpy(
            np.stack([np.random.Generator(np.random.Philox(seed)).random(sampling.max_tokens) for seed in seeds])
        ).to(device)
        going = torch.ones(len(self), dtype=torch.bool, device=device)
        tokens, logprobs, alive = [], [], []
        for tick in range(sampling.max_tokens):
            token, logprob = choose(self._next_logits, draws[:, tick], sampling)
            tokens.append(token)
            logprobs.append(logprob)
            alive.append(going)
            going = going & ~torch.isin(token, ends)
            if tick + 1 == sampling.max_tokens or not bool(going.any()):
                break
            allowed = torch.cat([self._known, going[:, None]], 1)
            # A row that has ended still needs one column to look at; what it computes is never read.
            seen = allowed.clone()
            seen[:, -1] = True
            hidden = self._forward(token[:, None], seen[:, None, :], self._lengths[:, None])
            self._known = allowed
            self._lengths = self._lengths + going
            self._next_logits = self._head(hidden[:, 0])
        counts = torch.stack(alive, 1).sum(1).tolist()
        all_tokens, all_logprobs = torch.stack(tokens, 1).tolist(), torch.stack(logprobs, 1).tolist()
        return [Sampled(tuple(t[:n]), tuple(p[:n])) for t, p, n in zip(all_tokens, all_logprobs, counts, strict=True)]

    def _forward(self, ids: Tensor, allowed: Tensor, positions: Tensor) -> Tensor:
        """Hidden states (B, new, H); `allowed` (B, new, all columns so far and new) says who sees what."""
        import torch

        with torch.no_grad():
            self._positions = torch.cat([self._positions, positions], 1)
            mask = additive_mask(self._model, allowed, positions, self._positions)
            return self._model.base_model(  # type: ignore[no-any-return]
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True
            ).last_hidden_state

    def _head(self, hidden: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            logits: Tensor = self._model.get_output_embeddings()(hidden).float()
            cap = getattr(self._model.config, "final_logit_softcapping", None)
            return logits if cap is None else torch.tanh(logits / cap) * cap


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token a row by inverting the cumulative distribution at `draws` (B,) in [0, 1), or greedily.

    `logits` is (B, V) in float32. Returns (tokens (B,), their log-probabilities at temperature 1 (B,)).
    """
    import torch

    logprobs = torch.log_softmax(logits, -1)
    if sampling.temperature == 0:
        token = logprobs.argmax(-1)
    else:
        kept = _keep(logits / sampling.temperature, sampling)
        cumulative = torch.softmax(kept, -1).double().cumsum(-1)
        threshold = draws.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
    return token, logprobs.gather(-1, token[:, None])[:, 0]


def _keep(logits: Tensor, sampling: Sampling) -> Tensor:
    """Tokens outside top-k and top-p are given no probability; the likeliest token always stays."""
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
