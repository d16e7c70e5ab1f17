"""`swirl bench rl-step` and `swirl bench scaling`: one update of step-wise RL, packed, plain, and by TRL's GRPOTrainer.

All sides have the same states, G actions of a fixed length for each, the same reward (a function of the action's token
ids) and the same KL coefficient. A step is sampling, reward, log-probabilities of policy and reference, backward pass
and optimiser.

- packed: what `train.packed: true` does. It samples from the trunks' key-value caches, and reads equal actions in a
  state once.
- packed, KL by token: the same with `train.swirl.kl_gradient: token`, which lacks a part of the gradient.
- plain, equal once: what `train.packed: false` does. The same sampling, but each distinct action is read with its whole
  state.
- plain: like the one before, but every sampled action is a sequence of its own, equal or not, as in TRL.
- trl: TRL's own loop, set up to take the states' token ids as they are and to draw exactly as many tokens, with 40 or
  200 sequences per forward pass; the reference is read only when the KL coefficient is not 0.

Plain and TRL are shown with the fastest of a few settings (tokens or sequences per forward pass, eager or sdpa
attention). In `scaling`, plain reads equal actions once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from swirl.bench import trl
from swirl.bench.measure import Result, forget_peak, interleave, repeat, resident_mb
from swirl.comb.combs import Comb, pack, tokens_of
from swirl.comb.sampling import Sampling
from swirl.core.errors import DataError
from swirl.core.types import SubTrajectory
from swirl.models.flops import matmul_flops, matrix_flops
from swirl.rl.trainer import Settings, Trainer
from swirl.rollout.engine import Policy

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 12
"""Tokens of every sampled action."""
SHAPES = {
    "embedded": {"hidden": 128, "layers": 4, "heads": 4, "feed_forward": 384},
    "30m": {"hidden": 384, "layers": 12, "heads": 6, "feed_forward": 1152},
}


def rl_step(root: Path, cores: int, rounds: int, repeats: int, model: str = "embedded", kl: float = 0.04) -> Result:
    """Packed, plain and TRL at K = 5 states a trajectory and G = 8; plain and TRL each at their fastest setting.

    `model` is one of `SHAPES`; `kl` 0 leaves the reference out of the loss, and in TRL out of the step.
    """
    if model not in SHAPES:
        raise DataError(f"there is no model {model!r} to measure; there are {', '.join(SHAPES)}")
    trl.check_installed()
    common = {"bench": "rl-step", "model": model, "kl": kl, "repeats": repeats, "source": "run"}
    ours = {**common, "threads": 1, "workers": cores}
    packed = {**ours, "name": "packed", "packed": True, "token_budget": 8192, "attention": "sdpa"}
    plain = {**ours, "packed": False}
    theirs = {**common, "name": "trl", "threads": cores}
    sides = [
        {**ours, "name": "packed", "packed": True, "token_budget": 8192, "attention": "sdpa"},
        {**packed, "name": "packed, KL by token", "by_token": True},
        {**plain, "name": "plain, equal once", "token_budget": 8192, "attention": "sdpa"},
        {**plain, "name": "plain", "token_budget": 2048, "attention": "sdpa", "each": True},
        {**theirs, "rows": 40, "attention": "sdpa"},
    ]
    if model == "embedded":  # a tiny model may be faster with other settings, and is cheap to try
        sides += [
            {**plain, "name": "plain", "token_budget": 8192, "attention": "sdpa", "each": True},
            {**plain, "name": "plain", "token_budget": 2048, "attention": "eager", "each": True},
            {**theirs, "rows": 40, "attention": "eager"},
            {**theirs, "rows": 200, "attention": "sdpa"},
        ]
    rows = _fastest(interleave(root, sides, rounds), sides)
    about = {"bench": "rl-step", "cores": cores, "states": 25, "trajectories": 5, "samples": 8}
    return {**about, "rows": [{"model": model, "kl": kl, **row} for row in rows]}


def _fastest(rows: Sequence[Result], sides: Sequence[Result]) -> list[Result]:
    """The fastest side of each name, with its settings."""
    best: dict[str, Result] = {}
    for row, side in zip(rows, sides, strict=True):
        settings: Result = {key: side[key] for key in ("token_budget", "rows", "attention") if key in side}
        if row["name"] not in best or row["seconds"] < best[row["name"]]["seconds"]:
            best[row["name"]] = {**row, **settings}
    return list(best.values())


def scaling(root: Path, cores: int, rounds: int, repeats: int) -> Result:
    """Packed and plain for K = 2, 4, 8, 16 at a fixed step length, each at its own fastest token budget."""
    found: Result = {"bench": "scaling", "cores": cores, "samples": 8, "trajectories": 4, "rows": []}
    for states in (2, 4, 8, 16):
        common = {"bench": "rl-step", "model": "embedded", "kl": 0.04, "repeats": repeats, "source": str(states)}
        common |= {"threads": 1, "workers": cores, "attention": "sdpa"}
        sides = [
            {**common, "packed": packed, "token_budget": budget, "name": "packed" if packed else "plain"}
            for packed in (True, False)
            for budget in ((1024, 2048, 8192) if packed else (2048, 8192))
        ]
        found["rows"] += [{"K": states, **row} for row in _fastest(interleave(root, sides, rounds), sides)]
    return found


def run_side(side: Result) -> Result:
    """Run one side in this process."""
    import torch

    root = Path.cwd()
    groups = _groups(root, side["source"])
    model = _model(root, side["model"], side["attention"])
    if side["name"] == "trl":
        library = trl.library()
        before = resident_mb()
        forget_peak()
        result = trl.steps(library, model, groups, side, LENGTH, reward)
    else:
        reference = _model(root, side["model"], side["attention"])
        before = resident_mb()
        forget_peak()
        result = _ours(model, reference, groups, side)
    peak = resident_mb("VmHWM") - before
    return {
        **result,
        "peak_mb": peak,
        "matmul_gflops": matmul_flops("cpu", torch.float32, side.get("workers", 1)) / 1e9,
    }


def reward(ids: Sequence[int]) -> float:
    """A reward that is the same for every side and takes no time: a hash of the action's tokens, in [0, 1)."""
    return sum((i + 1) * token for i, token in enumerate(ids)) % 97 / 97


