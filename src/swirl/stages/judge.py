"""judge: a verdict on every step of every trajectory and on every outcome, made once for all filter strategies.

How often the reward model errs is counted here too, on the steps that `reward_model` held out: its errors are those of
verdicts at `judge.threshold`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from swirl.config.params import Params
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json
from swirl.core.row_groups import tables
from swirl.core.types import OUTCOME, HeldOutStep, Question, Stop, Trajectory, Verdict
from swirl.execution.engines import opened
from swirl.judging.heldout import error_rates
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.graders import load_reward_judges
from swirl.wiring.servers import print_usage
from swirl.wiring.verdict_blocks import Failures, StoredCases, Verdicts, judge_in_blocks


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    journal = _journal(params, layout)
    metrics = publish(Verdicts(params, layout, "judge", load_reward_judges), journal)
    errors = error_rates(load(HeldOutStep, layout.heldout), params.judge.threshold)
    save_json({**metrics, **errors}, layout.metrics("judge"))
    journal.finish()
    print_usage()


def publish(recipe: Verdicts, journal: Journal) -> dict[str, float]:
    """Write the verdicts of `recipe` on the synthesised trajectories; returns metrics."""
    params, layout = recipe.params, recipe.layout
    questions = {question.id: question for question in load(Question, layout.questions)}
    cases = StoredCases(layout.trajectories, questions, params.rollout.block_size)
    failures = Failures(params.check_steps.max_null_rate, *_counts(layout.trajectories))
    counted = Counter[tuple[bool, bool | None]]()

    def made() -> Iterator[Verdict]:
        with opened(params.execution, recipe) as engine, Progress(cases.trajectories, "judge") as bar:
            for verdict in judge_in_blocks(engine, cases, journal, failures, bar):
                counted[verdict.step == OUTCOME, verdict.good] += 1
                yield verdict
        failures.check()

    save(made(), Verdict, layout.verdicts)
    return _metrics(counted)


def _journal(params: Params, layout: Layout) -> Journal:
    sections: list[Any] = [params.seed, params.rollout.block_size, params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (params.judge, params.reward_model, params.actions)]
    inputs = [layout.trajectories, layout.questions, layout.model("reward")]
    inputs += [layout.root / params.prompts.judge, layout.root / params.tools.folder]
    return Journal(layout.root / ".swirl/journals/judge", fingerprint(digest("judge"), sections, inputs))


def _counts(path: Path) -> tuple[int, int]:
    """The number of steps in a file of trajectories, and of answers."""
    steps, answers = 0, 0
    for table in tables(Trajectory, path, ["steps", "stop"]):
        steps += pc.sum(pc.list_value_length(table["steps"])).as_py() or 0
        answers += table["stop"].to_pylist().count(Stop.ANSWERED)
    return steps, answers


def _metrics(counted: Mapping[tuple[bool, bool | None], int]) -> dict[str, float]:
    """Numbers and shares of verdicts on steps and on outcomes; `counted` is by (on an outcome, good)."""
    metrics: dict[str, float] = {}
    for name, of in (("steps", False), ("outcomes", True)):
        good, bad, null = (counted.get((of, word), 0) for word in (True, False, None))
        every = good + bad + null
        metrics |= {name: every, f"{name}_good": good / max(1, every), f"{name}_null": null / max(1, every)}
    return metrics
