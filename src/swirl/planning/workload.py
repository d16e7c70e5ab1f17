"""Upper bounds on the questions, actions and tokens of a run, from params and local files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.official import OFFICIAL
from swirl.config.data import Benchmark
from swirl.config.params import Params, task_of
from swirl.core.splits import counts, files_of
from swirl.planning.sizes import UNKNOWN

CHARACTERS_A_TOKEN = 4
PROMPT_TOKENS = 250
"""Tokens assumed for a task's prompt with its question; the longest prompt of this project has 130."""


def questions(params: Params, root: Path, split: str) -> dict[str, float]:
    """Benchmark -> questions of a split, at most; NaN for `all` of a file whose size is not known, and of logs."""
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
    """Rows of the file that a split is drawn from: its lines if it is here, else the official number, else NaN."""
    if benchmark.source == "logs":  # their lines are requests, of which a conversation has any number
        return UNKNOWN
    path = files_of(benchmark).get(split) or files_of(benchmark).get("train", "")
    rows = _lines(folder / path) if path.endswith(".jsonl") else None
    if rows is not None:
        return rows
    official = OFFICIAL[name].counts if name in OFFICIAL and benchmark.source != "own" else {}
    alone = benchmark.source == "hub" or path != files_of(benchmark).get("train")
    return official.get("evaluation" if alone and split == "evaluation" else "train", UNKNOWN)


def _lines(path: Path) -> int | None:
    """Number of lines of a file that are not blank; None when there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Upper bounds on the work of rolling out a split."""

    trajectories: float = 0
    calls: float = 0
    tokens: float = 0
    """Tokens of all trajectories, each read or written once."""
    states: float = 0
    """Tokens of every state with its action: what a judge reads that gets one request per step."""

    def __add__(self, other: Rollouts) -> Rollouts:
        return Rollouts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def times(self, number: float) -> Rollouts:
        """The same work, `number` times."""
        return Rollouts(*(getattr(self, name) * number for name in self.__slots__))


STEPS_TAKEN = 0.45
"""Of the steps that trajectories may take, those that they take: the share in the embedded default's run."""
TRAJECTORIES_KEPT = {"none": 1.0, "process": 0.4, "outcome": 0.4, "both": 0.35}
"""Of the trajectories, those that each filter keeps: the shares in the embedded default's run."""


def expected_states(params: Params, synthesised: Rollouts) -> float:
    """About how many states the filter keeps; NaN where the number of questions is not known."""
    if not synthesised.trajectories:
        return 0
    kept = kept_trajectories(params, synthesised.trajectories)
    return kept * STEPS_TAKEN * synthesised.calls / synthesised.trajectories


def kept_trajectories(params: Params, synthesised: float) -> float:
    """About how many of so many trajectories the filter keeps; NaN where it is not known how many there are."""
    limit = params.filter.max_trajectories
    filters = [params.filter.strategy, *(limit if isinstance(limit, list) else ())]
    kept = synthesised * min(TRAJECTORIES_KEPT[name] for name in filters)
    if params.filter.max_per_benchmark:
        trained = sum(bool(benchmark.train) for benchmark in params.download.benchmarks.values())
        kept = min(kept, params.filter.max_per_benchmark * trained)
    return min(kept, limit) if isinstance(limit, int) and limit else kept


def rl_updates(params: Params, states: float) -> float:
    """Updates of step-wise RL when the filter keeps so many states; NaN where these are not known."""
    swirl = params.train.swirl
    if swirl.updates is not None:
        return swirl.updates
    batch = max(1, min(swirl.states, states))
    return -(-(swirl.passes or 0) * states // batch)


def rollouts(
    params: Params, root: Path, split: str, samples: int, asked: Mapping[str, float] | None = None
) -> Rollouts:
    """Rollouts with tools of a split, or of so many questions of each benchmark as `asked` says.

    `samples` are the trajectories per question; of logs only their number is known.
    """
    made = Rollouts()
    for name, count in (questions(params, root, split) if asked is None else asked).items():
        if params.download.benchmarks[name].source == "logs":
            made += Rollouts(count, UNKNOWN, UNKNOWN, UNKNOWN)
            continue
        steps = params.tasks[task_of(name, params.download.benchmarks[name])].max_steps
        action, step = params.rollout.max_action_tokens, step_tokens(params)
        states = steps * (PROMPT_TOKENS + action) + step * (steps * (steps - 1) // 2)
        made += Rollouts(1, steps, PROMPT_TOKENS + steps * step, states).times(count * samples)
    return made


def step_tokens(params: Params) -> int:
    """Upper bound on the tokens of a step: an action and its observation."""
    shown = params.tools.search_output_limit
    return params.rollout.max_action_tokens + (
        shown if params.tools.search_output_unit == "tokens" else shown // CHARACTERS_A_TOKEN
    )
