"""Verdicts in a journal's blocks, made by whichever engine params.yaml asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from swirl.comb.logprobs import check_packing
from swirl.config.params import Params, judged_here
from swirl.core.errors import ModelError
from swirl.core.grading import grade
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import build
from swirl.core.row_groups import RowGroups
from swirl.core.types import OUTCOME, Question, Stop, Trajectory, Verdict
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Done, Made, Pieces, Sharing
from swirl.execution.engines import Engine
from swirl.judging.local import LocalRationaleJudge
from swirl.judging.rationale import RationaleJudge, Tally
from swirl.judging.reward import RewardModel
from swirl.pipeline.progress import Progress
from swirl.wiring import servers
from swirl.wiring.rewards import judge_of


class StepJudge(Protocol):
    """Judges steps: a reward, or any other judge."""

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict per step; `questions` maps id to text."""
        ...


Case = tuple[Trajectory, Question]
"""A trajectory to be judged, and the question that it is about."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How verdicts are made anywhere: a recipe (`swirl.execution.blocks.Recipe`)."""

    params: Params
    layout: Layout
    stage: str
    load: Callable[[Params, Layout], tuple[StepJudge, RationaleJudge | None]]
    """Loads the judge of steps and the grader of answers, who may be the same; None: answers are compared as text."""

    @property
    def record_type(self) -> type[Verdict]:
        """Verdicts."""
        return Verdict

    @property
    def at_once(self) -> int:
        """1: a judge spreads a block over threads itself."""
        return 1

    @property
    def threads(self) -> int:
        """`runtime.threads`."""
        return self.params.runtime.threads

    @property
    def cpus(self) -> int:
        """`runtime.threads` on each of the `runtime.workers` threads of a judge that runs here."""
        run = self.params.runtime
        return run.threads * (run.workers if judged_here(self.params, self.stage) else 1)

    def open(self, sharing: Sharing | None) -> Judging:
        """Load the judge and the grader."""
        return Judging(self, sharing)

    def add_usage(self, usage: dict[str, Counts]) -> None:
        """See `swirl.execution.blocks.Recipe`."""
        servers.add_usage(usage)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a judge that writes is asked about, and what became of it."""

    steps: bool
    answers: bool
    tally: Tally


@dataclass(frozen=True)
class Judged(Made[Verdict]):
    """The verdicts of a block that was made now: on every step, then on every outcome.

    It is not whole if a server failed for one of them, so that a later run asks again.
    """

    asked: tuple[Asked, ...] = ()


class Judging:
    """A judge and a grader, which make the verdicts of one recipe."""

    def __init__(self, recipe: Verdicts, sharing: Sharing | None) -> None:
        servers.share_limits(sharing)
        self._reward, self._grader = recipe.load(recipe.params, recipe.layout)
        self._judge = judge_of(self._reward)
        self._checked = False
        self._writers: list[tuple[RationaleJudge, bool, bool]] = []
        if isinstance(self._judge, RationaleJudge):
            self._writers.append((self._judge, True, self._grader is self._judge))
        if self._grader is not None and self._grader is not self._judge:
            self._writers.append((self._grader, False, True))

    def begin(self, flight: Path) -> None:
        """Let a judge that runs here go on with the flight in the file `flight`, if that was smaller."""
        if isinstance(self._judge, RewardModel | LocalRationaleJudge):
            self._judge.flight.resume(flight)

    def make(self, piece: Sequence[Case], done: Done) -> Judged:
        """Judge the steps and the outcome of each trajectory."""
        trajectories = [trajectory for trajectory, _ in piece]
        questions = {question.id: question for _, question in piece}
        self._check(trajectories)
        for judge, *_ in self._writers:
            judge.tally = Tally(judge.name)
        if self._grader is None:
            outcomes = [outcome_verdict(*pair) for pair in ((t, q.answers) for t, q in piece if q.answers)]
        else:  # without a golden label there is no outcome, and no filter that needs one keeps the trajectory
            labelled = [trajectory for trajectory, question in piece if question.answers]
            outcomes = self._grader.outcome_verdicts(labelled, questions)
        texts = {name: question.text for name, question in questions.items()}
        verdicts = [*self._reward.process_verdicts(trajectories, texts), *outcomes]
        done(len(piece))
        asked = tuple(Asked(steps, answers, judge.tally) for judge, steps, answers in self._writers)
        return Judged(verdicts, not any(one.tally.failed for one in asked), asked)

    def usage(self) -> dict[str, Counts]:
        """See `swirl.execution.blocks.Maker`."""
        return servers.usage()

    def _check(self, trajectories: Sequence[Trajectory]) -> None:
        """Check that packing changes no verdict, once, on the first trajectory with a step.

        Raises `ModelError` where it does. `train.packed` is for training: verdicts are read packed in any case.
        """
        first = next((trajectory for trajectory in trajectories if trajectory.steps), None)
        if not self._checked and isinstance(self._judge, RewardModel) and first is not None:
            try:
                check_packing(self._judge.model, self._judge.combs_of(first)[0])
            except ModelError as error:
                why = str(error).partition("; ")[0]
                raise ModelError(
                    f"the judge {self._judge.name} cannot be read here: {why}; take another one, such as a model of "
                    "another family or a server's"
                ) from error
            self._checked = True


class StoredCases:
    """The trajectories of a file with their questions, in blocks, each of which is read when it is asked for."""

    def __init__(self, path: Path, questions: Mapping[str, Question], size: int) -> None:
        """`questions` are by id, blocks of `size`. Raises `DataError` when the file cannot be used."""
        self._path, self._questions, self._size = path, questions, size
        self._groups = RowGroups(Trajectory, path, lambda table: table)
        self.trajectories = self._groups.rows

    def __len__(self) -> int:
        """The number of blocks."""
        return -(-self.trajectories // self._size)

    def __getitem__(self, number: int) -> list[Case]:
        """A block. Raises `DataError` when it cannot be read."""
        first = number * self._size
        rows = range(first, min(self.trajectories, first + self._size))
        made: list[Trajectory] = []
        for group, here in groupby(rows, lambda row: self._groups.place(row)[0]):
            numbers = list(here)
            table = self._groups[group].slice(self._groups.place(numbers[0])[1], len(numbers))
            made += build(Trajectory, self._path, table, numbers)
        return [(trajectory, self._questions[trajectory.question_id]) for trajectory in made]


def judge_in_blocks(
    engine: Engine[Sequence[Case], Verdict],
    pieces: Pieces[Sequence[Case]],
    journal: Journal,
    failures: Failures,
    bar: Progress,
) -> Iterator[Verdict]:
    """The verdicts on all cases, a block at a time. Raises `DataError` as soon as too many were refused."""
    for number, made in enumerate(engine.blocks(journal, pieces, bar.update, bar.already)):
        if isinstance(made, Judged):
            failures.add(made.asked)
        yield from journal.records(number, Verdict) if made.whole else made.records


class Failures:
    """Counts what failed at the servers of judges, against a limit and all that a stage asks."""

    def __init__(self, limit: float, steps: int, answers: int) -> None:
        """`limit` is the largest share that may fail; `steps` and `answers` are how many the stage judges."""
        self._limit, self._steps, self._answers = limit, steps, answers
        self._tallies: dict[tuple[bool, bool], Tally] = {}

    def add(self, asked: Sequence[Asked]) -> None:
        """Count what a block was asked. Raises `DataError` when more were refused than may fail."""
        for one in asked:
            key = one.steps, one.answers
            before = self._tallies.get(key, Tally(one.tally.judge))
            self._tallies[key] = before + one.tally
            self._tallies[key].check_refusals(self._limit, self._of(*key))

    def check(self) -> None:
        """Raise `DataError` when more failed than may."""
        for key, tally in self._tallies.items():
            tally.check_failures(self._limit, self._of(*key))

    def _of(self, steps: bool, answers: bool) -> int:
        return self._steps * steps + self._answers * answers


def outcome_verdict(trajectory: Trajectory, answers: Sequence[str]) -> Verdict:
    """Whether the final answer matches the golden one; a trajectory without an answer is BAD."""
    good = trajectory.stop is Stop.ANSWERED and grade(trajectory.answer, answers)
    return Verdict(trajectory.id, OUTCOME, good, float(good), "", "match")
