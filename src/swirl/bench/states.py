"""Models and states of the benchmarks of a step of RL."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from swirl.bench.measure import Result
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import SubTrajectory
from swirl.rl.kept_states import States

SHAPES = {
    "embedded": {"hidden": 128, "layers": 4, "heads": 4, "feed_forward": 384},
    "30m": {"hidden": 384, "layers": 12, "heads": 6, "feed_forward": 1152},
}


def model_of(root: Path, side: Result, adapted: bool) -> Any:
    """The side's model: a folder's, or one of `SHAPES`, which has random weights but for the default run's base.

    With `adapted`, it has the side's adapter, if there is one.
    """
    from swirl.models import adapters
    from swirl.models.loading import load_model
    from swirl.pretraining.architectures import random_qwen3

    name, attention = side["model"], side["attention"]
    folder = root / ("models/base" if name == "embedded" else name)
    if name not in SHAPES or (name == "embedded" and (folder / "config.json").exists()):
        model = load_model(folder, side.get("device", "cpu"), attention, side["dtype"])
    else:
        vocabulary = _Vocabulary(1411 if name == "embedded" else 16384)
        model = random_qwen3(vocabulary, **SHAPES[name], context=4096, attention=attention, seed=0).eval()
    if adapted and (lora := side.get("lora")):
        adapters.add(model, lora["rank"], lora["alpha"], lora["targets"], 0)
    return model


class _Vocabulary:
    """The part of a tokenizer that the configuration of a random model needs."""

    pad_token_id, eos_token_id = 0, 1

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def groups_of(root: Path, source: str) -> list[list[SubTrajectory]]:
    """The states of a step, by trajectory.

    `source` is run (five trajectories of the run in `root` with five states each), first (its first 24 states), or a
    number (four made-up trajectories with so many states each).
    """
    if source.isdigit():
        return _made_up(int(source))
    path = Layout(root).steps
    if not path.exists():
        raise DataError(f"{path} does not exist; `swirl bench rl-step` reads the states of a run: `dvc repro` first")
    states = States(path)
    if source == "first":
        return _first(states, 24, path)
    chosen = [group[:5] for group in states.of([n for n, size in enumerate(states.sizes) if size >= 5][:5])]
    if len(chosen) < 5:
        raise DataError(f"{path} has only {len(chosen)} trajectories of five steps; the benchmark needs five")
    return chosen


def _first(states: States, count: int, path: Path) -> list[list[SubTrajectory]]:
    """The first trajectories with so many states together; of the last one, only its first states."""
    chosen: list[list[SubTrajectory]] = []
    for group in states:
        if left := count - sum(map(len, chosen)):
            chosen.append(group[:left])
        else:
            return chosen
    if sum(map(len, chosen)) < count:
        raise DataError(f"{path} has only {sum(states.sizes)} steps; the benchmark needs {count}")
    return chosen


def _made_up(states: int) -> list[list[SubTrajectory]]:
    rng = random.Random(0)
    made = []
    for name in range(4):
        trunk = tuple(rng.randrange(10, 1400) for _ in range(40 + 24 * states))
        made.append([SubTrajectory(str(name), "q", "b", k, trunk[: 40 + 24 * k], (5,), 0.5) for k in range(states)])
    return made
