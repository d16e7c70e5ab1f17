"""Supervised training of a pretrained model: AdamW in float32, packed, resumable by steps and by minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swirl.comb.attention import Sequences, read
from swirl.comb.combs import group_by_budget
from swirl.comb.gradients import accumulate, recomputing
from swirl.comb.logprobs import project
from swirl.core.checkpoints import EVERY, Checkpoints
from swirl.core.seeds import generator
from swirl.pretraining import training
from swirl.pretraining.training import Example

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE_S = 240.0
"""Seconds of training after which there is a checkpoint, however few the steps: a kill loses five minutes at most."""


@dataclass(frozen=True, slots=True)
class Course:
    """How to train, in the units of params.yaml."""

    epochs: int
    batch_size: int
    token_budget: int
    lr: float
    warmup: int
    weight_decay: float
    clip: float
    mixed_precision: str
    recompute: bool
    workers: int
    seed: int

    def steps(self, examples: int) -> int:
        """Optimiser steps for so many examples."""
        return self.epochs * -(-examples // self.batch_size)


def fine_tune(
    model: Any,
    examples: Sequence[Example],
    course: Course,
    checkpoints: Checkpoints,
    report: Callable[[int, dict[str, float], float], None],
) -> None:
    """Train what is trainable in `model`, which is float32, on shuffled passes over the examples.

    The loss of a step is the mean negative log-likelihood over its batch's weights. The learning rate warms up and
    decays by half a cosine. `report` is called after each step, with its number from 0, its `loss`, `gradient_norm`,
    `tokens` (that were read) and `own_tokens` (the weights' sum), and the tokens a second so far. Training goes on from
    the newest checkpoint: `report` is called for the steps before it, too, with 0 tokens a second.
    """
    import torch

    weights = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = list(weights.values())
    optimizer = torch.optim.AdamW(parameters, lr=course.lr, betas=(0.9, 0.95), weight_decay=course.weight_decay)
    series: list[dict[str, float]] = []
    total = course.steps(len(examples))
    if newest := checkpoints.newest():
        series = checkpoints.restore(newest, weights, [optimizer])["series"]
        print(f"resuming after {newest} of {total} steps")
    for step, metrics in enumerate(series):
        report(step, metrics, 0.0)
    started = saved = time.monotonic()
    read_so_far = 0.0
    for step in range(len(series), total):
        batch = _batch(examples, course, step)
        for group in optimizer.param_groups:
            group["lr"] = course.lr * training.cosine(step, total, course.warmup)
        with recomputing(model, course.recompute):
            loss, own = _gradients(model, parameters, batch, course)
        norm = torch.nn.utils.clip_grad_norm_(parameters, course.clip)
        optimizer.step()
        tokens = float(sum(len(example.ids) for example in batch))
        series.append({"loss": loss, "gradient_norm": float(norm), "tokens": tokens, "own_tokens": own})
        read_so_far += tokens
        report(step, series[-1], read_so_far / (time.monotonic() - started))
        if (step + 1) % EVERY == 0 or step + 1 == total or time.monotonic() - saved > PATIENCE_S:
            checkpoints.save(step + 1, weights, [optimizer], {"series": series})
            saved = time.monotonic()
    optimizer.zero_grad()


def _batch(examples: Sequence[Example], course: Course, step: int) -> list[Example]:
    """The examples of a step: each pass has an order of its own."""
    epoch, place = divmod(step, -(-len(examples) // course.batch_size))
    order = generator(course.seed, "epoch", epoch).sample(range(len(examples)), len(examples))
    return [examples[index] for index in order[place * course.batch_size : (place + 1) * course.batch_size]]


def _gradients(model: Any, parameters: Sequence[Any], batch: Sequence[Example], course: Course) -> tuple[float, float]:
    """Set the gradients to those of the batch's mean loss; returns this loss and the weight that it is a mean over."""
    import torch

    def loss_of(share: Sequence[int]) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=course.mixed_precision == "bf16"):
            return summed_loss(model, [batch[index] for index in share])

    shares = group_by_budget([len(example.ids) for example in batch], course.token_budget, course.workers)
    total = accumulate(parameters, shares, loss_of, course.workers)
    weight = sum(sum(example.weights[1:]) for example in batch)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= weight
    return total / weight, weight


def summed_loss(model: Any, batch: Sequence[Example]) -> Tensor:
    """Summed next-token negative log-likelihood, each token's multiplied by its weight.

    Examples stand in one row without padding and do not see each other; logits are made only where a token has weight,
    and never for the whole vocabulary at all of them at once.
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

    def losses(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.cross_entropy(logits, target, reduction="none"),)

    (lost,) = project([(model, hidden)], ids[where + 1].to(device), losses)
    return (lost * weights[where].to(device)).sum()
