"""Sampling candidate actions in the states of trajectories: each trunk is read once, its teeth grow side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from swirl.comb.attention import Scoring, additive, head, read
from swirl.comb.sampling import Sampled, Sampling, choose, uniforms
from swirl.comb.trunks import Trunks

if TYPE_CHECKING:
    from torch import Tensor


ROOM = 16
"""By how many tokens the room for branches' keys and values grows: when branches part, all of it is copied."""


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

    A trunk's keys and values are stored once, however many teeth it has, and so are the tokens that several trunks
    begin with. Teeth of a state that have said the same so far are one branch, which is read once; one that has ended
    leaves the batch.
    """
    import torch

    device = model.device
    with torch.no_grad():
        trunks = Trunks([comb.trunk for comb in combs], keep=True)
        hidden = read(model, torch.tensor(trunks.ids), torch.tensor(trunks.positions), trunks)
        of_tooth = [(number, sees) for number, comb in enumerate(combs) for sees, _ in comb.teeth]
        states = list(dict.fromkeys(of_tooth))
        row = {state: place for place, state in enumerate(states)}
        ends = [trunks.places(number)[sees - 1] for number, sees in states]
        branches = _BranchPlan(trunks, states, sampling.max_tokens, device)
        logits = head(model, hidden[torch.tensor(ends, device=device)]).float()
        draws = np.stack([uniforms(seed, sampling.max_tokens) for comb in combs for _, seed in comb.teeth])
        branch, drawn = [row[state] for state in of_tooth], _Drawn(combs, end_ids)
        grown = iter(_grow(model, branches, logits, branch, draws, sampling, drawn))
        return [[next(grown) for _ in comb.teeth] for comb in combs]


def _grow(
    model: Any,
    branches: _BranchPlan,
    logits: Tensor,
    branch: list[int],
    draws: np.ndarray,
    sampling: Sampling,
    drawn: _Drawn,
) -> list[Sampled]:
    """Decode until every tooth has ended or has the maximum length of an action.

    `logits` are those of each branch, and `branch` is each tooth's.
    """
    import torch

    going = list(range(len(branch)))
    for tick in range(sampling.max_tokens):
        chosen = _choose_each(logits, [branch[tooth] for tooth in going], draws[going, tick], sampling)
        for tooth, token, logprob in zip(going, *chosen, strict=True):
            drawn.add(tooth, token, logprob)
        going = [tooth for tooth in going if tooth not in drawn.ended]
        if not going or tick + 1 == sampling.max_tokens:
            break
        longer: dict[tuple[int, int], int] = {}
        for tooth in going:
            branch[tooth] = longer.setdefault((branch[tooth], drawn.tokens[tooth][-1]), len(longer))
        branches.go_on([parent for parent, _ in longer])
        ids = torch.tensor([token for _, token in longer])
        logits = head(model, read(model, ids, branches.positions, branches)).float()
    return [Sampled(tuple(ids), tuple(values)) for ids, values in zip(drawn.tokens, drawn.logprobs, strict=True)]


def _choose_each(
    logits: Tensor, branch: Sequence[int], draws: np.ndarray, sampling: Sampling
) -> tuple[list[int], list[float]]:
    """The next token of each tooth and its log-probability; `branch` (N,) is the row of its logits (B, V)."""
    import torch

    count, columns = Counter[int](), []
    for row in branch:
        columns.append(count[row])
        count[row] += 1
    rows = torch.tensor(branch)
    table = torch.zeros(len(logits), max(count.values()), dtype=torch.float64)
    table[rows, columns] = torch.from_numpy(draws)
    tokens, logprobs = (found.cpu()[rows, columns] for found in choose(logits, table.to(logits.device), sampling))
    return tokens.tolist(), logprobs.tolist()


class _Drawn:
    """The tokens drawn for each tooth, and which teeth have ended."""

    def __init__(self, combs: Sequence[UnsampledComb], end_ids: Collection[int]) -> None:
        self._complete = [comb.complete for comb in combs for _ in comb.teeth]
        self._end_ids = frozenset(end_ids)
        self.tokens: list[list[int]] = [[] for _ in self._complete]
        self.logprobs: list[list[float]] = [[] for _ in self._complete]
        self.ended: set[int] = set()

    def add(self, tooth: int, token: int, logprob: float) -> None:
        """Take the next token of a tooth."""
        self.tokens[tooth].append(token)
        self.logprobs[tooth].append(logprob)
        if token in self._end_ids or self._complete[tooth](self.tokens[tooth]):
            self.ended.add(tooth)


class _BranchPlan:
    """Attention of branches that grow by one token per forward pass. See `swirl.comb.attention.Plan`."""

    def __init__(self, trunks: Trunks, states: Sequence[tuple[int, int]], longest: int, device: Any) -> None:
        """There is one branch, without a token yet, for each of `states`: comb, and how much of its trunk it sees."""
        import torch

        self._trunks, self._longest, self._device = trunks.kept, longest, device
        self._combs = [comb for comb, _ in states]
        self._sees = torch.tensor([sees for _, sees in states], device=device)
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer -> keys and values of the branches' own tokens, (branches, KV heads, room, D)."""
        self._tick = -1
        self._masks: dict[int | None, list[Tensor]] = {}

    def go_on(self, parents: Sequence[int]) -> None:
        """Let one branch grow out of each of `parents`, numbers of branches; those of a comb are neighbours."""
        import torch

        self._tick += 1
        self._masks = {window: masks for window, masks in self._masks.items() if window is None}
        if list(parents) == list(range(len(self._combs))):
            return
        index = torch.tensor(parents, device=self._device)
        self._combs, self._sees = [self._combs[parent] for parent in parents], self._sees[index]
        for layer, (k, v) in self._own.items():  # one after the other: no two copies of all layers
            self._own[layer] = (k.index_select(0, index), v.index_select(0, index))
        self._masks = {}

    @property
    def positions(self) -> Tensor:
        """(branches,) position of each one's next token."""
        return self._sees + self._tick

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Attention of one new token per branch."""
        import torch

        width = self._tick + 1
        keys, values = self._stored(layer, key)
        keys[:, :, self._tick] = key.transpose(0, 1)
        values[:, :, self._tick] = value.transpose(0, 1)
        near = slice(max(0, width - scoring.window) if scoring.window else 0, width)
        own = scoring.scores(query.permute(2, 0, 1, 3), keys[:, :, near]).permute(1, 2, 0, 3)
        bunches = [(comb, len(list(rows))) for comb, rows in groupby(self._combs)]
        counts = [count for _, count in bunches]
        outs, weights_own = [], []
        parts = zip(
            [self._trunks[layer][comb] for comb, _ in bunches],
            query.split(counts, 2),
            own.split(counts, 2),
            self._mask(scoring.window, layer, query, bunches),
            strict=True,
        )
        for (k, v), q, itself, mask in parts:
            scores = scoring.scores(q.flatten(1, 2), k).unflatten(1, q.shape[1:3]) + mask
            weights = torch.softmax(torch.cat([scores, itself], -1), -1)
            outs.append((weights[..., : k.shape[1]].flatten(1, 2) @ v).unflatten(1, q.shape[1:3]))
            weights_own.append(weights[..., k.shape[1] :])
        from_own = torch.cat(weights_own, 2).permute(2, 0, 1, 3) @ values[:, :, near]
        return torch.cat(outs, 2) + from_own.permute(1, 2, 0, 3)

    def _mask(self, window: int | None, layer: int, like: Tensor, bunches: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Additive masks of each comb's branches on its trunk, (branches, T)."""
        import torch

        if window not in self._masks:
            masks = []
            for sees, (comb, _) in zip(self._sees.split([count for _, count in bunches]), bunches, strict=True):
                column = torch.arange(self._trunks[layer][comb][0].shape[1], device=sees.device)
                seen = column < sees[:, None]
                if window is not None:
                    seen &= sees[:, None] + self._tick - column < window
                masks.append(additive(seen, like))
            self._masks[window] = masks
        return self._masks[window]

    def _stored(self, layer: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """The branches' own keys and values, with room for the new token."""
        import torch

        pair = self._own.get(layer)
        if pair is None or pair[0].shape[2] == self._tick:
            shape = (len(self._combs), key.shape[0], min(ROOM, self._longest - self._tick), key.shape[2])
            room = key.new_empty(shape), key.new_empty(shape)
            pair = room if pair is None else (torch.cat([pair[0], room[0]], 2), torch.cat([pair[1], room[1]], 2))
            self._own[layer] = pair
        return pair
