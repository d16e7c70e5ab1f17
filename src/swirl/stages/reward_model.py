"""reward_model: the sound model taught to judge steps, on its own split, by the oracle's labels.

Trains on golden labels, as a share of the sound model's demonstrations does (verdicts to learn the words from): an
embedded world has no stronger model to ask. It learns from written
trajectories and from what the base itself does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swirl.actions import parse
from swirl.benchmarks.demonstrations import Flaws
from swirl.benchmarks.embedded import build
from swirl.benchmarks.oracle import label_steps
from swirl.demonstrating import demonstrator
from swirl.judging.reward import RewardModel
from swirl.layout import Layout
from swirl.models.local import load_model, load_tokenizer, save
from swirl.models.pretraining import Demonstration
from swirl.models.training import Schedule, train
from swirl.params import Params
from swirl.progress import Progress
from swirl.records import save_json, save_series
from swirl.rl.combs import Comb, pack
from swirl.rl.logprobs import final_logits
from swirl.rollout.engine import Policy
from swirl.seeds import derive, generator
from swirl.tools import Calculator, Search
from swirl.types import ActionKind, Derivation, Question, Trajectory
from swirl.wiring import attempts_with, load_policy, read_prompts, roll_out_all

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = {"mini-hotpotqa": 1 / 3, "mini-musique": 1 / 3, "mini-beerqa": 1 / 3, "mini-gsm8k": 1.0}
"""Benchmarks whose kind of question the base answers for the judge to learn from, and their shares of the count."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A conversation: its tokens, where each action ends, and whether the oracle calls it GOOD."""

    kind: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    good: tuple[bool, ...]


def run(params: Params, layout: Layout) -> None:
    """Train on sampled and written steps; measure error rates on further steps sampled from the base."""
    settings = params.reward_model
    base = load_policy(params, layout.model("base"), "base")
    sampled = _sampled(params, layout, base, settings.questions, "train")
    heldout = _sampled(params, layout, base, settings.heldout, "heldout")
    model = load_model(layout.model("ceiling"), params.runtime.device, params.runtime.attention)
    judge = RewardModel("reward", model, base.chat, read_prompts(params, layout).judge, workers=params.runtime.workers)
    series = _train(params, judge, [*sampled, *_written(params, layout, base)])
    save(model, load_tokenizer(layout.model("base")), layout.model("reward"))
    save_series(series, layout.series("reward_model"))
    save_json(error_rates(judge, heldout), layout.metrics("reward_model"))


def _sampled(params: Params, layout: Layout, base: Policy, count: int, part: str) -> list[Labelled]:
    """What the base does on questions of the reward split, labelled by the oracle."""
    seed = derive(params.seed, "reward model", part)
    labelled = []
    for name, share in SOURCES.items():
        built = build(name, "reward", max(1, round(count * share)), 2, 0.0, seed)
        tool = Search.over(built.passages, params.tools.search_results) if built.passages else Calculator()

        def tools_of(question: Question, tool: Search | Calculator = tool) -> dict[str, Search | Calculator]:
            return {tool.kind: tool}

        derivations = {derivation.question_id: derivation for derivation in built.derivations}
        todo = attempts_with(params, layout, built.questions, params.reward_model.samples, tools_of)
        made = roll_out_all(params, base, todo, params.reward_model.temperature, derive(seed, name))
        labelled += [label_trajectory(t, derivations[t.question_id]) for t in made if t.steps]
    return labelled


def label_trajectory(trajectory: Trajectory, derivation: Derivation) -> Labelled:
    """The oracle's labels of a trajectory's steps."""
    labels = label_steps(derivation, [step.action for step in trajectory.steps])
    ends = [len(trajectory.state_ids(k)) + len(step.token_ids) for k, step in enumerate(trajectory.steps)]
    return Labelled(derivation.kind, trajectory.state_ids(len(trajectory.steps)), tuple(ends), tuple(labels))


def _written(params: Params, layout: Layout, base: Policy) -> list[Labelled]:
    """Written trajectories, partly corrupted, of both kinds of task."""
    source = demonstrator(params, layout, "reward", "written")
    corruption = params.reward_model.corruption
    flaws = Flaws(corruption.contextual, corruption.anywhere)
    drawn: list[Demonstration] = []
    for _ in range(params.reward_model.demonstrations):
        drawn.append(source.search(params.base_model.hops, flaws))
        drawn.append(source.calculate(params.base_model.steps, flaws))
    return [_label_written(demonstration, base) for demonstration in drawn]


def _label_written(demonstration: Demonstration, base: Policy) -> Labelled:
    chat, ids, ends = base.chat, list(base.chat.prompt(demonstration.prompt)), []
    for turn in demonstration.turns:
        ids += chat.reply(turn.action)
        ends.append(len(ids))
        ids += chat.turn(turn.observation, closed=True) if turn.observation else ()
    labels = label_steps(demonstration.derivation, [parse(turn.action) for turn in demonstration.turns])
    return Labelled(demonstration.derivation.kind, tuple(ids), tuple(ends), tuple(labels))


def _train(params: Params, judge: RewardModel, labelled: Sequence[Labelled]) -> list[dict[str, float]]:
    """Cross-entropy of the verdict's first token, every step of a trajectory judged in one packed read."""
    settings, rng = params.reward_model, generator(params.seed, "reward model batches")
    order = _epochs(len(labelled), settings.steps * settings.batch_size, rng)
    series: list[dict[str, float]] = []
    with Progress(settings.steps, "reward_model") as bar:

        def batch_of(step: int) -> list[Labelled]:
            chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            return [labelled[index] for index in chosen]

        def loss_of(batch: Sequence[Labelled]) -> tuple[Tensor, float]:
            return verdict_loss(judge, batch)

        def report(step: int, metrics: dict[str, float]) -> None:
            series.append({"step": step, **metrics})
            bar.update(1, loss=metrics["loss"])

        schedule = Schedule(settings.steps, settings.adam_lr, settings.muon_lr)
        precision, workers = params.base_model.mixed_precision, params.runtime.workers
        train(judge.model, schedule, batch_of, loss_of, report, precision, workers)
    return series


def _epochs(count: int, draws: int, rng: random.Random) -> list[int]:
    """`draws` indices: whole shuffled passes."""
    order: list[int] = []
    while len(order) < draws:
        order += rng.sample(range(count), count)
    return order


def _comb(judge: RewardModel, item: Labelled) -> Comb:
    """The conversation as the trunk; behind each action the judge's turn and a verdict."""
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
    """From (label, verdict) pairs; a rate over nothing is 0."""
    good = [verdict for label, verdict in rows if label]
    bad = [verdict for label, verdict in rows if not label]
    return {
        "n": len(rows),
        "accuracy": sum(label == verdict for label, verdict in rows) / max(1, len(rows)),
        "tpr": sum(good) / max(1, len(good)),
        "fpr": sum(bad) / max(1, len(bad)),
    }
