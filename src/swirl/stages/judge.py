"""judge: a verdict on every step of every trajectory and on every outcome, made once for all filter strategies.

How often the reward model errs is counted here too, on the steps that `reward_model` held out: its errors are those of
verdicts at `judge.threshold`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc

from swirl.comb.logprobs import check_packing
from swirl.config.params import Params
from swirl.core.grading import grade
from swirl.core.journal import Journal, fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, save, save_json, stream
from swirl.core.row_groups import tables
from swirl.core.types import OUTCOME, HeldOutStep, Question, Stop, Trajectory, Verdict
from swirl.judging.heldout import error_rates
from swirl.judging.rationale import RationaleJudge
from swirl.judging.reward import RewardModel
from swirl.pipeline.progress import Progress
from swirl.pipeline.source import digest
from swirl.wiring.graders import load_grader
from swirl.wiring.rewards import judge_of, load_reward
from swirl.wiring.servers import print_usage


class StepJudge(Protocol):
    """What gives a verdict on every step: a reward model."""

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict a step, in order; `questions` are texts by id."""


def run(params: Params, layout: Layout) -> None:
    """Judge the synthesised trajectories, a journalled block at a time."""
    reward = load_reward(params, layout)
    judge = judge_of(reward)
    grader = load_grader(params, layout, judge)
    first = next((one for group in stream(Trajectory, layout.trajectories) for one in group if one.steps), None)
    if isinstance(judge, RewardModel) and first is not None:
        check_packing(judge.model, judge.comb_of(first), judge.packed)
    journal = _journal(params, layout)
    metrics = publish(params, layout, reward, grader, journal)
    errors = error_rates(load(HeldOutStep, layout.heldout), params.judge.threshold)
    save_json({**metrics, **errors}, layout.metrics("judge"))
    journal.finish()
    print_usage()


def publish(
    params: Params, layout: Layout, judge: StepJudge, grader: RationaleJudge | None, journal: Journal
) -> dict[str, float]:
    """Write the verdicts of `judge`, and of `grader` (None: the answers are compared) on outcomes; returns metrics."""
    questions = {question.id: question for question in load(Question, layout.questions)}
    asked, limit = _asked(judge, grader, layout.trajectories), params.check_steps.max_null_rate
    counted = Counter[tuple[bool, bool | None]]()

    def made() -> Iterator[Verdict]:
        with Progress(sum(len(table) for table in tables(Trajectory, layout.trajectories, ["id"])), "judge") as bar:
            for number, block in enumerate(_blocks(layout.trajectories, params.rollout.block_size)):
                verdicts = _block(journal, number, partial(_judged, block, questions, judge, grader, asked))
                for one, count in asked.items():
                    one.check_refusals(limit, count)
                counted.update((verdict.step == OUTCOME, verdict.good) for verdict in verdicts)
                bar.update(len(block))
                yield from verdicts
        for one, count in asked.items():
            one.check_failures(limit, count)

    save(made(), Verdict, layout.verdicts)
    return _metrics(counted)


def _blocks(path: Path, size: int) -> Iterator[list[Trajectory]]:
    """The trajectories of a file in blocks of `size`."""
    rest = chain.from_iterable(stream(Trajectory, path))
    return iter(lambda: list(islice(rest, size)), [])


def _block(journal: Journal, number: int, make: Callable[[], list[Verdict]]) -> list[Verdict]:
    """The verdicts of a block, which is committed unless a server failed."""
    try:
        return journal.block(number, Verdict, make)
    except _IncompleteError as incomplete:
        return incomplete.verdicts


def _judged(
    block: list[Trajectory],
    questions: Mapping[str, Question],
    judge: StepJudge,
    grader: RationaleJudge | None,
    asked: Iterable[RationaleJudge],
) -> list[Verdict]:
    """All verdicts on a block. Raises `_IncompleteError`, which holds them, if a server failed to give some."""
    before = sum(one.failed for one in asked)
    if grader is None:
        outcomes = [outcome_verdict(trajectory, questions[trajectory.question_id].answers) for trajectory in block]
    else:
        outcomes = grader.outcome_verdicts(block, questions)
    texts = {trajectory.question_id: questions[trajectory.question_id].text for trajectory in block}
    made = [*judge.process_verdicts(block, texts), *outcomes]
    if sum(one.failed for one in asked) > before:
        raise _IncompleteError(made)
    return made


def _journal(params: Params, layout: Layout) -> Journal:
    sections: list[Any] = [params.seed, params.rollout.block_size]
    sections += [part.model_dump() for part in (params.runtime, params.judge, params.reward_model, params.actions)]
    inputs = [layout.trajectories, layout.questions, layout.model("reward")]
    inputs += [layout.root / params.prompts.judge, layout.root / params.tools.folder]
    return Journal(layout.root / ".swirl/journals/judge", fingerprint(digest("judge"), sections, inputs))


class _IncompleteError(Exception):
    """The verdicts of a block for which a server failed: it is not committed, so a resumed run asks for it again."""

    def __init__(self, verdicts: list[Verdict]) -> None:
        super().__init__()
        self.verdicts = verdicts


def _asked(judge: StepJudge, grader: RationaleJudge | None, path: Path) -> Counter[RationaleJudge]:
    """How many questions each judge that writes is asked by the whole stage, whichever process asks them."""
    steps, answered = 0, 0
    for table in tables(Trajectory, path, ["steps", "stop"]):
        steps += pc.sum(pc.list_value_length(table["steps"])).as_py() or 0
        answered += table["stop"].to_pylist().count(Stop.ANSWERED)
    asked: Counter[RationaleJudge] = Counter()
    if isinstance(judge, RationaleJudge):
        asked[judge] += steps
    if grader is not None:
        asked[grader] += answered
    return asked


def outcome_verdict(trajectory: Trajectory, answers: Sequence[str]) -> Verdict:
    """Whether the final answer matches the golden one; a trajectory without an answer is BAD."""
    good = trajectory.stop is Stop.ANSWERED and grade(trajectory.answer, answers)
    return Verdict(trajectory.id, OUTCOME, good, float(good), "", "match")


def _metrics(counted: Mapping[tuple[bool, bool | None], int]) -> dict[str, float]:
    """Numbers and shares of verdicts on steps and on outcomes; `counted` is by (on an outcome, good)."""
    metrics: dict[str, float] = {}
    for name, of in (("steps", False), ("outcomes", True)):
        good, bad, null = (counted.get((of, word), 0) for word in (True, False, None))
        every = good + bad + null
        metrics |= {name: every, f"{name}_good": good / max(1, every), f"{name}_null": null / max(1, every)}
    return metrics
