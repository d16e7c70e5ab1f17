"""The training loop of models made here: Muon for matrices, AdamW for the rest, cosine decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.comb.attention import Sequences, head, read
from swirl.comb.gradients import shared_gradients
from swirl.core.checkpoints import EVERY, Checkpoints

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
    """Number of steps and learning rates of one training phase."""

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
    checkpoints: Checkpoints,
) -> None:
    """Minimise the mean loss of each step's batch, `workers` shares of it at a time; `report` is called after each.

    `loss_of(items)` is the summed loss of some items and the weight that it is summed over. There is a checkpoint every
    `EVERY` steps and after the last one. Training goes on from the newest one: `report` is called for the steps before
    it, too, and so is `batch_of`, whose batches may come from a stream.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision=mixed_precision)
    rates = [schedule.adam_lr, schedule.muon_lr]
    raw = optimizers(model, *rates)
    weights = dict(model.named_parameters())
    series: list[dict[str, float]] = []
    if newest := checkpoints.newest():
        series = checkpoints.restore(newest, weights, raw)["series"]
        print(f"resuming after {newest} of {schedule.steps} steps")
    for step, metrics in enumerate(series):
        batch_of(step)
        report(step, metrics)
    model, *prepared = accelerator.prepare(model, *raw)
    model.train()
    for step in range(len(series), schedule.steps):
        factor = cosine(step, schedule.steps, schedule.warmup)
        for optimizer, rate in zip(prepared, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        loss = shared_gradients(list(model.parameters()), batch_of(step), loss_of, accelerator.autocast, workers)
        norm = accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
        for optimizer in prepared:
            optimizer.step()
        series.append({"loss": loss, "gradient_norm": float(norm)})
        report(step, series[-1])
        if (step + 1) % EVERY == 0 or step + 1 == schedule.steps:
            checkpoints.save(step + 1, weights, raw, {"series": series})
    model.zero_grad()
    model.eval()


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then half a cosine down to 5%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def weighted_loss(model: Any, batch: Sequence[Example]) -> tuple[Tensor, float]:
    """Summed next-token cross-entropy, each token's multiplied by its weight, and the sum of the weights.

    Examples stand in one row without padding and do not see each other.
    """
    import torch

    plan = Sequences([len(example.ids) for example in batch])
    ids = torch.tensor([token for example in batch for token in example.ids])
    positions = torch.cat([torch.arange(len(example.ids)) for example in batch])
    # Each position has the weight of the next token, which it predicts; the last one of an example has none.
    weights = torch.tensor([weight for example in batch for weight in (*example.weights[1:], 0.0)])
    where = weights.nonzero()[:, 0]
    device = model.device
    hidden = read(model, ids, positions, plan)[where.to(device)]
    losses = torch.nn.functional.cross_entropy(head(model, hidden).float(), ids[where + 1].to(device), reduction="none")
    return (losses * weights[where].to(device)).sum(), float(weights.sum())
