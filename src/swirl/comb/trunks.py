"""Trunks in one row: what several of them begin with (a task's instructions, a question) stands there once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swirl.comb.attention import Scoring, attended, causal, causal_mask

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SHARED = 32
"""The fewest tokens that are read once for several trunks; fewer are not worth a piece of their own."""

Ids = tuple[int, ...]


class Trunks:
    """The plan for trunks in one row; see `swirl.comb.attention.Plan`.

    The row is cut into segments. A segment's tokens see those of the segments before it in the same trunk, and the
    earlier ones of their own.
    """

    def __init__(self, trunks: Sequence[Ids], keep: bool = False) -> None:
        """With `keep`, `kept` holds each layer's keys and values after the forward pass."""
        self.ids: list[int] = []
        """Token of each place in the row."""
        self.positions: list[int] = []
        """Position of each place in the trunks that it is of."""
        self._paths: list[list[slice]] = [[] for _ in trunks]
        """Of each trunk, its segments in the row."""
        self._segments: list[list[slice]] = []
        """Of each segment, in the order of the row, the path that ends with it."""
        self._add(trunks, range(len(trunks)), [], 0)
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._keep = keep
        self.kept: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """Layer -> (KV heads, T, D) keys and values of each trunk."""

    def _add(self, trunks: Sequence[Ids], members: Sequence[int], path: list[slice], start: int) -> None:
        """Lay out the tokens from `start` on of the trunks `members`, which are alike up to there."""
        alike: dict[Ids | int, list[int]] = {}
        for member in members:
            beginning = trunks[member][start : start + LEAST_SHARED]
            alike.setdefault(beginning if len(beginning) == LEAST_SHARED else member, []).append(member)
        for group in alike.values():
            rests = [trunks[member][start:] for member in group]
            alone = (n for n, tokens in enumerate(zip(*rests, strict=False)) if len(set(tokens)) > 1)
            shared = rests[0][: next(alone, min(map(len, rests)))]
            place = slice(len(self.ids), len(self.ids) + len(shared))
            self.ids += shared
            self.positions += range(start, start + len(shared))
            through, end = [*path, place], start + len(shared)
            self._segments.append(through)
            for member in group:
                self._paths[member] = through
            if longer := [member for member in group if len(trunks[member]) > end]:
                self._add(trunks, longer, through, end)

    def places(self, trunk: int) -> list[int]:
        """Where each token of a trunk stands in the row."""
        return [place for piece in self._paths[trunk] for place in range(piece.start, piece.stop)]

    def of(self, trunk: int, values: Tensor) -> Tensor:
        """A trunk's part of keys or values: (KV heads, M, D) -> (KV heads, T, D)."""
        return _joined(values, self._paths[trunk])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `swirl.comb.attention.Plan`."""
        import torch

        if self._keep:
            self.kept[layer] = [(self.of(n, key), self.of(n, value)) for n in range(len(self._paths))]
        outs = []
        for number, path in enumerate(self._segments):
            own, k, v = query[:, :, path[-1]], _joined(key, path), _joined(value, path)
            if len(path) == 1:
                outs.append(causal(own, k, v, scoring))
            else:
                mask = self._mask(number, scoring.window, query)
                outs.append(attended(own, k, v, scoring, mask, causal=True))
        return torch.cat(outs, 2) if len(outs) > 1 else outs[0]

    def _mask(self, number: int, window: int | None, like: Tensor) -> Tensor:
        """Additive mask of a segment on the path that ends with it, (segment, path)."""

        if (number, window) not in self._masks:
            sizes = [piece.stop - piece.start for piece in self._segments[number]]
            self._masks[number, window] = causal_mask(sizes[-1], sum(sizes), window, like)
        return self._masks[number, window]


def _joined(values: Tensor, path: Sequence[slice]) -> Tensor:
    """The pieces of `values` (KV heads, M, D) one after the other."""
    import torch

    pieces = [values[:, piece] for piece in path]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)
