"""Teaching a judge: from conversations whose actions are labelled GOOD or BAD to a reward model and its scores."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swirl.benchmarks import oracle
from swirl.comb.combs import Comb, pack
from swirl.comb.logprobs import final_logits
from swirl.core.checkpoints import Checkpoints
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import save, save_json
from swirl.core.types import ActionKind, HeldOutStep, Trajectory
from swirl.judging.reward import RewardModel
from swirl.models.chat import Chat
from swirl.pipeline.progress import Progress
from swirl.pretraining.embedded_examples import Demonstration
from swirl.pretraining.training import Schedule, train
from swirl.tools.actions import parse

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Labelled:
    """A conversation: its tokens, where each action ends, and whether the oracle calls that action GOOD."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    good: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A conversation that the base made: its task, and what each step does and how probable it was."""

    task: str
    kinds: tuple[str, ...]
    logprobs: tuple[float, ...]
    """Mean natural-log probability of each action's tokens; NaN where the base's server did not give them."""
    labelled: Labelled


def sampled(trajectory: Trajectory, task: str, labels: Sequence[bool]) -> Sampled:
    """A trajectory with the oracle's labels of its steps."""
    steps = trajectory.steps
    ends = tuple(len(trajectory.state_ids(k)) + len(step.token_ids) for k, step in enumerate(steps))
    means = tuple(sum(step.logprobs) / len(step.logprobs) if step.logprobs else math.nan for step in steps)
    labelled = Labelled(trajectory.state_ids(len(steps)), ends, tuple(labels))
    return Sampled(task, tuple(step.action.kind for step in steps), means, labelled)


def label_written(demonstration: Demonstration, chat: Chat) -> Labelled:
    """A written conversation with the oracle's labels of its steps."""
    ids, ends = list(chat.prompt(demonstration.prompt)), []
    for turn in demonstration.turns:
        ids += chat.reply(turn.action)
        ends.append(len(ids))
        ids += chat.turn(turn.observation, closed=True) if turn.observation else ()
    labels = oracle.label_steps(demonstration.derivation, [parse(turn.action) for turn in demonstration.turns])
    return Labelled(tuple(ids), tuple(ends), tuple(labels))


def teach(
    judge: RewardModel,
    labelled: Sequence[Labelled],
    schedule: Schedule,
    batch_size: int,
    mixed_precision: str,
    rng: random.Random,
    checkpoints: Checkpoints,
) -> list[dict[str, float]]:
    """Train the judge's model by cross-entropy of the verdict's first token; returns loss and gradient norm by step.

    All steps of a conversation are judged in one packed forward pass. Training goes on from the newest checkpoint.
    Raises `DataError` without a conversation.
    """
    if not labelled:
        raise DataError(
            "reward_model has no labelled conversation to learn from: the base took no step on its questions; if its "
            "prompts leave no room for an action, raise runtime.context"
        )
    order = _epochs(len(labelled), schedule.steps * batch_size, rng)
    series: list[dict[str, float]] = []
    with Progress(schedule.steps, "reward_model") as bar:

        def batch_of(step: int) -> list[Labelled]:
            chosen = order[step * batch_size : (step + 1) * batch_size]
            return [labelled[index] for index in chosen]

        def loss_of(batch: Sequence[Labelled]) -> tuple[Tensor, float]:
            return verdict_loss(judge, batch)

        def report(step: int, metrics: dict[str, float]) -> None:
            series.append({"step": step, **metrics})
            bar.update(1, loss=metrics["loss"])

        train(judge.model, schedule, batch_of, loss_of, report, mixed_precision, judge.workers, checkpoints)
    return series


def _epochs(count: int, draws: int, rng: random.Random) -> list[int]:
    """Indices below `count` in whole shuffled passes, at least `draws` of them."""
    order: list[int] = []
    while len(order) < draws:
        order += rng.sample(range(count), count)
    return order


def questions_of(judge: RewardModel, item: Labelled) -> list[tuple[int, tuple[int, ...]]]:
    """For each step, where its action ends in the conversation, and the turn that asks for the verdict."""
    return [(end, judge.question_ids(item.ids[end - 1] in judge.chat.end_ids)) for end in item.ends]


def _comb(judge: RewardModel, item: Labelled) -> Comb:
    """The conversation as the trunk, and for each action a tooth with the judge's turn and a verdict."""
    good, _ = judge.verdict_ids
    return pack(item.ids, [(end, (*question, good)) for end, question in questions_of(judge, item)])


def verdict_loss(judge: RewardModel, batch: Sequence[Labelled]) -> tuple[Tensor, float]:
    """Summed cross-entropy of GOOD or BAD over every step of the batch, and the number of steps."""
    import torch

    good, bad = judge.verdict_ids
    logits = final_logits(judge.model, [_comb(judge, item) for item in batch], judge.packed).float()
    targets = torch.tensor([good if label else bad for item in batch for label in item.good])
    return torch.nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum"), float(len(targets))


def write_heldout(judge: RewardModel, heldout: Sequence[Sampled], layout: Layout, **metrics: float) -> None:
    """Write what judge and oracle make of held-out steps, from which stage `judge` counts the errors.

    A step that is cut has the score 0 that the stage gives it without asking.

    The stage's metrics are `metrics` and those that need no threshold: how many steps, and the Brier score, the mean
    squared distance between P(GOOD) and the oracle's label (0: always sure and right; 0.25: always one half).
    """
    scores = judge.read([_comb(judge, item.labelled) for item in heldout])
    steps = [
        HeldOutStep(item.task, kind, good, 0.0 if kind == ActionKind.CUT else score, logprob)
        for item, of_item in zip(heldout, scores, strict=True)
        for kind, good, score, logprob in zip(item.kinds, item.labelled.good, of_item, item.logprobs, strict=True)
    ]
    brier = sum((step.score - step.good) ** 2 for step in steps) / max(1, len(steps))
    save(steps, HeldOutStep, layout.heldout)
    save_json({**metrics, "heldout.n": len(steps), "heldout.brier": brier}, layout.metrics("reward_model"))
