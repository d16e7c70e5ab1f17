"""`swirl bench rl-step` and `swirl bench scaling`: one update of step-wise RL, packed, plain, and by TRL's GRPOTrainer.

All sides have the same states, G actions of a fixed length for each, the same reward (a function of the action's token
ids), KL coefficient and number format. A step is sampling, reward, log-probabilities of policy and reference, backward
pass and optimiser.

- packed: what `train.packed: true` does. It samples from the trunks' key-value caches, and reads equal actions in a
  state once.
- packed, KL by token: the same with `train.swirl.kl_gradient: token`, which lacks a part of the gradient.
- plain, equal once: what `train.packed: false` does. The same sampling, but each distinct action is read with its whole
  state.
- plain: like the one before, but every sampled action is a sequence of its own, equal or not, as in TRL.
- trl: TRL's own loop, set up to take the states' token ids as they are and to draw exactly as many tokens, with 8, 40
  or 200 sequences per forward pass; the reference is read only when the KL coefficient is not 0.
- as configured (of a model's folder): packed, but actions end where they end, as in training.

Plain and TRL are shown with the fastest of a few settings (tokens or sequences per forward pass, eager or sdpa
attention). In `scaling`, plain reads equal actions once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from swirl.bench import trl
from swirl.bench.measure import Result, fastest, forget_peak, interleave, repeat, settle, taken_mb
from swirl.bench.states import SHAPES, groups_of, model_of
from swirl.comb.combs import Comb, pack, tokens_of
from swirl.comb.sampling import Sampling
from swirl.core.errors import DataError
from swirl.core.types import SubTrajectory
from swirl.models.flops import Work, matmul_flops, matrix_flops
from swirl.models.loading import load_chat
from swirl.rl.objective import Pulls
from swirl.rl.trainer import Settings, Trainer
from swirl.rollout.engine import Policy

LENGTH = 12
"""Tokens of every sampled action of the embedded run."""


def rl_step(root: Path, cores: int, rounds: int, repeats: int, model: str = "embedded", kl: float = 0.04) -> Result:
    """Packed, plain and TRL, with G = 8; plain and TRL each at their fastest setting.

    `model` is one of `SHAPES`, with K = 5 states of five trajectories, or a model's folder, with the first 24 states of
    the run in `root`. `kl` 0 leaves the reference out of the loss, and in TRL out of the step.
    """
    if model not in SHAPES and not (root / model).is_dir():
        raise DataError(f"there is no model {model!r} to measure: it is a model's folder, {' or '.join(SHAPES)}")
    trl.check_installed()
    common = {"bench": "rl-step", "model": model, "kl": kl, "repeats": repeats}
    common |= {"attention": "sdpa", "dtype": "float32", "source": "run", "length": LENGTH, "warmup": 2}
    sides = _sides(common, cores) if model in SHAPES else _sides_of_a_run(root, common, cores)
    rows = fastest(interleave(root, sides, rounds), sides)
    about = {"bench": "rl-step", "cores": cores, "samples": 8}
    return {**about, "rows": [{"model": model, "kl": kl, **row} for row in rows]}


def _sides(common: Result, cores: int) -> list[Result]:
    """The sides of a model of `SHAPES`."""
    ours = {**common, "threads": 1, "workers": cores}
    packed = {**ours, "name": "packed", "packed": True, "token_budget": 8192}
    plain = {**ours, "packed": False}
    theirs = {**common, "name": "trl", "threads": cores}
    sides = [
        packed,
        {**packed, "name": "packed, KL by token", "by_token": True},
        {**plain, "name": "plain, equal once", "token_budget": 8192},
        {**plain, "name": "plain", "token_budget": 2048, "each": True},
        {**theirs, "rows": 40},
    ]
    if common["model"] == "embedded":  # a tiny model may be faster with other settings, and is cheap to try
        sides += [
            {**plain, "name": "plain", "token_budget": 8192, "each": True},
            {**plain, "name": "plain", "token_budget": 2048, "attention": "eager", "each": True},
            {**theirs, "rows": 40, "attention": "eager"},
            {**theirs, "rows": 200},
        ]
    return sides


def _sides_of_a_run(root: Path, common: Result, cores: int) -> list[Result]:
    """The sides of a model's folder: device, number format, adapter and tokens a forward are those of params.yaml.

    Actions are as long as the run's are on average, and, in the first side, as long as they get. TRL is tried with
    torch's fused attention and, on a CPU, with plain operations, which are faster there in half precision; on a GPU,
    which has room for it, with more sequences per forward pass.
    """
    from swirl.config import params as params_module

    params = params_module.load(root / "params.yaml")
    stored = [len(step.action_ids) for group in groups_of(root, "first") for step in group]
    common = {**common, "source": "first", "length": round(sum(stored) / len(stored)), "warmup": 1}
    common |= {"device": params.runtime.device, "dtype": params.runtime.dtype}
    common["lora"] = params.train.lora and params.train.lora.model_dump()
    packed = {**common, "threads": 1, "workers": cores, "packed": True, "token_budget": params.train.token_budget}
    packed["recompute"] = params.train.gradient_checkpointing
    on_cpu = params.runtime.device == "cpu"
    of_trl = [(8, "sdpa"), (8, "eager")] if on_cpu else [(rows, "sdpa") for rows in (8, 64, 192)]
    return [
        {**packed, "name": "as configured", "longest": params.rollout.max_action_tokens},
        {**packed, "name": "packed"},
        {**packed, "name": "plain, equal once", "packed": False},
        *({**common, "name": "trl", "threads": cores, "rows": rows, "attention": how} for rows, how in of_trl),
    ]


def scaling(root: Path, cores: int, rounds: int, repeats: int) -> Result:
    """Packed and plain for K = 2, 4, 8, 16 at a fixed step length, each at its own fastest token budget."""
    found: Result = {"bench": "scaling", "cores": cores, "samples": 8, "trajectories": 4, "rows": []}
    for states in (2, 4, 8, 16):
        common = {"bench": "rl-step", "model": "embedded", "kl": 0.04, "repeats": repeats, "source": str(states)}
        common |= {"threads": 1, "workers": cores, "attention": "sdpa", "dtype": "float32", "length": LENGTH}
        common["warmup"] = 2
        sides = [
            {**common, "packed": packed, "token_budget": budget, "name": "packed" if packed else "plain"}
            for packed in (True, False)
            for budget in ((1024, 2048, 8192) if packed else (2048, 8192))
        ]
        found["rows"] += [{"K": states, **row} for row in fastest(interleave(root, sides, rounds), sides)]
    return found


def run_side(side: Result) -> Result:
    """Run one side in this process."""
    import torch

    root = Path.cwd()
    groups = groups_of(root, side["source"])
    ours = side["name"] != "trl"
    library = None if ours else trl.library()
    model = model_of(root, side, adapted=ours)
    reference = model_of(root, side, adapted=False) if ours and not side.get("lora") else None
    before = taken_mb(model.device)
    forget_peak(model.device)
    result = _ours(model, reference, groups, side) if ours else trl.steps(library, model, groups, side, reward)
    peak = taken_mb(model.device, peak=True)
    return {
        **result,
        "peak_mb": peak - before,
        "process_mb": peak,
        "matmul_gflops": matmul_flops(model.device, getattr(torch, side["dtype"]), side.get("workers", 1)) / 1e9,
    }


def reward(ids: Sequence[int]) -> float:
    """A reward that is the same for every side and takes no time: a hash of the action's tokens, in [0, 1)."""
    return sum((i + 1) * token for i, token in enumerate(ids)) % 97 / 97


