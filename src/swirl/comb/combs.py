"""Combs: one token sequence (the trunk) with candidate continuations (the teeth) hanging off its prefixes.

All K states of a trajectory are prefixes of one sequence, so the K x G sampled actions of step-wise RL are teeth on one
trunk. Packed, the trunk is read once; plain, every tooth is a sequence of its own. Both give the same numbers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from swirl.comb.attention import additive, attended
from swirl.comb.trunks import Trunks

if TYPE_CHECKING:
    from torch import Tensor

    from swirl.comb.attention import Scoring


BUNCH = 256
"""The most tokens of teeth that attend together, unless one tooth alone has more."""


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


def chosen_of(combs: Sequence[Comb], read: Sequence[bool]) -> list[Comb]:
    """The combs with the teeth that are `read` alone; a comb without any is left out."""
    chosen = iter(read)
    kept = [(comb.trunk, [(tooth.sees, tooth.ids) for tooth in comb.teeth if next(chosen)]) for comb in combs]
    return [pack(trunk, teeth) for trunk, teeth in kept if teeth]


def within(combs: Sequence[Comb], token_budget: int) -> list[Comb]:
    """Combs above the budget as several, each of neighbouring states, in the same order; they read the trunk anew.

    The teeth of a state stay together, so a single state may exceed the budget.
    """
    parts: list[Comb] = []
    for comb in combs:
        part: Comb | None = None
        for sees, of_state in groupby(comb.teeth, attrgetter("sees")):
            teeth = [(tooth.sees, tooth.ids) for tooth in part.teeth] if part else []
            state = [(sees, tooth.ids) for tooth in of_state]
            longer = pack(comb.trunk, teeth + state)
            if part and longer.packed_size > token_budget:
                parts.append(part)
                longer = pack(comb.trunk, state)
            part = longer
        parts += [part] if part else []
    return parts


def tokens_of(combs: Sequence[Comb], packed: bool) -> tuple[float, float]:
    """How many tokens a model reads for these combs, packed in one forward pass, and how many it predicts."""
    predicted = sum(len(tooth.ids) for comb in combs for tooth in comb.teeth)
    packed_size = len(Trunks([comb.trunk for comb in combs]).ids) + predicted
    return float(packed_size if packed else sum(comb.plain_size for comb in combs)), float(predicted)


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


def collate_packed(combs: Sequence[Comb]) -> Reading:
    """All combs in one row without padding: the trunks, where their common beginnings stand once, then all teeth."""
    import torch

    plan = CombPlan(combs)
    ids, positions = list(plan.trunks.ids), list(plan.trunks.positions)
    reads: list[int] = []
    targets: list[int] = []
    for number, comb in enumerate(combs):
        places = plan.trunks.places(number)
        for tooth in comb.teeth:
            first = len(ids)
            ids += tooth.ids
            positions += range(tooth.sees, tooth.sees + len(tooth.ids))
            reads += (places[tooth.sees - 1], *range(first, first + len(tooth.ids) - 1))
            targets += tooth.ids
    return Reading(torch.tensor(ids), torch.tensor(positions), plan, torch.tensor(reads), torch.tensor(targets))


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
    return Reading(ids, position, None, torch.tensor(reads), torch.tensor(targets))


class CombPlan:
    """Attention of packed combs: the trunk is causal, a tooth sees its prefix of the trunk and itself.

    Teeth attend in bunches of neighbours, to the trunk and their own bunch, so time and memory grow with S x T for a
    comb of S tokens, T of them in the trunk, and not with the square of S. Windows are measured in position ids.
    """

    def __init__(self, combs: Sequence[Comb]) -> None:
        self.trunks = Trunks([comb.trunk for comb in combs])
        self._bunches = [_Bunch(number, teeth) for number, comb in enumerate(combs) for teeth in _bunches(comb.teeth)]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `swirl.comb.attention.Plan`."""
        import torch

        first = len(self.trunks.ids)
        k_trunks, v_trunks = key[:, :first], value[:, :first]
        outs = [self.trunks.attend(layer, query[:, :, :first], k_trunks, v_trunks, scoring)]
        of_trunk: dict[int, tuple[Tensor, Tensor]] = {}
        for bunch in self._bunches:
            if bunch.comb not in of_trunk:
                of_trunk[bunch.comb] = (self.trunks.of(bunch.comb, k_trunks), self.trunks.of(bunch.comb, v_trunks))
            own = slice(first, first + bunch.size)
            k, v = (
                torch.cat([trunk[:, : bunch.reach], each[:, own]], 1)
                for trunk, each in zip(of_trunk[bunch.comb], (key, value), strict=True)
            )
            outs.append(attended(query[:, :, own], k, v, scoring, bunch.mask(scoring.window, query)))
            first = own.stop
        return torch.cat(outs, 2)


def _bunches(teeth: Sequence[Tooth]) -> Iterator[list[Tooth]]:
    """Neighbouring teeth with at most `BUNCH` tokens together, or a single one."""
    bunch: list[Tooth] = []
    for tooth in teeth:
        if bunch and sum(len(other.ids) for other in (*bunch, tooth)) > BUNCH:
            yield bunch
            bunch = []
        bunch.append(tooth)
    yield bunch


class _Bunch:
    """Some teeth of one comb, with a mask that is made once for all layers."""

    def __init__(self, comb: int, teeth: Sequence[Tooth]) -> None:
        self.comb = comb
        """Number of the comb."""
        self.size = sum(len(tooth.ids) for tooth in teeth)
        self.reach = max(tooth.sees for tooth in teeth)
        """How many trunk tokens the teeth see at most."""
        self._teeth = [(tooth.sees, len(tooth.ids)) for tooth in teeth]
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None, like: Tensor) -> Tensor:
        """Additive mask of the teeth on the trunk, as far as they reach, and on themselves: (size, reach + size)."""
        import torch

        if window not in self._masks:
            sees = torch.tensor([sees for sees, length in self._teeth for _ in range(length)])
            offset = torch.tensor([place for _, length in self._teeth for place in range(length)])
            position, column, place = sees + offset, torch.arange(self.reach), torch.arange(self.size)
            prefix = column < sees[:, None]
            back = place[:, None] - place
            own = (back >= 0) & (back <= offset[:, None])
            if window is not None:
                prefix &= position[:, None] - column < window
                own &= back < window
            self._masks[window] = additive(torch.cat([prefix, own], 1), like)
        return self._masks[window]
