"""Sampling candidate actions in the states of trajectories: each trunk is read once, its teeth grow side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.comb.attention import Scoring, Sequences, additive, head, read, softmax
from swirl.comb.sampling import Sampled, Sampling, choose, uniforms

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class UnsampledComb:
    """A trunk whose teeth are still to be sampled: for each tooth, how many trunk tokens it sees, and its seed."""

    trunk: tuple[int, ...]
    teeth: tuple[tuple[int, int], ...]
    complete: Callable[[Sequence[int]], bool] = lambda ids: False
    """Whether a tooth is whole with the last of its tokens, asked after each; it ends there."""


def sample_teeth(
    model: Any, combs: Sequence[UnsampledComb], sampling: Sampling, end_ids: Collection[int]
) -> list[list[Sampled]]:
    """Draw one action for each tooth of each comb, all in one batch, up to an end token, `complete`, or the longest.

    A trunk's keys and values are stored once, however many teeth it has. Teeth that have ended leave the batch once
    they are an eighth of it.
    """
    import torch

    device = model.device
    with torch.no_grad():
        trunks = Sequences([len(comb.trunk) for comb in combs], keep=True)
        ids = torch.tensor([token for comb in combs for token in comb.trunk])
        positions = torch.cat([torch.arange(len(comb.trunk)) for comb in combs])
        hidden = read(model, ids, positions, trunks)
        starts = np.cumsum([0, *(len(comb.trunk) for comb in combs[:-1])])
        ends = [start + sees - 1 for start, comb in zip(starts, combs, strict=True) for sees, _ in comb.teeth]
        states = sorted(set(ends))
        of_state = {end: number for number, end in enumerate(states)}
        logits = head(model, hidden[torch.tensor(states, device=device)]).float()
        logits = logits[torch.tensor([of_state[end] for end in ends], device=device)]
        teeth = _TeethPlan(trunks, combs, sampling.max_tokens, device)
        draws = torch.from_numpy(np.stack([uniforms(s, sampling.max_tokens) for comb in combs for _, s in comb.teeth]))
        drawn = iter(_grow(model, teeth, logits, draws.to(device), sampling, _Drawn(combs, end_ids)))
        return [[next(drawn) for _ in comb.teeth] for comb in combs]


def _grow(
    model: Any, teeth: _TeethPlan, logits: Tensor, draws: Tensor, sampling: Sampling, drawn: _Drawn
) -> list[Sampled]:
    """Decode until every tooth has ended or has the maximum length of an action."""
    import torch

    for tick in range(sampling.max_tokens):
        rows = teeth.rows.tolist()
        token, logprob = choose(logits, draws[teeth.rows, tick], sampling)
        for row, its_token, its_logprob in zip(rows, token.tolist(), logprob.tolist(), strict=True):
            drawn.add(row, its_token, its_logprob)
        going = torch.tensor([row not in drawn.ended for row in rows], device=logits.device)
        left = int(going.sum())
        if not left or tick + 1 == sampling.max_tokens:
            break
        if 8 * left <= 7 * len(going):  # copying the keys and values of the rest has a cost
            kept = going.nonzero()[:, 0]
            teeth.keep(kept)
            token = token[kept]
        logits = head(model, read(model, token, teeth.step(), teeth)).float()
    return [Sampled(tuple(ids), tuple(values)) for ids, values in zip(drawn.tokens, drawn.logprobs, strict=True)]


class _Drawn:
    """The tokens drawn for each tooth, and which teeth have ended."""

    def __init__(self, combs: Sequence[UnsampledComb], end_ids: Collection[int]) -> None:
        self._complete = [comb.complete for comb in combs for _ in comb.teeth]
        self._end_ids = frozenset(end_ids)
        self.tokens: list[list[int]] = [[] for _ in self._complete]
        self.logprobs: list[list[float]] = [[] for _ in self._complete]
        self.ended: set[int] = set()

    def add(self, row: int, token: int, logprob: float) -> None:
        """Take the next token of a tooth, unless that has ended."""
        if row in self.ended:
            return
        self.tokens[row].append(token)
        self.logprobs[row].append(logprob)
        if token in self._end_ids or self._complete[row](self.tokens[row]):
            self.ended.add(row)


class _TeethPlan:
    """Attention of teeth that grow by one token per forward pass. See `swirl.comb.attention.Plan`."""

    def __init__(self, trunks: Sequences, combs: Sequence[UnsampledComb], longest: int, device: Any) -> None:
        import torch

        self._trunks, self._longest = trunks.kept, longest
        self._counts = [len(comb.teeth) for comb in combs]
        self._sees = torch.tensor([sees for comb in combs for sees, _ in comb.teeth], device=device)
        self.rows = torch.arange(len(self._sees), device=device)
        """Numbers of the teeth that are still in the batch."""
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._tick = -1
        self._masks: dict[int | None, list[Tensor]] = {}

    def keep(self, kept: Tensor) -> None:
        """Keep only the teeth at these indices of the batch."""
        bounds = np.cumsum([0, *self._counts])
        inside = kept.cpu().numpy()
        self._counts = [int(((inside >= a) & (inside < b)).sum()) for a, b in pairwise(bounds)]
        self._sees, self.rows = self._sees[kept], self.rows[kept]
        self._own = {layer: (keys[kept], values[kept]) for layer, (keys, values) in self._own.items()}
        self._masks = {}

    def step(self) -> Tensor:
        """Advance by one token and return its position for each tooth."""
        self._tick += 1
        self._masks = {window: masks for window, masks in self._masks.items() if window is None}
        return self._sees + self._tick

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Attention of one new token per tooth; teeth of the same comb are next to each other."""
        import torch

        width = self._tick + 1
        keys, values = self._stored(layer, key)
        keys[:, :, self._tick] = key.transpose(0, 1)
        values[:, :, self._tick] = value.transpose(0, 1)
        near = slice(max(0, width - scoring.window) if scoring.window else 0, width)
        own = scoring.scores(query.permute(2, 0, 1, 3), keys[:, :, near]).permute(1, 2, 0, 3)
        outs, weights_own = [], []
        parts = zip(
            self._trunks[layer],
            query.split(self._counts, 2),
            own.split(self._counts, 2),
            self._mask(scoring.window, layer, query),
            strict=True,
        )
        for (k, v), q, itself, mask in parts:
            scores = scoring.scores(q.flatten(1, 2), k).unflatten(1, q.shape[1:3]) + mask
            weights = softmax(torch.cat([scores, itself], -1), v)
            outs.append((weights[..., : k.shape[1]].flatten(1, 2) @ v).unflatten(1, q.shape[1:3]))
            weights_own.append(weights[..., k.shape[1] :])
        from_own = torch.cat(weights_own, 2).permute(2, 0, 1, 3) @ values[:, :, near]
        return torch.cat(outs, 2) + from_own.permute(1, 2, 0, 3)

    def _mask(self, window: int | None, layer: int, like: Tensor) -> list[Tensor]:
        """Additive masks of each comb's teeth on its trunk, (teeth, T)."""
        import torch

        if window not in self._masks:
            masks = []
            sizes = [k.shape[1] for k, _ in self._trunks[layer]]
            for sees, size in zip(self._sees.split(self._counts), sizes, strict=True):
                column = torch.arange(size, device=sees.device)
                seen = column < sees[:, None]
                if window is not None:
                    seen &= sees[:, None] + self._tick - column < window
                masks.append(additive(seen, like))
            self._masks[window] = masks
        return self._masks[window]

    def _stored(self, layer: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """The teeth's own keys and values, (teeth, KV heads, longest, D)."""
        if layer not in self._own:
            shape = (len(self.rows), key.shape[0], self._longest, key.shape[2])
            self._own[layer] = (key.new_empty(shape), key.new_empty(shape))
        return self._own[layer]
