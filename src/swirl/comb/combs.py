"""Combs: one token sequence (the trunk) with candidate continuations (the teeth) hanging off its prefixes.

All K states of a trajectory are prefixes of one sequence, so the K x G sampled actions of step-wise RL are teeth on one
trunk. Packed, the trunk is read once; plain, every tooth is a sequence of its own. Both give the same numbers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from swirl.comb.attention import additive, causal, softmax

if TYPE_CHECKING:
    from torch import Tensor

    from swirl.comb.attention import Scoring


@dataclass(frozen=True, slots=True)
class Tooth:
    """A continuation: `ids` follow the first `sees` tokens of the trunk."""

    sees: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comb:
    """A trunk of T tokens, cut after the last one that any tooth sees, and its teeth in the order given."""

    trunk: tuple[int, ...]
    teeth: tuple[Tooth, ...]

    @property
    def packed_size(self) -> int:
        """Number of tokens when packed: the trunk once, and every tooth."""
        return len(self.trunk) + sum(len(tooth.ids) for tooth in self.teeth)

    @property
    def plain_size(self) -> int:
        """Number of tokens when plain: every tooth with its own copy of the trunk tokens that it sees."""
        return sum(tooth.sees + len(tooth.ids) for tooth in self.teeth)


def pack(trunk: Sequence[int], teeth: Sequence[tuple[int, Sequence[int]]]) -> Comb:
    """A comb; each of `teeth` is (how many trunk tokens it sees, its token ids).

    Raises `ValueError` when there is no tooth, when a tooth is empty, and when a tooth sees no trunk token or more than
    there are.
    """
    if not teeth:
        raise ValueError("a comb needs at least one tooth")
    for number, (sees, ids) in enumerate(teeth):
        if not 1 <= sees <= len(trunk):
            raise ValueError(f"tooth {number} sees {sees} trunk tokens; it must see 1 to {len(trunk)}")
        if not ids:
            raise ValueError(f"tooth {number} has no tokens")
    used = max(sees for sees, _ in teeth)
    return Comb(tuple(trunk[:used]), tuple(Tooth(sees, tuple(ids)) for sees, ids in teeth))


def split_teeth(combs: Sequence[Comb]) -> list[Comb]:
    """Every tooth as a comb of its own, in the same order, so that a plain batch can be split between any two."""
    return [pack(comb.trunk, [(tooth.sees, tooth.ids)]) for comb in combs for tooth in comb.teeth]


def split_states(combs: Sequence[Comb]) -> list[Comb]:
    """Neighbouring teeth that see the same tokens as a comb of their own, in the same order."""
    return [
        pack(comb.trunk, [(sees, tooth.ids) for tooth in teeth])
        for comb in combs
        for sees, teeth in groupby(comb.teeth, attrgetter("sees"))
    ]


def tokens_of(combs: Sequence[Comb], packed: bool) -> tuple[float, float]:
    """How many tokens a model reads for these combs, and how many it predicts."""
    read = sum(comb.packed_size if packed else comb.plain_size for comb in combs)
    return float(read), float(sum(len(tooth.ids) for comb in combs for tooth in comb.teeth))


def group_by_budget(sizes: Sequence[int], token_budget: int, workers: int) -> list[list[int]]:
    """Divide the indices of `sizes` into groups of about the same total, one for each forward pass.

    No total exceeds `token_budget`, or the largest size if that is larger. The number of groups is a multiple of
    `workers` unless there are too few sizes. Greedy: the largest size first, each into the group with the smallest
    total so far.
    """
    if not sizes:
        return []
    count = min(len(sizes), -(-max(1, -(-sum(sizes) // token_budget)) // workers) * workers)
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    limit = max(token_budget, *sizes)
    while True:
        groups: list[list[int]] = [[] for _ in range(count)]
        totals = [(0, place) for place in range(count)]
        for index in order:
            total, place = totals[0]
            groups[place].append(index)
            heapq.heapreplace(totals, (total + sizes[index], place))
        if count == len(sizes) or max(totals)[0] <= limit:
            return [sorted(group) for group in groups]
        count = min(len(sizes), count + workers)


@dataclass(frozen=True, slots=True)
class Reading:
    """Model input for some combs, and the places where the prediction of each tooth token is read.

    There are N tooth tokens, in the order comb, tooth, token.
    """

    input_ids: Tensor
    """(M,) packed; (B, S) plain."""
    position_ids: Tensor
    """The same shape."""
    plan: CombPlan | None
    """Which token sees which when packed; None for plain causal rows."""
    read: Tensor
    """(N,) index in the flattened input of the token before each tooth token."""
    targets: Tensor
    """(N,) the tooth tokens."""
    padding: int
    """Number of padding tokens in the input."""


def collate_packed(combs: Sequence[Comb]) -> Reading:
    """All combs in one row without padding: each one's trunk, then its teeth."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    reads: list[int] = []
    targets: list[int] = []
    for comb in combs:
        start = len(ids)
        ids += comb.trunk
        positions += range(len(comb.trunk))
        for tooth in comb.teeth:
            first = len(ids)
            ids += tooth.ids
            positions += range(tooth.sees, tooth.sees + len(tooth.ids))
            reads += (start + tooth.sees - 1, *range(first, first + len(tooth.ids) - 1))
            targets += tooth.ids
    return Reading(
        torch.tensor(ids), torch.tensor(positions), CombPlan(combs), torch.tensor(reads), torch.tensor(targets), 0
    )