class _Scorer:
    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        return [[reward(tooth.ids) for tooth in comb.teeth] for comb in combs]


def _ours(model: Any, reference: Any | None, groups: list[list[SubTrajectory]], side: Result) -> Result:
    # Made-up tokens: no action ends early, and each counts as whole.
    chat: Any = SimpleNamespace(
        thinking=False, end_ids=frozenset(), said_by=lambda _: "", so_far=lambda _: "<answer> x </answer>"
    )
    if "longest" in side:
        chat = load_chat(Path.cwd() / side["model"])
    settings = Settings(
        states=sum(map(len, groups)),
        samples=8,
        sampling=Sampling(max_tokens=side["longest" if "longest" in side else "length"]),
        lr=1e-5,
        warmup=0,
        estimator="rloo",
        kl_coefficient=side["kl"],
        clip=1.0,
        packed=side["packed"],
        token_budget=side["token_budget"],
        workers=side["workers"],
        seed=0,
        recompute=side.get("recompute", False),
        kl_gradient="token" if side.get("by_token") else "sequence",
    )
    if reference is not None:
        reference.requires_grad_(False)
    trainer = Trainer(Policy("bench", model, chat, 1 << 30), reference, _Scorer(), settings)
    parts: dict[str, list[float]] = {"sample": [], "update": []}
    tokens: list[float] = []
    teeth: list[float] = []
    once: list[float] = []
    sample, gradients = trainer._sample, trainer._gradients

    def timed_sample(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = sample(*arguments)
        parts["sample"].append(time.perf_counter() - start)
        return result

    def timed_gradients(combs: Sequence[Comb], pulls: Pulls, drawn: float, before: Any) -> Any:
        first: Sequence[Sequence[int]] = [range(len(comb.teeth)) for comb in combs]
        once.append(float(sum(len(tooth.ids) for comb in combs for tooth in comb.teeth)))
        if side.get("each"):
            combs, pulls, first = _each(combs, pulls)
        start = time.perf_counter()
        result = gradients(combs, pulls, drawn, before)
        settle(model.device)
        parts["update"].append(time.perf_counter() - start)
        read, predicted = tokens_of(combs, side["packed"])
        tokens.append(read)
        teeth.append(predicted)
        return [[values[list(rows)] for values in comb] for comb, rows in zip(result, first, strict=True)]

    timed: Any = trainer
    timed._sample, timed._gradients = timed_sample, timed_gradients

    def step(number: int) -> None:
        trainer.update(number, groups)

    warmup = side["warmup"]
    seconds = repeat(step, warmup, side["repeats"])
    read, predicted = (sum(values[warmup:]) / len(values[warmup:]) for values in (tokens, teeth))
    work = trainer.work
    if more := read - work.tokens:  # equal actions, each read with its whole state
        flops = sum(matrix_flops(model, more, predicted - once[-1], training) for training in (True, False))
        work = Work(read, work.flops + flops)
    return {
        "seconds": seconds,
        "parts": {key: values[warmup:] for key, values in parts.items()},
        "tokens": read,
        "flops": work.flops,
    }


def _each(combs: Sequence[Comb], pulls: Pulls) -> tuple[list[Comb], Pulls, list[Sequence[int]]]:
    """Expand to one tooth for every draw, equal or not; also returns, by comb, the places of the first copies."""
    import torch

    times = pulls.draws.long()
    numbers = [of_comb.tolist() for of_comb in times.split([len(comb.teeth) for comb in combs])]
    expanded, firsts = [], list[Sequence[int]]()
    for comb, copies in zip(combs, numbers, strict=True):
        pairs = list(zip(comb.teeth, copies, strict=True))
        expanded.append(pack(comb.trunk, [(tooth.sees, tooth.ids) for tooth, n in pairs for _ in range(n)]))
        firsts.append([0, *accumulate(copies)][:-1])
    shared = (pulls.weight / pulls.draws).repeat_interleave(times)
    return expanded, Pulls(shared, torch.ones(len(shared)), torch.zeros(len(shared))), firsts
