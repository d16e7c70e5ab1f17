"""train: step-wise RL (`swirl`) or supervised fine-tuning (`sft`) of the base on the filtered steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from swirl.benchmarks.oracle import label_steps
from swirl.errors import DataError
from swirl.evaluation.scoring import judged_labels, mean
from swirl.grading import grade
from swirl.journal import fingerprint
from swirl.judges import load_reward_model
from swirl.layout import Layout
from swirl.models.local import load_model, load_tokenizer, save
from swirl.models.training import shared_gradients
from swirl.params import Params
from swirl.progress import Progress
from swirl.records import load, save_json, save_series
from swirl.rl.checkpoints import Checkpoints
from swirl.rl.combs import pack
from swirl.rl.guard import Limits, Look, objection
from swirl.rl.logprobs import check_packing
from swirl.rl.trainer import Settings, Trainer, by_trajectory, state_batches, supervised_loss
from swirl.rollout.engine import Policy
from swirl.seeds import derive, generator
from swirl.types import ActionKind, SubTrajectory, Trajectory
from swirl.wiring import (
    attempts,
    derivations_of,
    load_policy,
    own_files,
    questions_of,
    roll_out_all,
    sampling,
)

if TYPE_CHECKING:
    from torch import Tensor

Series = list[dict[str, float]]


def run(params: Params, layout: Layout, item: str) -> None:
    """Train the base by the method `item` and save the model, its curves and its last metrics."""
    groups = by_trajectory(load(SubTrajectory, layout.steps))
    if not groups:
        raise DataError(f"{layout.steps} holds no steps: the filter kept nothing; see reports/filters.json")
    policy = load_policy(params, layout.model("base"), item)
    first = pack(groups[0][-1].state_ids, [(len(step.state_ids), step.action_ids) for step in groups[0]])
    check_packing(policy.model, first, params.train.packed)
    development = Development(params, layout, policy)
    checkpoints = Checkpoints(layout.root / f".swirl/checkpoints/train-{item}", _fingerprint(params, layout, item))
    train = {"swirl": train_swirl, "sft": train_sft}[item]
    series = train(params, layout, policy, groups, development, checkpoints)
    save(policy.model, load_tokenizer(layout.model("base")), layout.model(item))
    save_series(series, layout.series(f"train-{item}"))
    save_json(_final(series), layout.metrics(f"train-{item}"))
    checkpoints.clear()


class Development:
    """What the policy does on the development questions: label-free for the guard, golden for the log alone."""

    def __init__(self, params: Params, layout: Layout, policy: Policy) -> None:
        self._params, self._policy = params, policy
        self._questions = {question.id: question for question in questions_of(layout, "development")}
        self._attempts = attempts(params, layout, self._questions.values(), 1)
        self._derivations = derivations_of(layout)
        self.judge = load_reward_model(params, layout)

    def look(self) -> dict[str, float]:
        """Greedy rollouts, judged; `golden.` keys come from golden labels, steer nothing. Empty without questions."""
        params = self._params
        self._policy.model.eval()
        made = roll_out_all(params, self._policy, self._attempts, 0.0, 0)
        scores = [value for row in self.judge.trajectory_scores(made) for value in row]
        steps = [step for trajectory in made for step in trajectory.steps]
        if not steps:
            return {}
        malformed = sum(step.action.kind == ActionKind.MALFORMED for step in steps)
        return {
            "development.reward": sum(scores) / len(scores),
            "development.steps": len(steps) / len(made),
            "development.malformed": malformed / len(steps),
            **self._golden(made),
        }

    def _golden(self, made: list[Trajectory]) -> dict[str, float]:
        """Accuracy by benchmark, the oracle's process label, and how often the reward model agrees with it."""
        right: dict[str, list[float]] = {}
        for trajectory in made:
            question = self._questions[trajectory.question_id]
            right.setdefault(question.benchmark, []).append(float(grade(trajectory.answer, question.answers)))
        golden = {f"golden.{name}.accuracy": sum(values) / len(values) for name, values in right.items()}
        known = [trajectory for trajectory in made if trajectory.question_id in self._derivations]
        if not known:
            return golden
        oracle = [label_steps(self._derivations[t.question_id], [s.action for s in t.steps]) for t in known]
        judged = judged_labels(self.judge, known, self._params.judge.threshold)
        pairs = [pair for o, j in zip(oracle, judged, strict=True) for pair in zip(o, j, strict=True)]
        golden["golden.process_label"] = sum(mean(labels) or 0.0 for labels in oracle) / len(oracle)
        golden["golden.judge_agreement"] = sum(o == j for o, j in pairs) / len(pairs)
        return golden


