"""Gradients of a batch that is processed in shares, and recomputed activations to save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.core.errors import ModelError
from swirl.core.threads import spread

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")


def shared_gradients(
    parameters: list[Any],
    batch: Sequence[Item],
    loss_of: Callable[[Sequence[Item]], tuple[Tensor, float]],
    precision: Callable[[], AbstractContextManager[Any]],
    workers: int,
) -> float:
    """Set every parameter's gradient to that of the batch's mean loss, and return this loss.

    The batch is dealt out into `workers` shares, whose gradients are added in a fixed order. `loss_of(items)` is the
    summed loss of some items and the weight that it is summed over.
    """
    weights: dict[int, float] = {}

    def share(number: int) -> Tensor:
        with precision():
            total, weights[number] = loss_of(batch[number::workers])
        return total

    total = accumulate(parameters, range(min(workers, len(batch))), share, workers)
    weight = sum(weights.values())
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= weight
    return total / weight


def accumulate(
    parameters: Sequence[Any],
    shares: Sequence[Item],
    loss_of: Callable[[Item], Tensor],
    workers: int,
    masters: Sequence[Any] | None = None,
) -> float:
    """Set every trainable parameter's gradient to that of the loss summed over all shares, and return this loss.

    `workers` shares are processed at a time, and their gradients are added in the order of the shares. With `masters`,
    one for each parameter, the gradients are set on the masters instead, in their dtype.
    """
    import torch

    def of_share(share: Item) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_of(share)
        return float(loss.detach()), torch.autograd.grad(loss, trained)

    pairs = list(zip(parameters, masters or parameters, strict=True))
    for _, master in pairs:
        master.grad = None
    trained = [parameter for parameter, _ in pairs if parameter.requires_grad]
    held = [master for parameter, master in pairs if parameter.requires_grad]
    total = 0.0
    for first in range(0, len(shares), workers):
        for loss, gradients in spread(of_share, shares[first : first + workers], workers):
            total += loss
            for master, gradient in zip(held, gradients, strict=True):
                gradient = gradient.to(master.dtype)
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
    return total


@contextmanager
def recomputing(model: Any, on: bool) -> Iterator[None]:
    """With `on`, layers drop their activations in this block and recompute them in the backward pass.

    Raises `ModelError` for a model whose layers cannot do this.
    """
    if not on:
        yield
        return
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        kind = type(model).__name__
        raise ModelError(f"{kind} has no gradient checkpointing; set train.gradient_checkpointing: false")
    again: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    for layer in layers:
        # Only the layer itself is set to training mode, not its submodules, so that no dropout is applied.
        layer.gradient_checkpointing, layer._gradient_checkpointing_func, layer.training = True, again, True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
