"""Gradients that several processes make together, each from shares of its own; the model may be dealt out over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.comb.attention import Sequences, head, read
from swirl.comb.gradients import accumulate
from swirl.core.distributed import Processes
from swirl.models.masters import Masters
from swirl.models.sharding import is_sharded

if TYPE_CHECKING:
    from torch import Tensor

Share = TypeVar("Share")


def summed_gradients(
    model: Any,
    masters: Masters,
    shares: Sequence[Share],
    loss_of: Callable[[Share], Tensor],
    workers: int,
    processes: Processes,
) -> float:
    """Set the masters' gradients to those of the loss summed over the shares of all processes; return this one's loss.

    `loss_of` does one forward pass. Where the weights are dealt out, processes with fewer shares than another read a
    token that counts for nothing in the remaining rounds, since all must gather and sum the same number of times.
    Without a share anywhere there is no gradient.
    """
    rounds = max(processes.gather(len(shares)))
    if not is_sharded(model):
        total = accumulate(masters.parameters, shares, loss_of, workers, masters.tensors())
        if rounds:
            masters.add_up(processes)
        return total
    for master in masters.tensors():
        master.grad = None
    total = 0.0
    for number in range(rounds):
        loss = loss_of(shares[number]) if number < len(shares) else _nothing(model)
        loss.backward()
        total += float(loss.detach())
    return total


def _nothing(model: Any) -> Tensor:
    """A loss of zero whose gradient is zero in every weight, by a forward pass over one token."""
    import torch

    hidden = read(model, torch.tensor([0]), torch.tensor([0]), Sequences([1]))
    return head(model, hidden).sum() * 0.0
