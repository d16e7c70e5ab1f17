"""Supervised training of a pretrained model: AdamW in float32, packed, resumable by steps and by minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swirl.comb.attention import read
from swirl.comb.combs import group_by_budget
from swirl.comb.gradients import accumulate, recomputing
from swirl.comb.logprobs import project
from swirl.comb.trunks import Trunks
from swirl.config.base_model import FineTuning
from swirl.core.checkpoints import EVERY, Checkpoints
from swirl.core.errors import DataError
from swirl.core.memory import GivenBack
from swirl.core.seeds import generator
from swirl.models.masters import Masters, require_finite
from swirl.pipeline.progress import Progress
from swirl.pretraining import training
from swirl.pretraining.training import Example

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE_S = 240.0
"""Seconds of training after which there is a checkpoint, however few the steps: a kill loses five minutes at most."""

Conversation = Sequence[Example]
"""What is dealt out as one: a conversation, or several that share most of it (one for each step that is judged)."""


def fine_tune(
    stage: str,
    model: Any,
    conversations: Sequence[Conversation],
    settings: FineTuning,
    workers: int,
    seed: int,
    checkpoints: Checkpoints,
) -> list[dict[str, float]]:
    """Train what is trainable in `model` on shuffled passes over the conversations, with float32 masters.

    The loss of a step is the mean negative log-likelihood over its batch's weights. The learning rate warms up and
    decays by half a cosine. Returns for each step its number from 0, `loss`, `gradient_norm`, `tokens` (with what
    several begin with counted for each) and `own_tokens` (the weights' sum). A progress bar named after the stage shows
    the tokens a second. Training goes on from the newest checkpoint. Raises `DataError` without a conversation, and
    where it diverges.
    """
    import torch

    if not conversations:
        raise DataError(
            f"{stage} has no conversation to learn from; where the base took no step because its prompts leave no room "
            "for an action, raise runtime.context"
        )
    masters, decay = Masters(model), settings.weight_decay
    optimizer = torch.optim.AdamW(masters.tensors(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=decay)
    series: list[dict[str, float]] = []
    total = settings.epochs * _steps_a_pass(conversations, settings)
    if newest := checkpoints.newest():
        series = checkpoints.restore(newest, masters.named, [optimizer])["series"]
        masters.publish()
        print(f"resuming after {newest} of {total} steps")
    started = saved = time.monotonic()
    read_so_far, memory = 0.0, GivenBack()
    with Progress(total, stage) as bar:
        bar.already(len(series))
        for step in range(len(series), total):
            batch = _batch(conversations, settings, seed, step)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * training.cosine(step, total, settings.warmup)
            with recomputing(model, settings.gradient_checkpointing):
                loss, own = _gradients(model, masters, batch, settings, workers)
            norm = masters.clip(settings.clip)
            require_finite(f"step {step + 1} of {stage}", loss, norm, f"its lr ({settings.lr:g})")
            optimizer.step()
            masters.publish()
            tokens = float(sum(len(example.ids) for conversation in batch for example in conversation))
            row = {"loss": loss, "gradient_norm": norm, "tokens": tokens, "own_tokens": own}
            series.append({"step": step, **row})
            read_so_far += tokens
            bar.update(1, loss=loss, tokens_per_second=read_so_far / (time.monotonic() - started))
            memory.after_step()
            if (step + 1) % EVERY == 0 or step + 1 == total or time.monotonic() - saved > PATIENCE_S:
                checkpoints.save(step + 1, masters.named, [optimizer], {"series": series})
                saved = time.monotonic()
    optimizer.zero_grad()
    return series


def _steps_a_pass(conversations: Sequence[Conversation], settings: FineTuning) -> int:
    return -(-len(conversations) // settings.batch_size)


def _batch(conversations: Sequence[Conversation], settings: FineTuning, seed: int, step: int) -> list[Conversation]:
    """The conversations of a step: each pass has an order of its own."""
    epoch, place = divmod(step, _steps_a_pass(conversations, settings))
    order = generator(seed, "epoch", epoch).sample(range(len(conversations)), len(conversations))
    return [conversations[index] for index in order[place * settings.batch_size : (place + 1) * settings.batch_size]]


def _gradients(
    model: Any, masters: Masters, batch: Sequence[Conversation], settings: FineTuning, workers: int
) -> tuple[float, float]:
    """Set the masters' gradients to those of the batch's mean loss; returns it, and the weight that it is over."""
    import torch

    def loss_of(share: Sequence[int]) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
            return summed_loss(model, [example for index in share for example in batch[index]])

    sizes = [len(Trunks([example.ids for example in conversation]).ids) for conversation in batch]
    shares = group_by_budget(sizes, settings.token_budget, workers)
    total = accumulate(masters.parameters, shares, loss_of, workers, masters.tensors())
    weight = sum(sum(example.weights[1:]) for conversation in batch for example in conversation)
    for master in masters.tensors():
        if master.grad is not None:
            master.grad /= weight
    return total / weight, weight


def summed_loss(model: Any, batch: Sequence[Example]) -> Tensor:
    """Summed next-token negative log-likelihood, each token's multiplied by its weight.

    Examples stand in one row without padding and do not see each other; what several begin with, such as a task's
    instructions, is read once. Logits are made only where a token has weight, and never for the whole vocabulary at all
    of them at once.
    """
    import torch

    plan = Trunks([example.ids for example in batch])
    # Each place predicts the token after it in its example, with that token's weight.
    places, targets, weights = [], [], []
    for number, example in enumerate(batch):
        following = zip(plan.places(number), example.ids[1:], example.weights[1:], strict=False)
        for place, target, weight in following:
            if weight:
                places.append(place)
                targets.append(target)
                weights.append(weight)
    device = model.device
    hidden = read(model, torch.tensor(plan.ids), torch.tensor(plan.positions), plan)[
        torch.tensor(places, device=device)
    ]

    def losses(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (torch.nn.functional.cross_entropy(logits, target, reduction="none"),)

    (lost,) = project([(model, hidden)], torch.tensor(targets, device=device), losses)
    return (lost * torch.tensor(weights, device=device)).sum()
