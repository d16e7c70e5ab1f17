"""Slots: key-value caches of the conversations in flight on one local causal LM, so that it reads each token once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.comb.attention import Scoring, additive, attended, copied, head, read

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SHARED = 32
"""The fewest tokens that conversations begin with alike and that are read once."""


class Slots:
    """Conversations in flight: one slot each, whose keys and values are kept from one forward pass to the next."""

    def __init__(self, model: Any, context: int) -> None:
        """`context` is the maximum length of a conversation in tokens."""
        self._model, self._context = model, context
        self._lengths: list[int] = []
        self._said: list[list[int]] = []
        """The tokens whose keys and values a slot holds: its conversation's, or those of the one before."""
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer -> keys and values, (slots, KV heads, capacity, D)."""

    def open(self) -> int:
        """Add an empty slot and return its number."""
        self._lengths.append(0)
        self._said.append([])
        return len(self._lengths) - 1

    def clear(self, slot: int) -> None:
        """Forget a slot's conversation, so that another may take its place."""
        self._lengths[slot] = 0

    def keep(self, slots: Sequence[int]) -> None:
        """Keep these slots only, renumbered in this order."""
        import torch

        index = torch.tensor(slots, device=self._model.device)
        self._lengths = [self._lengths[slot] for slot in slots]
        self._said = [self._said[slot] for slot in slots]
        for layer, (keys, values) in self._cache.items():  # one after the other: no two copies of all layers
            self._cache[layer] = (keys[index], values[index])

    def read(self, new: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """Append new tokens (at least one each) to some slots, and return the next-token logits, (len(new), V).

        This is one forward pass over just these tokens, less those that a conversation begins with as another one does;
        slots with a single new token attend together, the others one by one.
        """
        import torch

        new, alike = self._begin(new)
        order = sorted(range(len(new)), key=lambda i: len(new[i][1]) > 1)
        rows = [new[i] for i in order]
        single = sum(len(tokens) == 1 for _, tokens in rows)
        starts = [self._lengths[slot] for slot, _ in rows]
        for slot, tokens in rows:
            self._lengths[slot] += len(tokens)
            self._said[slot] += tokens
        sizes = [len(tokens) for _, tokens in rows]
        device = self._model.device
        plan = _SlotPlan(
            self._cache,
            slots=torch.tensor([slot for slot, _ in rows], device=device),
            sizes=torch.tensor(sizes, device=device),
            starts=torch.tensor(starts, device=device),
            single=single,
            count=len(self._lengths),
            context=self._context,
            alike=alike,
        )
        ids = torch.tensor([token for _, tokens in rows for token in tokens])
        with torch.no_grad():
            hidden = read(self._model, ids, plan.columns, plan)
            last = torch.tensor(sizes, device=device).cumsum(0) - 1
            back = torch.tensor(np.argsort(order), device=device)
            logits: Tensor = head(self._model, hidden[last[back]]).float()
        return logits

    def _begin(
        self, new: Sequence[tuple[int, Sequence[int]]]
    ) -> tuple[list[tuple[int, Sequence[int]]], list[tuple[int, int, int]]]:
        """Leave out of new conversations what a slot has read or reads now: the rest, and (from, to, tokens) to copy.

        A slot that is used again knows the conversation before; otherwise it is a slot in use that is copied.
        """
        rest: list[tuple[int, Sequence[int]]] = []
        alike: list[tuple[int, int, int]] = []
        begun: dict[int, Sequence[int]] = {}
        for slot, tokens in new:
            shared = 0
            if not self._lengths[slot]:
                known = {
                    slot: self._said[slot],
                    **{n: s for n, s in enumerate(self._said) if self._lengths[n]},
                    **begun,
                }
                longest = {other: _common(said, tokens) for other, said in known.items()}
                source = min(longest, key=lambda other: (-longest[other], other))
                shared = longest[source] if longest[source] >= LEAST_SHARED else 0
                if shared and source != slot:
                    alike.append((source, slot, shared))
                self._lengths[slot], self._said[slot] = shared, list(tokens[:shared])
                begun[slot] = tokens
            rest.append((slot, tokens[shared:]))
        return rest, alike


def _common(said: Sequence[int], tokens: Sequence[int]) -> int:
    """With how many of the same tokens both begin; the last of `tokens` is not counted, since it has to be read."""
    if tuple(said[:LEAST_SHARED]) != tuple(tokens[:LEAST_SHARED]):
        return 0
    pairs = enumerate(zip(said, tokens[:-1], strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(said), len(tokens) - 1))


class _SlotPlan:
    """Attention of one forward pass over slots. See `swirl.comb.attention.Plan`."""

    def __init__(
        self,
        cache: dict[int, tuple[Tensor, Tensor]],
        slots: Tensor,
        sizes: Tensor,
        starts: Tensor,
        single: int,
        count: int,
        context: int,
        alike: Sequence[tuple[int, int, int]],
    ) -> None:
        import torch

        self._alike = alike
        self._cache, self._slots, self._single, self._count = cache, slots, single, count
        self._context, self._numbers = context, slots.tolist()
        self._slot = slots.repeat_interleave(sizes)
        within = torch.arange(len(self._slot), device=slots.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        self.columns = starts.repeat_interleave(sizes) + within
        """(M,) position of each new token."""
        self._ends = (starts + sizes).tolist()
        self._starts, self._sizes = starts.tolist(), sizes.tolist()
        self._masks: dict[int | None, tuple[Tensor, list[Tensor]]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Store the new keys and values, and let each token attend to its own slot, up to and including itself."""
        import torch

        keys, values = self._stored(layer, key)
        keys[self._slot, :, self.columns] = key.transpose(0, 1)
        values[self._slot, :, self.columns] = value.transpose(0, 1)
        for source, slot, count in self._alike:
            keys[slot, :, :count], values[slot, :, :count] = keys[source, :, :count], values[source, :, :count]
        single_mask, masks = self._mask(scoring.window, query)
        outs = []
        if self._single:
            outs.append(self._singles(query[:, :, : self._single], keys, values, single_mask, scoring))
        first = self._single
        for number, mask in enumerate(masks, self._single):
            slot, size, end = self._numbers[number], self._sizes[number], self._ends[number]
            q = query[:, :, first : first + size]
            outs.append(attended(q, keys[slot, :, :end], values[slot, :, :end], scoring, mask, causal=True))
            first += size
        return torch.cat(outs, 2) if len(outs) > 1 else outs[0]

    def _singles(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
        """Attention of slots with a single new token, in one product.

        It is over all slots, and the others' results are unused; but where the product would copy what it reads, in
        half precision on a CPU, only over these.
        """
        import torch

        slots, width = self._slots[: self._single], mask.shape[-1]
        new = query.permute(2, 0, 1, 3)
        if copied(query):
            k, v = (each[:, :, :width].index_select(0, slots) for each in (keys, values))
            scores = scoring.scores(new, k) + mask[slots][:, None, None]
            return (torch.softmax(scores, -1) @ v).permute(1, 2, 0, 3)
        whole = query.new_zeros(self._count, *query.shape[:2], query.shape[3])
        whole[slots] = new
        scores = scoring.scores(whole, keys[: self._count, :, :width]) + mask[:, None, None]
        out = torch.softmax(scores, -1) @ values[: self._count, :, :width]
        return out[slots].permute(1, 2, 0, 3)

    def _mask(self, window: int | None, like: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Additive masks: (slots, longest) for single tokens, and one (new tokens, length) for each other slot."""
        import torch

        if window not in self._masks:
            device = like.device
            longest = max(self._ends[: self._single], default=1)
            column = torch.arange(longest, device=device)
            reach = torch.ones(self._count, dtype=torch.long, device=device)
            reach[self._slots[: self._single]] = self.columns[: self._single] + 1
            seen = column < reach[:, None]
            if window is not None:
                seen &= reach[:, None] - column <= window
            masks = []
            for start, end in zip(self._starts[self._single :], self._ends[self._single :], strict=True):
                reading, columns = torch.arange(start, end, device=device)[:, None], torch.arange(end, device=device)
                sees = columns <= reading
                masks.append(additive(sees if window is None else sees & (reading - columns < window), like))
            self._masks[window] = (additive(seen, like), masks)
        return self._masks[window]

    def _stored(self, layer: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's buffers, grown to hold every slot and column."""
        import torch

        need = max(self._ends)
        if layer in self._cache:
            keys, values = self._cache[layer]
            if keys.shape[0] >= self._count and keys.shape[2] >= need:
                return keys, values
            capacity = keys.shape[2] if keys.shape[2] >= need else max(need, min(2 * need, self._context))
        else:
            keys = values = key.new_empty(0, key.shape[0], 0, key.shape[2])
            capacity = max(need, min(2 * need, self._context))
        grown = []
        for old in (keys, values):
            # Zeros, not whatever was in memory: a masked column still takes part in a product, and 0 x NaN is NaN.
            new = torch.zeros(self._count, key.shape[0], capacity, key.shape[2], dtype=key.dtype, device=key.device)
            new[: old.shape[0], :, : old.shape[2]] = old
            grown.append(new)
        self._cache[layer] = (grown[0], grown[1])
        return self._cache[layer]
