"""How many questions, actions and tokens a run works on, at most, from params and the files that are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.official import OFFICIAL
from swirl.config.data import Benchmark
from swirl.config.params import Params, task_of
from swirl.core.splits import counts, files_of
from swirl.planning.sizes import UNKNOWN

CHARACTERS_A_TOKEN = 4
PROMPT_TOKENS = 250
"""Of a task's prompt and its question: the longest prompt here has 130."""


def questions(params: Params, root: Path, split: str) -> dict[str, float]:
    """Benchmark -> questions of a split, at most; NaN for `all` of a file whose size is not known."""
    folder, found = root / params.download.folder, dict[str, float]()
    for name, benchmark in params.download.benchmarks.items():
        asked = counts(benchmark).get(split, 0)
        if asked == "all":
            listed = benchmark.eval_ids if split == "evaluation" else None
            whole = _lines(folder / listed) if listed else None
            found[name] = _all(name, benchmark, split, folder) if whole is None else whole
        elif asked:
            found[name] = asked
    return found


def _all(name: str, benchmark: Benchmark, split: str, folder: Path) -> float:
    """Rows of the file that a split comes from: its lines where it is here, the official number, or NaN."""
    path = files_of(benchmark).get(split) or files_of(benchmark).get("train", "")
    rows = _lines(folder / path) if path.endswith(".jsonl") else None
    if rows is not None:
        return rows
    official = OFFICIAL[name].counts if name in OFFICIAL and benchmark.source != "own" else {}
    alone = benchmark.source == "hub" or path != files_of(benchmark).get("train")
    return official.get("evaluation" if alone and split == "evaluation" else "train", UNKNOWN)


def _lines(path: Path) -> int | None:
    """Lines of a file that hold something; None when it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What rolling out a split takes, at most."""

    trajectories: float = 0
    calls: float = 0
    tokens: float = 0
    """Each read or written once."""
    states: float = 0
    """Tokens of every state with its action: what a judge that is asked step by step reads."""

    def __add__(self, other: Rollouts) -> Rollouts:
        return Rollouts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def times(self, number: float) -> Rollouts:
        """So many of them."""
        return Rollouts(*(getattr(self, name) * number for name in self.__slots__))


def rollouts(params: Params, root: Path, split: str, samples: int) -> Rollouts:
    """With tools, `samples` trajectories a question."""
    made = Rollouts()
    for name, count in questions(params, root, split).items():
        steps = params.tasks[task_of(name, params.download.benchmarks[name])].max_steps
        action, step = params.rollout.max_action_tokens, step_tokens(params)
        states = steps * (PROMPT_TOKENS + action) + step * (steps * (steps - 1) // 2)
        made += Rollouts(1, steps, PROMPT_TOKENS + steps * step, states).times(count * samples)
    return made


def step_tokens(params: Params) -> int:
    """Tokens of an action and of what it is shown."""
    shown = params.tools.search_output_limit
    return params.rollout.max_action_tokens + (
        shown if params.tools.search_output_unit == "tokens" else shown // CHARACTERS_A_TOKEN
    )
