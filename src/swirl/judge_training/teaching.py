"""Teaching a judge: from conversations whose actions are labelled GOOD or BAD to a reward model and its error rates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swirl.benchmarks import oracle
from swirl.comb.combs import Comb, pack
from swirl.comb.logprobs import final_logits
from swirl.core.checkpoints import Checkpoints
from swirl.core.types import ActionKind, Derivation, Trajectory
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

    kind: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    good: tuple[bool, ...]


def label_trajectory(trajectory: Trajectory, derivation: Derivation) -> Labelled:
    """A trajectory with the oracle's labels of its steps."""
    labels = oracle.label_trajectory(derivation, trajectory)
    ends = [len(trajectory.state_ids(k)) + len(step.token_ids) for k, step in enumerate(trajectory.steps)]
    return Labelled(derivation.kind, trajectory.state_ids(len(trajectory.steps)), tuple(ends), tuple(labels))


def label_written(demonstration: Demonstration, chat: Chat) -> Labelled:
    """A written conversation with the oracle's labels of its steps."""
    ids, ends = list(chat.prompt(demonstration.prompt)), []
    for turn in demonstration.turns:
        ids += chat.reply(turn.action)
        ends.append(len(ids))
        ids += chat.turn(turn.observation, closed=True) if turn.observation else ()
    labels = oracle.label_steps(demonstration.derivation, [parse(turn.action) for turn in demonstration.turns])
    return Labelled(demonstration.derivation.kind, tuple(ids), tuple(ends), tuple(labels))


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
    """
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


def _comb(judge: RewardModel, item: Labelled) -> Comb:
    """The conversation as the trunk, and for each action a tooth with the judge's turn and a verdict."""
    questions = {c: (*judge.question_ids(c), judge.verdict_ids[0]) for c in (True, False)}
    return pack(item.ids, [(end, questions[item.ids[end - 1] in judge.chat.end_ids]) for end in item.ends])


def verdict_loss(judge: RewardModel, batch: Sequence[Labelled]) -> tuple[Tensor, float]:
    """Summed cross-entropy of GOOD or BAD over every step of the batch, and the number of steps."""
    import torch

    good, bad = judge.verdict_ids
    logits = final_logits(judge.model, [_comb(judge, item) for item in batch], judge.packed).float()
    targets = torch.tensor([good if label else bad for item in batch for label in item.good])
    return torch.nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum"), float(len(targets))


def error_rates(judge: RewardModel, heldout: Sequence[Labelled]) -> dict[str, float]:
    """Accuracy, true- and false-positive rates against the oracle on steps sampled from the base, by kind of task."""
    scores = judge.read([_comb(judge, item) for item in heldout])
    rows = [
        (item.kind, label, score >= 0.5)
        for item, of_item in zip(heldout, scores, strict=True)
        for label, score in zip(item.good, of_item, strict=True)
    ]
    metrics: dict[str, float] = {}
    for kind in ("", ActionKind.SEARCH, ActionKind.CALCULATE):
        chosen_rows = [(label, verdict) for of_kind, label, verdict in rows if kind in ("", of_kind)]
        name = f"heldout.{kind}." if kind else "heldout."
        metrics |= {f"{name}{key}": value for key, value in _rates(chosen_rows).items()}
    return metrics


def _rates(rows: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Count, accuracy, true- and false-positive rate of (label, verdict) pairs; a rate over no pairs is 0."""
    good = [verdict for label, verdict in rows if label]
    bad = [verdict for label, verdict in rows if not label]
    return {
        "n": len(rows),
        "accuracy": sum(label == verdict for label, verdict in rows) / max(1, len(rows)),
        "tpr": sum(good) / max(1, len(good)),
        "fpr": sum(bad) / max(1, len(bad)),
    }