class _Scorer:
    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        return [[reward(tooth.ids) for tooth in comb.teeth] for comb in combs]


def _ours(model: Any, reference: Any, groups: list[list[SubTrajectory]], side: Result) -> Result:
    # Made-up tokens: no action ends early, and each counts as whole.
    chat: Any = SimpleNamespace(end_ids=frozenset(), said_by=lambda _: "", so_far=lambda _: "<answer> x </answer>")
    settings = Settings(
        states=sum(map(len, groups)),
        samples=8,
        sampling=Sampling(max_tokens=LENGTH),
        lr=1e-5,
        warmup=0,
        estimator="rloo",
        kl_coefficient=side["kl"],
        clip=1.0,
        packed=side["packed"],
        token_budget=side["token_budget"],
        workers=side["workers"],
        seed=0,
        kl_gradient="token" if side.get("by_token") else "sequence",
    )
    reference.requires_grad_(False)
    trainer = Trainer(Policy("bench", model, chat, 1 << 30), reference, _Scorer(), settings)
    parts: dict[str, list[float]] = {"sample": [], "update": []}
    tokens: list[float] = []
    teeth: list[float] = []
    sample, gradients = trainer._sample, trainer._gradients

    def timed_sample(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = sample(*arguments)
        parts["sample"].append(time.perf_counter() - start)
        return result

    def timed_gradients(combs: Sequence[Comb], weight: Tensor, count: Tensor, drawn: float, before: Any) -> Any:
        first: Sequence[Sequence[int]] = [range(len(comb.teeth)) for comb in combs]
        if side.get("each"):
            combs, weight, count, first = _each(combs, weight, count)
        start = time.perf_counter()
        result = gradients(combs, weight, count, drawn, before)
        parts["update"].append(time.perf_counter() - start)
        read, predicted = tokens_of(combs, side["packed"])
        tokens.append(read)
        teeth.append(predicted)
        return [[values[list(rows)] for values in comb] for comb, rows in zip(result, first, strict=True)]

    timed: Any = trainer
    timed._sample, timed._gradients = timed_sample, timed_gradients

    def step(number: int) -> None:
        trainer.update(number, groups)

    seconds = repeat(step, 2, side["repeats"])
    sampled = 8 * LENGTH * settings.states
    drawn = sum(len(group[-1].state_ids) for group in groups) + sampled
    read, predicted = (sum(values[2:]) / len(values[2:]) for values in (tokens, teeth))
    flops = matrix_flops(model, drawn, sampled, False)
    flops += matrix_flops(model, read, predicted, True) + matrix_flops(model, read, predicted, False)
    return {
        "seconds": seconds,
        "parts": {key: values[2:] for key, values in parts.items()},
        "tokens": read,
        "flops": flops,
    }


def _each(
    combs: Sequence[Comb], weight: Tensor, count: Tensor
) -> tuple[list[Comb], Tensor, Tensor, list[Sequence[int]]]:
    """Expand to one tooth for every draw, equal or not; also returns, by comb, the places of the first copies."""
    import torch

    times = count.long()
    numbers = [of_comb.tolist() for of_comb in times.split([len(comb.teeth) for comb in combs])]
    expanded, firsts = [], list[Sequence[int]]()
    for comb, copies in zip(combs, numbers, strict=True):
        pairs = list(zip(comb.teeth, copies, strict=True))
        expanded.append(pack(comb.trunk, [(tooth.sees, tooth.ids) for tooth, n in pairs for _ in range(n)]))
        firsts.append([0, *accumulate(copies)][:-1])
    return expanded, (weight / count).repeat_interleave(times), torch.ones(int(times.sum())), firsts


def _model(root: Path, name: str, attention: str) -> Any:
    """The base of the default run if there is one and `name` is embedded, else a model with random weights."""
    from swirl.models.loading import load_model
    from swirl.pretraining.architectures import random_qwen3

    folder = root / "models/base"
    if name == "embedded" and (folder / "config.json").exists():
        return load_model(folder, "cpu", attention)
    return random_qwen3(
        _Vocabulary(1411 if name == "embedded" else 16384), **SHAPES[name], context=4096, attention=attention, seed=0
    ).eval()


class _Vocabulary:
    """The part of a tokenizer that the configuration of a random model needs."""

    pad_token_id, eos_token_id = 0, 1

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def _groups(root: Path, source: str) -> list[list[SubTrajectory]]:
    """Five trajectories of the default run with five states each, or four made-up ones with `source` states each."""
    from swirl.core.layout import Layout
    from swirl.core.records import load
    from swirl.rl.batches import by_trajectory

    if source != "run":
        rng = random.Random(0)
        made = []
        for name in range(4):
            trunk = tuple(rng.randrange(10, 1400) for _ in range(40 + 24 * int(source)))
            made.append(
                [SubTrajectory(str(name), "q", "b", k, trunk[: 40 + 24 * k], (5,), 0.5) for k in range(int(source))]
            )
        return made
    path = Layout(root).steps
    if not path.exists():
        raise DataError(f"{path} does not exist; `swirl bench rl-step` reads the states of a run: `dvc repro` first")
    chosen = [group[:5] for group in by_trajectory(load(SubTrajectory, path)) if len(group) >= 5][:5]
    if len(chosen) < 5:
        raise DataError(f"{path} has only {len(chosen)} trajectories of five steps; the benchmark needs five")
    return chosen
