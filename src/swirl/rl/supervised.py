"""Supervised fine-tuning on stored actions: maximum likelihood, each trajectory read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swirl.comb.combs import Comb, pack, tokens_of
from swirl.comb.logprobs import action_logprobs
from swirl.core.distributed import ALONE, Processes
from swirl.core.types import SubTrajectory
from swirl.models.flops import Work, matrix_flops
from swirl.models.masters import Masters
from swirl.rl.summed_gradients import summed_gradients

if TYPE_CHECKING:
    from torch import Tensor


def comb_of(group: Sequence[SubTrajectory]) -> Comb:
    """A trajectory's stored actions as teeth on its longest state."""
    return pack(group[-1].state_ids, [(len(step.state_ids), step.action_ids) for step in group])


def supervised_loss(model: Any, batch: Sequence[list[SubTrajectory]], packed: bool) -> tuple[Tensor, float]:
    """Summed negative log-likelihood of the stored actions' tokens given their states, and their number (for SFT)."""
    import torch

    combs = [comb_of(group) for group in batch]
    total = -torch.stack([rows.sum() for rows in action_logprobs(model, combs, packed)]).sum()
    return total, float(sum(len(tooth.ids) for comb in combs for tooth in comb.teeth))


def supervised_work(model: Any, batch: Sequence[list[SubTrajectory]], packed: bool) -> Work:
    """Tokens and FLOPs of `supervised_gradients`, all processes together."""
    read, predicted = tokens_of([comb_of(group) for group in batch], packed)
    return Work(read, matrix_flops(model, read, predicted, training=True))


def supervised_gradients(
    model: Any,
    masters: Masters,
    batch: Sequence[list[SubTrajectory]],
    packed: bool,
    token_budget: int,
    workers: int,
    processes: Processes = ALONE,
) -> float:
    """Set the gradients to those of the mean negative log-likelihood per token of `batch`, and return this mean."""
    sizes = [comb.packed_size if packed else comb.plain_size for comb in map(comb_of, batch)]
    deal = processes.deal(sizes)
    mine = deal.mine(batch)
    count = _deal(deal.mine(sizes), token_budget, workers)
    tokens: dict[int, float] = {}

    def loss_of(number: int) -> Tensor:
        total, tokens[number] = supervised_loss(model, mine[number::count], packed)
        return total

    total = summed_gradients(model, masters, range(min(count, len(mine))), loss_of, workers, processes)
    losses, numbers = zip(*processes.gather((total, sum(tokens.values()))), strict=True)
    weight = sum(numbers)
    for master in masters.tensors():
        if master.grad is not None:
            master.grad /= weight
    return float(sum(losses) / weight)


def _deal(sizes: Sequence[int], token_budget: int, workers: int) -> int:
    """The smallest multiple of `workers` shares, dealt out in turn, that keeps each share within the token budget.

    A share of a single item may exceed it.
    """
    count = workers
    while any(len(dealt := sizes[n::count]) > 1 and sum(dealt) > token_budget for n in range(count)):
        count += workers
    return count
