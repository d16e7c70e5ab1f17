"""The training loop of the models that are made from nothing: Muon on matrices, AdamW on the rest, cosine decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.core.errors import ModelError
from swirl.core.threads import spread
from swirl.models.attention import Sequences, head, read

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence and the loss weight of each of its tokens (the first is never predicted)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast one phase learns."""

    steps: int
    adam_lr: float
    muon_lr: float
    warmup: int = 20
    """Steps of linear warm-up; 0 starts at the full rate."""
    clip: float = 1.0
    """Largest gradient norm."""


def optimizers(model: Any, adam_lr: float, muon_lr: float) -> list[Any]:
    """Muon (scaled to AdamW's update size) for weight matrices, AdamW for embeddings and norms."""
    import torch

    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in embeddings]
    return [
        torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
        torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]


def train(
    model: Any,
    schedule: Schedule,
    batch_of: Callable[[int], Sequence[Item]],
    loss_of: Callable[[Sequence[Item]], tuple[Tensor, float]],
    report: Callable[[int, dict[str, float]], None],
    mixed_precision: str,
    workers: int,
) -> None:
    """Minimise the mean loss of each step's batch, `workers` shares of it at a time; `report` follows each step.

    `loss_of(items)` is the summed loss of some items and the weight that it is summed over.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision=mixed_precision)
    rates = [schedule.adam_lr, schedule.muon_lr]
    raw = optimizers(model, *rates)
    model, *prepared = accelerator.prepare(model, *raw)
    model.train()
    for step in range(schedule.steps):
        factor = cosine(step, schedule.steps, schedule.warmup)
        for optimizer, rate in zip(prepared, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        loss = shared_gradients(list(model.parameters()), batch_of(step), loss_of, accelerator.autocast, workers)
        norm = accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
        for optimizer in prepared:
            optimizer.step()
        report(step, {"loss": loss, "gradient_norm": float(norm)})
    model.zero_grad()
    model.eval()


def shared_gradients(
    parameters: list[Any],
    batch: Sequence[Item],
    loss_of: Callable[[Sequence[Item]], tuple[Tensor, float]],
    precision: Callable[[], AbstractContextManager[Any]],
    workers: int,
) -> float:
    """Set every parameter's gradient to that of the batch's mean loss, which is returned.

    The batch is dealt to `workers` shares, and their gradients are added in a fixed order.
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
    """Set the gradient of every parameter that has one to that of the summed loss of all shares, which is returned.

    `workers` shares are worked on at a time, and their gradients are added in the order of the shares. With `masters`,
    one for each parameter, it is theirs that is set, in their type.
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
    """With `on`, layers forget their activations in this block and compute them again in the backward pass.

    Raises `ModelError` for a model whose layers cannot.
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
        # In training mode the layer alone, so that nothing inside drops out.
        layer.gradient_checkpointing, layer._gradient_checkpointing_func, layer.training = True, again, True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then half a cosine down to 5%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def weighted_loss(model: Any, batch: Sequence[Example]) -> tuple[Tensor, float]:
    """Summed next-token cross-entropy, each token's times its weight, and the sum of weights.

    Examples stand in one row without padding and do not see each other.
    """
    import torch

    plan = Sequences([len(example.ids) for example in batch])
    ids = torch.tensor([token for example in batch for token in example.ids])
    positions = torch.cat([torch.arange(len(example.ids)) for example in batch])
    # What the token before predicts: the weight of the next one, none behind the end of an example.
    weights = torch.tensor([weight for example in batch for weight in (*example.weights[1:], 0.0)])
    where = weights.nonzero()[:, 0]
    device = model.device
    hidden = read(model, ids, positions, plan)[where.to(device)]
    losses = torch.nn.functional.cross_entropy(head(model, hidden).float(), ids[where + 1].to(device), reduction="none")
    return (losses * weights[where].to(device)).sum(), float(weights.sum())
