"""`swirl bench paper-scale`: the tables of a run of the paper's size, from the journal into training's first batch.

Scripted trajectories (`swirl.bench.scripted`), 87,500 as in the paper and a quarter and a half of them, go through the
stages' own code: blocks are committed to the journal and become the table of trajectories, a scripted judge fills the
table of verdicts, the filter and both gates run, and training indexes the states and reads the first batch. No model is
loaded. Each size has a process of its own, whose peak is counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.bench.measure import Result, resident_mb, run
from swirl.config import presets
from swirl.config.params import Params, validate

if TYPE_CHECKING:
    from swirl.core.layout import Layout
    from swirl.wiring.verdict_blocks import Verdicts

SIZES = (21_875, 43_750, 87_500)
"""Numbers of trajectories; the last is the paper's: 10,000 questions of HotPotQA and 7,500 of GSM8K, five each."""

CHANGES = {
    "tasks": {"search": {"tools": ["search"], "max_steps": 7}, "calculate": {"tools": ["calculator"], "max_steps": 7}},
    "rollout": {"block_size": 2_000},
    "train": {"swirl": {"states": 64}},
}
"""What differs from the preset mini; blocks and batches are those of the preset gemma-2-27b."""


def paper_scale(root: Path, sizes: Sequence[int] = SIZES) -> Result:
    """Trajectories, steps, seconds and peak memory (MB) of each size. Nothing in `root` changes."""
    rows = []
    for size in sizes:
        side = {"bench": "paper-scale", "name": f"{size} trajectories", "trajectories": size, "threads": 1}
        result = run(root, side)
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.pop("parts").items())
        print(f"{size:,} trajectories: {parts}", file=sys.stderr, flush=True)
        rows.append(result)
    return {"sizes": rows}


def run_side(side: Result) -> Result:
    """Run one size in this process, in a folder that is deleted after."""
    tree = presets.laid_over(presets.tree(Path.cwd(), "mini"), CHANGES)
    with tempfile.TemporaryDirectory(prefix="swirl-paper-scale-") as folder:
        began, parts = time.perf_counter(), dict[str, float]()
        steps = tables(validate(tree, "paper-scale"), Path(folder), int(side["trajectories"]), parts)
        seconds = time.perf_counter() - began
    return {
        "trajectories": side["trajectories"],
        "steps": steps,
        "seconds": round(seconds, 2),
        "peak_mb": round(resident_mb("VmHWM"), 1),
        "parts": parts,
    }


def tables(params: Params, root: Path, size: int, parts: dict[str, float]) -> int:
    """Make all tables of `size` trajectories in the project folder `root`, as the stages do.

    Adds the seconds of each part to `parts`; returns the number of steps.
    """
    from swirl.bench.scripted import SAMPLES, Script, write_tokenizer
    from swirl.core.journal import Journal
    from swirl.core.layout import Layout
    from swirl.core.records import load_json, save
    from swirl.core.types import Question, Trajectory

    layout, script = Layout(root), Script()
    save(map(script.question, range(-(-size // SAMPLES))), Question, layout.questions)
    write_tokenizer(layout.model("base"))

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        parts[name] = parts.get(name, 0.0) + time.perf_counter() - start
        return result

    judged = Journal(root / ".swirl/journals/judge", "scripted")
    journal, starts = Journal(layout.trajectories_journal, "scripted"), range(0, size, params.rollout.block_size)
    for number, start in enumerate(starts):
        block = [script.trajectory(n) for n in range(start, min(size, start + params.rollout.block_size))]
        timed("journal", partial(journal.commit, number, Trajectory, block))
    timed("table of trajectories", lambda: _stage("synthesize").publish(journal, len(starts), layout))
    timed("check_trajectories", lambda: _stage("check_trajectories").run(params, layout))
    timed("judge", lambda: _stage("judge").publish(scripted_verdicts(params, layout), judged))
    timed("filter", lambda: _stage("filter").run(params, layout))
    timed("check_steps", lambda: _stage("check_steps").run(params, layout))
    timed("first batch", lambda: _first_batch(params, layout))
    return int(load_json(layout.metrics("synthesize"))["steps"])


def scripted_verdicts(params: Params, layout: Layout) -> Verdicts:
    """The verdicts of a `ScriptedJudge`; answers are compared."""
    from swirl.bench.scripted import ScriptedJudge
    from swirl.wiring.verdict_blocks import Verdicts

    return Verdicts(params, layout, "judge", lambda params, layout: (ScriptedJudge(), None))


def _stage(name: str) -> Any:
    """The module of a stage, found by its name as `swirl stage` finds it."""
    return import_module(f"swirl.stages.{name}")


def _first_batch(params: Params, layout: Layout) -> list[Any]:
    """The first batch of step-wise RL, as combs of the stored actions."""
    from swirl.rl.batches import state_batches
    from swirl.rl.kept_states import States
    from swirl.rl.supervised import comb_of

    states = States(layout.steps)
    return [comb_of(group) for group in states.of(next(state_batches(states.sizes, params.train.swirl.states, 0)))]
