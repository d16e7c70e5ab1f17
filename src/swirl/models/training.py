"""The training loop of the models that are made from nothing: Muon on matrices, AdamW on the rest, cosine decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.models.threads import spread

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
    import torch

    def share(items: Sequence[Item]) -> tuple[float, float, tuple[Tensor, ...]]:
        with precision():
            total, weight = loss_of(items)
        return float(total.detach()), weight, torch.autograd.grad(total, parameters)

    shares = spread(share, [batch[i::workers] for i in range(min(workers, len(batch)))], workers)
    weight = sum(each for _, each, _ in shares)
    for parameter, *gradients in zip(parameters, *(gradients for _, _, gradients in shares), strict=True):
        parameter.grad = sum(gradients[1:], gradients[0]) / weight
    return sum(total for total, _, _ in shares) / weight


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then half a cosine down to 5%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def weighted_loss(model: Any, batch: Sequence[Example]) -> tuple[Tensor, float]:
    """Summed next-token cross-entropy, each token's times its weight, and the sum of weights.

    Short examples share a row and do not see each other.
    """
    import torch

    width = max(len(example.ids) for example in batch)
    rows = first_fit([len(example.ids) for example in batch], width)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    position = torch.zeros(len(rows), width, dtype=torch.long)
    owner = torch.full((len(rows), width), -1, dtype=torch.long)
    for row, members in enumerate(rows):
        start = 0
        for index in members:
            end = start + len(batch[index].ids)
            ids[row, start:end] = torch.tensor(batch[index].ids)
            weights[row, start + 1 : end] = torch.tensor(batch[index].weights[1:])
            position[row, start:end] = torch.arange(end - start)
            owner[row, start:end] = index
            start = end
    allowed = (owner[:, :, None] == owner[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
    device = model.device
    ids, weights = ids.to(device), weights.to(device)
    hidden = model.base_model(
        input_ids=ids, position_ids=position.to(device), attention_mask=mask.to(device), use_cache=False
    ).last_hidden_state[:, :-1]
    weights = weights[:, 1:]
    read = weights > 0
    logits = model.get_output_embeddings()(hidden[read]).float()
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][read], reduction="none")
    return (losses * weights[read]).sum(), float(weights.sum())


def first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in rows of at most `capacity`, longest first into the first row with room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = next((row for row, left in enumerate(room) if left >= sizes[index]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(capacity)
        rows[place].append(index)
        room[place] -= sizes[index]
    return rows