def train_swirl(
    params: Params,
    layout: Layout,
    policy: Policy,
    groups: list[list[SubTrajectory]],
    development: Development,
    checkpoints: Checkpoints,
) -> Series:
    """Step-wise RL until the updates are done or the guard objects; leaves the last good weights in the policy."""
    settings = params.train.swirl
    reference = load_model(layout.model("base"), params.runtime.device, params.runtime.attention)
    reference.requires_grad_(False)
    judge = dataclasses.replace(development.judge, packed=params.train.packed, token_budget=params.train.token_budget)
    seed = derive(params.seed, "train", "swirl")
    options = Settings(
        settings.states,
        settings.samples,
        sampling(params, settings.temperature),
        settings.lr,
        settings.warmup,
        settings.estimator,
        settings.kl_coefficient,
        settings.clip,
        params.train.packed,
        params.train.token_budget,
        params.runtime.workers,
        seed,
    )
    trainer = Trainer(policy, reference, judge, options)
    batches = state_batches(groups, settings.states, seed)
    series, start = _resume(checkpoints, policy, trainer.optimizer)
    for _ in range(start):
        next(batches)
    if not series:
        series = [{"step": 0, "recent_kl": 0.0, **development.look()}]
        checkpoints.save(0, policy.model, trainer.optimizer, {"series": series})
    with Progress(settings.updates, "train swirl") as bar:
        bar.update(start)
        for number in range(start, settings.updates):
            row: dict[str, float] = {"step": number + 1, **trainer.update(number, next(batches))}
            series.append(row)
            bar.update(1, reward=row["reward"], kl=row["kl"])
            if (number + 1) % settings.check_every and number + 1 < settings.updates:
                continue
            recent = [past["kl"] for past in series[-settings.check_every :] if "kl" in past]
            row |= {"recent_kl": sum(recent) / len(recent), **development.look()}
            looks = _looks(series)
            if looks and (reason := objection(looks, Limits(**settings.guard.model_dump()))):
                good = checkpoints.steps()[-1]
                print(f"guard: {reason}; keeping the checkpoint after update {good}")
                checkpoints.restore(good, policy.model, trainer.optimizer)
                row |= {"stopped": 1.0, "kept_step": good}
                return series
            checkpoints.save(number + 1, policy.model, trainer.optimizer, {"series": series})
    return series


def _looks(series: Series) -> list[Look]:
    return [
        Look(row["development.reward"], row["recent_kl"], row["development.steps"], row["development.malformed"])
        for row in series
        if "development.reward" in row
    ]


def train_sft(
    params: Params,
    layout: Layout,
    policy: Policy,
    groups: list[list[SubTrajectory]],
    development: Development,
    checkpoints: Checkpoints,
) -> Series:
    """Maximum likelihood of the stored actions; one checkpoint an epoch."""
    import torch

    settings = params.train.sft
    parameters = list(policy.model.parameters())

    def loss_of(batch: Sequence[list[SubTrajectory]]) -> tuple[Tensor, float]:
        return supervised_loss(policy.model, batch, params.train.packed)

    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)
    series, done = _resume(checkpoints, policy, optimizer)
    size = settings.batch_size
    rounds = (len(groups) + size - 1) // size
    with Progress(settings.epochs * rounds, "train sft") as bar:
        bar.update(done * rounds)
        for epoch in range(done, settings.epochs):
            order = generator(params.seed, "sft", epoch).sample(range(len(groups)), len(groups))
            for first in range(0, len(groups), size):
                batch = [groups[index] for index in order[first : first + size]]
                step = len(series)
                _set_rate(optimizer, settings.lr * (1 - step / (settings.epochs * rounds)))
                loss = shared_gradients(parameters, batch, loss_of, nullcontext, params.runtime.workers)
                norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
                optimizer.step()
                series.append({"step": step + 1, "loss": loss, "gradient_norm": float(norm)})
                bar.update(1, loss=series[-1]["loss"])
            series[-1] |= development.look()
            checkpoints.save(epoch + 1, policy.model, optimizer, {"series": series})
    return series


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _resume(checkpoints: Checkpoints, policy: Policy, optimizer: Any) -> tuple[Series, int]:
    """The metrics so far and how far the run had come; weights and moments are put back in place."""
    steps = checkpoints.steps()
    if not steps:
        return [], 0
    print(f"resuming after {steps[-1]}")
    return list(checkpoints.restore(steps[-1], policy.model, optimizer)["series"]), steps[-1]


def _fingerprint(params: Params, layout: Layout, item: str) -> str:
    method = {"swirl": params.train.swirl, "sft": params.train.sft}[item]
    sections: list[Any] = [params.seed, item, dict(params.tasks), params.judge.model_dump()]
    sections += [part.model_dump() for part in (params.runtime, params.rollout, params.tools)]
    sections += [params.train.packed, params.train.token_budget, method.model_dump()]
    inputs = [layout.steps, layout.model("base"), layout.model("reward"), layout.questions, layout.derivations]
    inputs += [layout.root / "data/index", layout.root / params.prompts.judge, *own_files(params, layout)]
    return fingerprint(sections, inputs)


def _final(series: Series) -> dict[str, float]:
    """The last known value of every metric up to the step that is kept, and the first of the development ones."""
    last: dict[str, float] = {key: series[-1][key] for key in ("stopped", "kept_step") if key in series[-1]}
    for row in series:
        if row["step"] <= last.get("kept_step", series[-1]["step"]):
            last |= row
    first = {f"start.{key}": value for key, value in series[0].items() if "." in key}
    return {**first, **last}
