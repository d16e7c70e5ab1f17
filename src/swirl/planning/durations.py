"""`swirl plan --time`: about how long each stage takes, from the work that it is expected to do and measured speeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from pathlib import Path

from swirl.config.params import Params
from swirl.core.errors import ModelError
from swirl.pipeline.progress import Progress
from swirl.planning.earlier import Earlier, earlier
from swirl.planning.expected import Expected, Talk, Work, count, mean
from swirl.planning.speeds import Speeds, load, measure, pieces, weights
from swirl.reporting.format import duration

SPLITS = ("train", "evaluation", "pretrain", "reward", "development")


ENOUGH = 0.9
"""The share of its cores with which a process is not slowed by others."""


def lines(params: Params, root: Path) -> list[str]:
    """Measure this machine, and say how long the stages take, or in a sentence why that is not known."""
    try:
        folder = weights(params, root)
        with Progress(pieces(params), "measuring this machine") as bar:
            return _measured(params, root, folder, bar)
    except ModelError as error:
        return [f"Time: not known, because it is measured with the policy: {error}"]


def _measured(params: Params, root: Path, folder: Path, bar: Progress) -> list[str]:
    policy, started = load(params, folder)
    bar.update()
    found = earlier(params, root)
    expected = Expected(params, root, policy.chat, found)
    asked = next((talks for split in SPLITS if count(talks := expected.talks(split)) > 0), ())
    if not asked:
        return ["Time: not known, because the number of questions is not known; `dvc repro download` brings them"]
    speeds = measure(params, policy, folder, mean(asked), started, bar.update)
    return text(durations(params, expected.stages(), speeds), speeds, params, mean(asked), found)


def durations(params: Params, stages: Mapping[str, Work], speeds: Speeds) -> dict[str, float]:
    """Seconds of each stage that has work to do, NaN where they are not known.

    The processes that train together share their stage's work, and Ray's workers the blocks of theirs: each of them
    judges on `runtime.workers` threads, and rolls out on one. What servers do they do for all of them.
    """
    threads, taken = params.runtime.workers, {}
    for name, work in stages.items():
        if work != Work():
            training, blocks = name.startswith("train@"), name.startswith(("synthesize", "judge", "evaluate@"))
            by_ray = blocks and params.execution.engine == "ray"
            processes = params.runtime.processes if training else params.execution.workers if by_ray else 1
            judged, served = Work(judged=work.judged), Work(served=work.served, asked=work.asked)
            rest = seconds(replace(work, judged=0, served=0, asked=0), speeds, threads) * (threads if by_ray else 1)
            here = (rest + seconds(judged, speeds, threads)) / processes
            taken[name] = speeds.start + here + seconds(served, speeds, 1)
    return taken


def seconds(work: Work, speeds: Speeds, workers: int) -> float:
    """How long some work takes, with workers that are all busy."""
    further = max(0.0, speeds.full - speeds.alone) / max(1, speeds.in_flight - 1)
    parts = [
        (work.read + work.judged, 1 / speeds.read),
        (work.passes, speeds.alone),
        (work.written, further / workers),
        (work.taught, 1 / speeds.taught),
        (work.tuned, 1 / speeds.tuned),
        (work.served, 1 / speeds.served),
        (work.asked, 1 / speeds.asked),
    ]
    return sum(amount * each for amount, each in parts if amount)


def text(taken: Mapping[str, float], speeds: Speeds, params: Params, talk: Talk, found: Earlier) -> list[str]:
    """The stages' durations in seconds and their sum, what was measured, and what was assumed."""
    workers, most = params.runtime.workers, params.runtime.workers * params.runtime.threads
    drawn, alone = workers * speeds.in_flight / speeds.full, workers / speeds.alone
    rates = [f"{speeds.read:,.0f} read", f"{drawn:,.0f} drawn in batches of {speeds.in_flight}", f"{alone:,.0f} singly"]
    learned = {"taught (base_model, reward_model)": speeds.taught, "trained on": speeds.tuned}
    rates += [f"{rate:,.0f} {name}" for name, rate in learned.items() if not isnan(rate)]
    where = "as in an earlier run" if found.steps else "assumed"
    asked = "those of data/questions" if found.questions else f"assumed, {talk.question:.0f} tokens each"
    return [
        "Time, about, if the machine stays as busy as it is:",
        *table(taken),
        *_idle(sum(value for value in taken.values() if not isnan(value)), speeds.cores, most),
        f"Measured, in tokens a second: {', '.join(rates)}; {speeds.start:.0f} s to start a stage.",
        f"Expected: {talk.steps:.1f} steps a trajectory and {talk.action:.0f} tokens an action, {where}; "
        f"{talk.seen:.0f} tokens a result; questions: {asked}. Tools, gates, saving and tracking come on top.",
    ]


def table(taken: Mapping[str, float]) -> list[str]:
    """The stages' durations in seconds, and their sum, as lines."""
    width = max(len(name) for name in (*taken, "together"))
    known = [value for value in taken.values() if not isnan(value)]
    less = " and what is marked ?" if len(known) < len(taken) else ""
    rows = [f"  {name.ljust(width)}  {duration(value)}" for name, value in taken.items()]
    return [*rows, f"  {'together'.ljust(width)}  {duration(sum(known))}{less}"]


def _idle(taken: float, cores: float, most: int) -> list[str]:
    """What other work on the machine may cost, if this process did not have the cores that it can use."""
    if isnan(cores) or cores > ENOUGH * most:
        return []
    least = duration(taken * cores / most)
    return [f"  (not under {least} if it were idle: the process had {cores:.1f} of the {most} cores that it can use)"]
