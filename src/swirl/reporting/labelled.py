"""Trajectories together with what grading, the judge and the oracle make of them, read a row group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.core import records
from swirl.core.grading import normalize
from swirl.core.layout import Layout
from swirl.core.types import OUTCOME, ActionKind, Prediction, Question, Trajectory, Verdict

if TYPE_CHECKING:
    from swirl.wiring.oracles import Oracle


@dataclass(frozen=True, slots=True)
class Labelled:
    """One trajectory with its labels."""

    trajectory: Trajectory
    correct: bool | None
    """Whether its answer is right; None where nobody graded it."""
    verdicts: Mapping[int, Verdict]
    """The judge's, by index of the step; that on the answer alone under `OUTCOME`."""
    oracle: tuple[bool, ...] | None
    """GOOD (True) or BAD for each step; None where there is no oracle."""

    def judged(self, index: int) -> bool | None:
        """The judge's verdict on a step; None without one."""
        return self.verdicts[index].good if index in self.verdicts else None


def answered(questions: Iterable[Question]) -> list[Question]:
    """The questions that stored trajectories answer: those of the splits train (synthesis) and evaluation."""
    return [question for question in questions if question.split in ("train", "evaluation")]


def evaluated(
    layout: Layout, model: str, predictions: Iterable[Prediction], oracles: Mapping[str, Oracle]
) -> Iterator[Labelled]:
    """The stored trajectories of a model's evaluation with tools; `oracles` are by question id.

    Raises `DataError` for a file that is missing or broken.
    """
    correct = {row.trajectory_id: row.correct for row in predictions if row.with_tools}
    return _labelled(layout.prediction_trajectories(model), layout.prediction_verdicts(model), oracles, correct)


def synthesised(layout: Layout, oracles: Mapping[str, Oracle]) -> Iterator[Labelled]:
    """The trajectories that training data are made from. Raises `DataError` for a file that is missing or broken."""
    return _labelled(layout.trajectories, layout.verdicts, oracles, {})


def repeats(trajectory: Trajectory) -> int:
    """How many of its searches ask what an earlier one of it asked: the same words, in any order."""
    asked = [tuple(sorted(normalize(query).split())) for query in searches(trajectory)]
    return len(asked) - len(set(asked))


def searches(trajectory: Trajectory) -> Sequence[str]:
    """The queries of a trajectory, in order."""
    actions = [action for step in trajectory.steps for action in step.actions]
    return [action.payload for action in actions if action.kind == ActionKind.SEARCH]


def _labelled(
    path: Path, of_verdicts: Path, oracles: Mapping[str, Oracle], correct: Mapping[str, bool]
) -> Iterator[Labelled]:
    """The trajectories of `path`; one that is not in `correct` is graded by the judge's verdict on its outcome."""
    verdicts: dict[str, dict[int, Verdict]] = {}
    for group in records.stream(Verdict, of_verdicts) if of_verdicts.exists() else ():
        for verdict in group:
            verdicts.setdefault(verdict.trajectory_id, {})[verdict.step] = verdict
    for trajectories in records.stream(Trajectory, path):
        for one in trajectories:
            given, oracle = verdicts.get(one.id, {}), oracles.get(one.question_id)
            outcome = given[OUTCOME].good if OUTCOME in given else None
            labels = tuple(oracle(one)) if oracle else None
            yield Labelled(one, correct.get(one.id, outcome), given, labels)
