"""train: step-wise RL (`swirl`) or supervised fine-tuning (`sft`) of the base on the filtered steps.

Under `accelerate launch`, several processes train one model together, whole on each or dealt out over them
(`runtime.sharding`); the first one writes.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swirl.comb.gradients import recomputing
from swirl.comb.logprobs import check_packing
from swirl.comb.sampling import Sampling
from swirl.config.params import Params
from swirl.core.checkpoints import EVERY
from swirl.core.distributed import Processes, join, rank_and_count
from swirl.core.errors import DataError
from swirl.core.flights import report_smaller, smaller_flights
from swirl.core.journal import fingerprint
from swirl.core.layout import Layout
from swirl.core.memory import GivenBack
from swirl.core.records import save, save_json, save_series
from swirl.core.seeds import derive, generator
from swirl.core.types import Draw, SubTrajectory
from swirl.models.flops import matmul_flops
from swirl.models.loading import load_tokenizer
from swirl.models.loading import save as save_model
from swirl.models.masters import Masters, require_finite
from swirl.models.room import samples, training_ahead
from swirl.models.skipped import mark_skipped
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.rl.batches import shortage, state_batches, updates_of, visited
from swirl.rl.draws import chosen, draws_of
from swirl.rl.guard import Limits, Look, stop_reason
from swirl.rl.kept_states import States
from swirl.rl.pace import SpeedLog
from swirl.rl.resuming import Places, Resuming, Series
from swirl.rl.supervised import comb_of, supervised_gradients, supervised_work
from swirl.rl.trainer import SAMPLED_AT_ONCE, Settings, Trainer
from swirl.rollout.engine import Policy
from swirl.rollout.reading import AnyReader
from swirl.wiring.development import Development
from swirl.wiring.prompts import user_input_folders
from swirl.wiring.questions import questions_of
from swirl.wiring.rewards import fitted
from swirl.wiring.tools import Toolbox
from swirl.wiring.trainable import deal_out, dealt, finished, load_reference, load_trainable


def run(params: Params, layout: Layout, item: str) -> None:
    """Train the base with the method `item`, and save the model, its curves and its last metrics."""
    if item not in params.train.methods:
        if rank_and_count()[0] > 0:
            return
        shutil.rmtree(layout.model(item), ignore_errors=True)
        mark_skipped(layout.model(item), f"train.methods does not name {item}")
        save([], Draw, layout.draws(item))
        save_series([], layout.series(f"train-{item}"))
        save_json({}, layout.metrics(f"train-{item}"))
        return
    groups = States(layout.steps)
    if not len(groups):
        raise DataError(f"{layout.steps} holds no steps: the filter kept nothing; see reports/filters.json")
    processes = join(params.runtime.device)
    policy = load_trainable(params, layout, item)
    check_packing(policy.model, comb_of(groups[0]))
    lacks = item == "swirl" and params.train.lora is None
    ahead = training_ahead(policy.model, lacks, dealt(params, processes))
    peak = matmul_flops(policy.model.device, policy.model.dtype, params.runtime.workers) if processes.main else 0.0
    deal_out(params, policy.model)
    development = Development(params, layout, policy, processes, ahead)
    folder, mark = layout.root / f".swirl/checkpoints/train-{item}", _fingerprint(params, layout, item)
    places = processes.from_main(Places.open(folder, mark) if processes.main else None)
    assert places is not None
    development.resume(places.looks)
    train = {"swirl": train_swirl, "sft": train_sft}[item]
    pace = SpeedLog(layout.pace(f"train-{item}"), peak * processes.count) if processes.main else None
    series, draws = train(params, layout, policy, groups, development, places, processes, pace)
    model = finished(params, layout, item, policy.model, processes)
    smaller = processes.gather(smaller_flights())
    if processes.main:
        for found in smaller[1:]:
            report_smaller(found)
        shutil.rmtree(layout.model(item), ignore_errors=True)  # left by another run, when the stage runs without DVC
        base = layout.model("base")
        save_model(model, load_tokenizer(base), layout.model(item), base, layout.root)
        save(draws, Draw, layout.draws(item))
        save_series(series, layout.series(f"train-{item}"))
        last = _final(series)
        save_json(last | _seen(params, item, groups, int(last["step"])), layout.metrics(f"train-{item}"))
        places.finish()
    processes.wait()
    processes.leave()


def train_swirl(
    params: Params,
    layout: Layout,
    policy: Policy,
    groups: States,
    development: Development,
    places: Places,
    processes: Processes,
    pace: SpeedLog | None,
) -> tuple[Series, list[Draw]]:
    """Step-wise RL until the updates are done or the guard objects; leaves the last good weights in the policy.

    Returns the metrics of every update, and a sample of what was drawn.
    """
    settings = params.train.swirl
    reference = load_reference(params, layout)
    longest, asked = params.rollout.max_action_tokens, SAMPLED_AT_ONCE * params.train.token_budget
    ahead = training_ahead(policy.model, False, dealt(params, processes))
    flight = samples(policy.model, asked, longest, params.runtime.workers, ahead)
    flight.resume(places.looks.flight("samples", processes.rank))
    judge = fitted(development.judge, params.train.packed, params.train.token_budget)
    seed = _seed(params)
    options = Settings(
        states=settings.states,
        samples=settings.samples,
        sampling=Sampling(settings.temperature, max_tokens=longest),
        lr=settings.lr,
        warmup=settings.warmup,
        estimator=settings.estimator,
        kl_coefficient=settings.kl_coefficient,
        clip=settings.clip,
        packed=params.train.packed,
        token_budget=params.train.token_budget,
        workers=params.runtime.workers,
        seed=seed,
        recompute=params.train.gradient_checkpointing,
        cut_actions=settings.cut_actions,
        compared=settings.compared,
        kl_gradient=settings.kl_gradient,
        imitation=settings.imitation,
        iterations=settings.iterations,
    )
    trainer = Trainer(policy, reference, judge, options, processes, _readers(params, layout, policy), flight)
    if processes.main and (few := shortage(groups.sizes, settings.states)):
        print(f"warning: {few}", file=sys.stderr, flush=True)
    batches = state_batches(groups.sizes, settings.states, seed)
    updates = settings.updates
    if updates is None:
        assert settings.passes is not None
        updates = updates_of(settings.passes, groups.sizes, settings.states, seed)
    resuming = Resuming(places, trainer.masters, trainer.optimizer, processes)
    start, series, draws = resuming.resume()
    for _ in range(start):
        next(batches)

    def looks(done: int) -> bool:
        """Look at the development questions after so many updates; whether training goes on."""
        row = series[-1]
        row |= {f"recent_{key}": _recent(series, key, settings.check_every) for key in ("kl", "unjudged")}
        reason = _diverged(row)
        if not reason:
            row |= resuming.timed(development.look)
            reason = stop_reason(_looks(series), Limits(**settings.guard.model_dump()))
        if not (reason := processes.from_main(reason)):
            resuming.looked(done, series, draws)
            return True
        good = resuming.back()
        if good is None:
            raise DataError(f"guard: {reason}; and there is no checkpoint to go back to that can be read")
        if processes.main:
            print(f"guard: {reason}; keeping the checkpoint after update {good}")
        row |= {"stopped": 1.0, "kept_step": good}
        return False

    if not series:
        first = {"step": 0, "recent_kl": 0.0, "recent_unjudged": 0.0}
        series.append(first | resuming.timed(development.look))
        resuming.looked(0, series, draws)
    elif not resuming.looked_already:
        due = _due(start, settings.check_every, updates) or bool(_diverged(series[-1]))
        if due and not looks(start):
            return series, draws
    memory = GivenBack()
    with Progress(updates, "train swirl") as bar:
        bar.already(start)
        for number in range(start, updates):
            began = time.perf_counter()
            batch = groups.of(next(batches))
            row: dict[str, float] = {"step": number + 1, **trainer.update(number, batch)}
            if pace:
                pace.note(number + 1, time.perf_counter() - began, trainer.work)
            row |= development.sampled(trainer.drawn)
            series.append(row)
            keep = chosen(batch, settings.kept_states, seed, number + 1)
            kept = [draws_of(groups, keep, number + 1, policy.chat) for groups in trainer.drawn]
            draws += [draw for of_group in trainer.deal.merge(kept) for draw in of_group]
            bar.update(1, reward=row["reward"], kl=row.get("kl", math.nan))
            memory.after_step()
            look = _due(number + 1, settings.check_every, updates) or bool(_diverged(row))
            resuming.worked(number + 1, series, draws, look)
            if look and not looks(number + 1):
                break
    return series, draws


def _diverged(row: Mapping[str, float]) -> str:
    """Why weights that an update with these metrics made cannot be kept; empty where they can."""
    loss, norm = row.get("loss", 0.0), row.get("gradient_norm", 0.0)
    finite = math.isfinite(loss) and math.isfinite(norm)
    return "" if finite else f"the loss is {loss:g} and the gradient's norm {norm:g}; lower train.swirl.lr"


def _due(done: int, every: int, updates: int) -> bool:
    """Whether there is a look after so many updates: every so often, and after the last."""
    return done % every == 0 or done == updates


def _recent(series: Series, key: str, updates: int) -> float:
    """The mean of a metric over the last updates; over none (no action was read), what it was before."""
    values = [row[key] for row in series[-updates:] if key in row]
    before = [row[f"recent_{key}"] for row in series if f"recent_{key}" in row]
    return sum(values) / len(values) if values else before[-1]


def _seed(params: Params) -> int:
    return derive(params.seed, "train", "swirl")


def _seen(params: Params, item: str, groups: States, updates: int) -> dict[str, float]:
    """How many states the filter kept, how many of them shaped the saved weights, and how often on average."""
    kept = sum(groups.sizes)
    if item == "sft":
        return {"states_kept": kept, "states_visited": kept, "passes": params.train.sft.epochs}
    visits, different = visited(groups.sizes, params.train.swirl.states, _seed(params), updates)
    return {"states_kept": kept, "states_visited": different, "passes": visits / kept}


def _readers(params: Params, layout: Layout, policy: Policy) -> Callable[[str], AnyReader]:
    """What reads the actions on a training question, by its id."""
    toolbox, of_tools = Toolbox(params, layout), dict[tuple[str, tuple[str, ...]], AnyReader]()
    questions = {question.id: question for question in questions_of(layout, "train")}

    def reader(name: str) -> AnyReader:
        question = questions[name]
        key = question.task, question.tools
        if key not in of_tools:
            of_tools[key] = toolbox.reader(question, policy.chat)
        return of_tools[key]

    return reader


def _looks(series: Series) -> list[Look]:
    return [
        Look(
            row.get("development.reward"),
            row["recent_kl"],
            row.get("development.steps"),
            row["development.malformed"] + row["development.cut"] if "development.malformed" in row else None,
            row["recent_unjudged"],
        )
        for row in series
        if "recent_unjudged" in row
    ]


def train_sft(
    params: Params,
    layout: Layout,
    policy: Policy,
    groups: States,
    development: Development,
    places: Places,
    processes: Processes,
    pace: SpeedLog | None,
) -> tuple[Series, list[Draw]]:
    """Maximum likelihood of the stored actions, with a checkpoint every `EVERY` batches and after every epoch.

    Returns the metrics of every batch, and nothing drawn.
    """
    import torch

    settings = params.train.sft
    masters = Masters(policy.model)
    optimizer = torch.optim.AdamW(masters.tensors(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)
    resuming = Resuming(places, masters, optimizer, processes)
    done, series, _ = resuming.resume()
    size = settings.batch_size
    rounds = (len(groups) + size - 1) // size
    if done and done % rounds == 0 and not resuming.looked_already:
        series[-1] |= resuming.timed(development.look)
        resuming.looked(done, series)
    memory = GivenBack()
    with Progress(settings.epochs * rounds, "train sft") as bar:
        bar.already(done)
        for number in range(done, settings.epochs * rounds):
            epoch, place = divmod(number, rounds)
            order = generator(params.seed, "sft", epoch).sample(range(len(groups)), len(groups))
            batch = groups.of(order[place * size : (place + 1) * size])
            _set_rate(optimizer, settings.lr * (1 - number / (settings.epochs * rounds)))
            began = time.perf_counter()
            loss = _supervise(params, policy, masters, batch, processes)
            norm = masters.clip(settings.clip)
            require_finite(f"step {number + 1} of SFT", loss, norm, f"train.sft.lr ({settings.lr:g})")
            optimizer.step()
            masters.publish()
            series.append({"step": number + 1, "loss": loss, "gradient_norm": norm})
            seconds = time.perf_counter() - began
            if pace:
                pace.note(number + 1, seconds, supervised_work(policy.model, batch, params.train.packed))
            bar.update(1, loss=loss)
            memory.after_step()
            look = place + 1 == rounds
            if look or (number + 1) % EVERY:
                resuming.worked(number + 1, series, look=look)
            if look:
                series[-1] |= resuming.timed(development.look)
            if look or (number + 1) % EVERY == 0:
                resuming.looked(number + 1, series)
    return series, []


def _supervise(
    params: Params, policy: Policy, masters: Masters, batch: Sequence[list[SubTrajectory]], processes: Processes
) -> float:
    packed, token_budget, workers = params.train.packed, params.train.token_budget, params.runtime.workers
    with recomputing(policy.model, params.train.gradient_checkpointing):
        return supervised_gradients(policy.model, masters, batch, packed, token_budget, workers, processes)


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _fingerprint(params: Params, layout: Layout, item: str) -> str:
    method = {"swirl": params.train.swirl, "sft": params.train.sft}[item]
    adapter = params.train.lora
    sections: list[Any] = [params.seed, item, dict(params.tasks)]
    # More or fewer processes and workers, sharded or not, go on from the same checkpoint: only rounding differs.
    sections.append(params.runtime.model_dump(exclude={"processes", "sharding", "workers"}))
    sections += [part.model_dump() for part in (params.rollout, params.actions, params.tools)]
    sections += [params.judge.threshold, params.judge.retry_failed]
    sections += [part.model_dump() for part in params.judge.rewards]
    sections += [params.train.packed, params.train.token_budget, params.train.gradient_checkpointing]
    sections += [method.model_dump(), adapter.model_dump() if adapter else None, params.reward_model.model_dump()]
    inputs = [
        layout.steps,
        layout.model("base"),
        layout.model("reward"),
        layout.questions,
        layout.derivations,
        layout.logged,
    ]
    inputs += [layout.root / "data/index", layout.root / params.prompts.judge, *user_input_folders(params, layout)]
    return fingerprint(digest("train"), sections, inputs)


def _final(series: Series) -> dict[str, float]:
    """The last known value of every metric up to the kept step, and the first values of the development metrics."""
    last: dict[str, float] = {key: series[-1][key] for key in ("stopped", "kept_step") if key in series[-1]}
    for row in series:
        if row["step"] <= last.get("kept_step", series[-1]["step"]):
            last |= row
    first = {f"start.{key}": value for key, value in series[0].items() if "." in key}
    return {key: value for key, value in {**first, **last}.items() if math.isfinite(value)}
