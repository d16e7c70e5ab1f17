"""The training loop of the models that are made from nothing: Muon on matrices, AdamW on the rest, cosine decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence and the loss weight of each of its tokens (the first is never predicted)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast one phase learns."""

    steps: int
    batch_size: int
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
    loss_of: Callable[[int], Tensor],
    report: Callable[[int, dict[str, float]], None],
    mixed_precision: str,
) -> None:
    """Minimise `loss_of(step)`, the mean loss of one step's batch; `report(step, metrics)` follows each step."""
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
        with accelerator.autocast():
            loss = loss_of(step)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), schedule.clip)
        for optimizer in prepared:
            optimizer.step()
            optimizer.zero_grad()
        report(step, {"loss": float(loss.detach()), "gradient_norm": float(norm)})
    model.eval()


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up, then half a cosine down to 5%."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


def weighted_loss(model: Any, batch: Sequence[Example]) -> Tensor:
    """Mean next-token cross-entropy of a right-padded batch, weighted by each token's weight."""
    import torch

    width = max(len(example.ids) for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    ids, weights = ids.to(model.device), weights.to(model.device)
    hidden = model.base_model(input_ids=ids).last_hidden_state[:, :-1]
    weights = weights[:, 1:]
    read = weights > 0
    logits = model.get_output_embeddings()(hidden[read]).float()
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][read], reduction="none")
    return (losses * weights[read]).sum() / weights.sum()


def batches(examples: Iterator[Example], batch_size: int, steps: int, window: int = 8) -> Iterator[list[Example]]:
    """Batches of similar length: `window` batches are drawn, sorted by length, and dealt in a mixed order."""
    made = 0
    while made < steps:
        drawn = [next(examples) for _ in range(batch_size * window)]
        drawn.sort(key=lambda example: len(example.ids))
        groups = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
        for index in _mixed(len(groups)):
            if made < steps:
                yield groups[index]
                made += 1


def _mixed(count: int) -> list[int]:
    """0..count-1 in a fixed order that alternates short and long."""
    order = list(range(count))
    return [order.pop(0 if turn % 2 else -1) for turn in range(count)]
