"""Combs: one token sequence (the trunk) with candidate continuations (the teeth) hanging off its prefixes.

All K states of a trajectory are prefixes of one sequence, so the K x G sampled actions of step-wise RL are teeth on one
trunk. Packed, the trunk is read once; plain, every tooth is its own sequence. Both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tooth:
    """`ids` follow the first `sees` tokens of the trunk."""

    sees: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comb:
    """A trunk of T tokens, cut behind the last one that any tooth sees, and its teeth in the order given."""

    trunk: tuple[int, ...]
    teeth: tuple[Tooth, ...]

    @property
    def packed_size(self) -> int:
        """Tokens when packed: the trunk once, and every tooth."""
        return len(self.trunk) + sum(len(tooth.ids) for tooth in self.teeth)

    @property
    def plain_size(self) -> int:
        """Tokens when plain: every tooth behind its own copy of what it sees."""
        return sum(tooth.sees + len(tooth.ids) for tooth in self.teeth)


def pack(trunk: Sequence[int], teeth: Sequence[tuple[int, Sequence[int]]]) -> Comb:
    """A comb; each of `teeth` is (how many trunk tokens it sees, its token ids).

    Raises `ValueError` when there is no tooth, a tooth is empty, or it sees none or more than all of the trunk.
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Padded model input for some combs, and where each tooth token's prediction is read.

    B rows of S columns; N tooth tokens in the order comb, tooth, token.
    """

    input_ids: Tensor
    """(B, S)"""
    position_ids: Tensor
    """(B, S)"""
    allowed: Tensor | None
    """(B, S, S) bool, row attends to column; None for plain causal attention."""
    read_row: Tensor
    """(N,) row of the token before each tooth token."""
    read_column: Tensor
    """(N,) its column."""
    targets: Tensor
    """(N,) the tooth tokens."""


def collate_packed(combs: Sequence[Comb]) -> Rows:
    """One row a comb: the trunk, then its teeth; a tooth sees its prefix of the trunk and itself."""
    import torch

    size = max(comb.packed_size for comb in combs)
    ids = torch.zeros(len(combs), size, dtype=torch.long)
    position = torch.zeros(len(combs), size, dtype=torch.long)
    owner = torch.full((len(combs), size), -2, dtype=torch.long)  # -2 padding, -1 trunk, else the tooth's number
    sees = torch.zeros(len(combs), size, dtype=torch.long)
    reads: list[tuple[int, int, int]] = []
    for row, comb in enumerate(combs):
        column = len(comb.trunk)
        ids[row, :column] = torch.tensor(comb.trunk)
        position[row, :column] = torch.arange(column)
        sees[row, :column] = torch.arange(1, column + 1)
        owner[row, :column] = -1
        for number, tooth in enumerate(comb.teeth):
            end = column + len(tooth.ids)
            ids[row, column:end] = torch.tensor(tooth.ids)
            position[row, column:end] = torch.arange(tooth.sees, tooth.sees + len(tooth.ids))
            sees[row, column:end] = tooth.sees
            owner[row, column:end] = number
            before = (tooth.sees - 1, *range(column, end - 1))
            reads.extend((row, where, token) for where, token in zip(before, tooth.ids, strict=True))
            column = end
    order = torch.arange(size)
    on_trunk = (owner == -1)[:, None, :] & (order < sees[:, :, None])
    on_itself = (owner[:, :, None] == owner[:, None, :]) & (order <= order[:, None])
    return Rows(ids, position, on_trunk | on_itself, *_columns(reads))


def collate_plain(combs: Sequence[Comb]) -> Rows:
    """One row a tooth: its state and itself, padded on the right."""
    import torch

    teeth = [(comb.trunk, tooth) for comb in combs for tooth in comb.teeth]
    size = max(tooth.sees + len(tooth.ids) for _, tooth in teeth)
    ids = torch.zeros(len(teeth), size, dtype=torch.long)
    reads: list[tuple[int, int, int]] = []
    for row, (trunk, tooth) in enumerate(teeth):
        sequence = (*trunk[: tooth.sees], *tooth.ids)
        ids[row, : len(sequence)] = torch.tensor(sequence)
        reads.extend((row, tooth.sees - 1 + j, token) for j, token in enumerate(tooth.ids))
    position = torch.arange(size).expand(len(teeth), size)
    return Rows(ids, position, None, *_columns(reads))


def _columns(reads: Iterable[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    rows, columns, targets = torch.tensor(list(reads), dtype=torch.long).unbind(1)
    return rows, columns, targets