def collate_plain(combs: Sequence[Comb]) -> Reading:
    """One row per tooth: the trunk tokens that it sees, then its own, padded on the right."""
    import torch

    teeth = [(comb.trunk, tooth) for comb in combs for tooth in comb.teeth]
    size = max(tooth.sees + len(tooth.ids) for _, tooth in teeth)
    ids = torch.zeros(len(teeth), size, dtype=torch.long)
    reads: list[int] = []
    targets: list[int] = []
    for row, (trunk, tooth) in enumerate(teeth):
        sequence = (*trunk[: tooth.sees], *tooth.ids)
        ids[row, : len(sequence)] = torch.tensor(sequence)
        reads += range(row * size + tooth.sees - 1, row * size + len(sequence) - 1)
        targets += tooth.ids
    position = torch.arange(size).expand(len(teeth), size)
    padding = ids.numel() - sum(comb.plain_size for comb in combs)
    return Reading(ids, position, None, torch.tensor(reads), torch.tensor(targets), padding)


class CombPlan:
    """Attention of packed combs: the trunk is causal, a tooth sees its prefix of the trunk and itself.

    A tooth's scores are computed only against the trunk and the tooth itself, so time and memory grow with S x T for a
    comb of S tokens, T of them in the trunk, and not with the square of S. Windows are measured in position ids.
    """

    def __init__(self, combs: Sequence[Comb]) -> None:
        self._pieces = [_Piece(comb) for comb in combs]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `swirl.comb.attention.Plan`."""
        import torch

        sizes = [piece.size for piece in self._pieces]
        pieces = zip(self._pieces, query.split(sizes, 2), key.split(sizes, 1), value.split(sizes, 1), strict=True)
        return torch.cat([piece.attend(q, k, v, scoring) for piece, q, k, v in pieces], 2)


class _Piece:
    """Attention of one comb, with indices and masks that are made once for all layers."""

    def __init__(self, comb: Comb) -> None:
        import torch

        self.size, self._trunk = comb.packed_size, len(comb.trunk)
        lengths = torch.tensor([len(tooth.ids) for tooth in comb.teeth])
        sees = torch.tensor([tooth.sees for tooth in comb.teeth])
        self._teeth, self._longest = len(comb.teeth), int(lengths.max())
        order = torch.arange(self._longest)
        real = order < lengths[:, None]
        firsts = lengths.cumsum(0) - lengths
        self._place = torch.where(real, firsts[:, None] + order, 0).flatten()
        """(teeth * longest,) index of the tooth token at each padded place; 0 at places without one."""
        self._token = real.flatten().nonzero()[:, 0]
        """(tooth tokens,) padded place of each tooth token."""
        self._sees = sees.repeat_interleave(lengths)
        self._position = (sees[:, None] + order)[real]
        self._masks: dict[int | None, tuple[Tensor, Tensor]] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """(KV heads, g, S, D) and (KV heads, S, D) -> (KV heads, g, S, D)."""
        import torch

        trunk, n, longest = self._trunk, self._teeth, self._longest
        prefix, own = self._mask(scoring.window, query)
        kv_heads, group, _, size = query.shape
        k, v = key[:, :trunk], value[:, :trunk]
        on_trunk = causal(query[:, :, :trunk], k, v, scoring)

        # Each tooth's own tokens, padded to the longest: (KV heads, teeth, g * longest, D) and (.., longest, D).
        place = self._place = self._place.to(query.device)
        token = self._token = self._token.to(query.device)
        q_teeth = query[:, :, trunk:]
        q_own = q_teeth.index_select(2, place).unflatten(2, (n, longest)).transpose(1, 2).flatten(2, 3)
        k_own = key[:, trunk:].index_select(1, place).unflatten(1, (n, longest))
        v_own = value[:, trunk:].index_select(1, place).unflatten(1, (n, longest))
        itself = scoring.scores(q_own, k_own).view(kv_heads, n, group, longest, longest).transpose(1, 2).flatten(2, 3)
        before = scoring.scores(q_teeth.flatten(1, 2), k).unflatten(1, q_teeth.shape[1:3])
        scores = torch.cat([before + prefix, itself.index_select(2, token) + own], -1)
        weights = softmax(scores, value)
        from_own = weights[..., trunk:].index_select(2, place).unflatten(2, (n, longest)).transpose(1, 2).flatten(2, 3)
        from_own = (from_own @ v_own).view(kv_heads, n, group, longest, size).transpose(1, 2).flatten(2, 3)
        from_trunk = (weights[..., :trunk].flatten(1, 2) @ v).unflatten(1, q_teeth.shape[1:3])
        on_teeth = from_trunk + from_own.index_select(2, token)
        return torch.cat([on_trunk, on_teeth], 2)

    def _mask(self, window: int | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Additive masks: teeth on trunk (S - T, T), teeth on themselves (S - T, longest)."""
        import torch

        if window not in self._masks:
            column, inside = torch.arange(self._trunk), torch.arange(self._longest)
            offset = self._position - self._sees
            prefix = column < self._sees[:, None]
            own = inside <= offset[:, None]
            if window is not None:
                prefix = prefix & (self._position[:, None] - column < window)
                own = own & (offset[:, None] - inside < window)
            self._masks[window] = (additive(prefix, like), additive(own, like))
        return self._masks[window]
