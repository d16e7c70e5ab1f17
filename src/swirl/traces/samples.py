"""The sample of a stage's trajectories that become traces. Knows nothing of MLflow."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import OUTCOME, Prediction, Question, Trajectory, Verdict


@dataclass(frozen=True, slots=True)
class Sample:
    """One trajectory with its question, verdicts and labels."""

    trajectory: Trajectory
    question: Question | None
    correct: bool | None
    verdicts: dict[int, Verdict]
    """By step index; the verdict on the outcome under `OUTCOME`."""
    labels: dict[str, float]
    """Numbers for the whole trajectory: its prediction's EM, F1 and process labels."""
    part: str = ""
    """How many of the stage's trajectories were drawn, as `20 of 2000`."""
    total: int = 0
    """How many trajectories the stage has."""

    @property
    def outcome(self) -> str:
        """`true`, `false`, or `unknown` when nobody graded the answer."""
        return "unknown" if self.correct is None else str(self.correct).lower()


def read_samples(stage: str, layout: Layout, count: int) -> list[Sample]:
    """At most `count` of the trajectories of stage `judge` or `evaluate@MODEL`; none for other stages.

    They are drawn at random, as many of each benchmark, and by their ids alone: of every evaluated model the same
    questions, so that two models' traces can be laid side by side.
    """
    name, _, item = stage.partition("@")
    if count <= 0 or name not in ("judge", "evaluate"):
        return []
    path = layout.trajectories if name == "judge" else layout.prediction_trajectories(item)
    given = layout.verdicts if name == "judge" else layout.prediction_verdicts(item)
    if not path.exists():
        return []
    ids = _ids(path)
    chosen = _choose(ids, count)
    made = {one.id: one for one in records.pick(Trajectory, path, "id", chosen)}
    asked = sorted({one.question_id for one in made.values()})
    questions = {one.id: one for one in records.pick(Question, layout.questions, "id", asked)}
    verdicts = dict[str, dict[int, Verdict]]()
    for verdict in records.pick(Verdict, given, "trajectory_id", chosen) if given.exists() else ():
        verdicts.setdefault(verdict.trajectory_id, {})[verdict.step] = verdict
    graded = dict[str, Prediction]()
    if name == "evaluate":
        rows = records.pick(Prediction, layout.predictions(item), "trajectory_id", chosen)
        graded = {row.trajectory_id: row for row in rows if row.with_tools}
    found = []
    for one in chosen:
        seen, row, question = verdicts.get(one, {}), graded.get(one), questions.get(made[one].question_id)
        correct = row.correct if row else seen[OUTCOME].good if OUTCOME in seen else None
        part = f"{len(chosen)} of {len(ids)}"
        found.append(Sample(made[one], question, correct, seen, _labels(row), part, len(ids)))
    return found


def _labels(prediction: Prediction | None) -> dict[str, float]:
    if prediction is None:
        return {}
    names = ("em", "f1", "process_label_judge", "process_label_oracle")
    return {name: value for name in names if (value := getattr(prediction, name)) is not None}


def _choose(rows: Sequence[tuple[str, str]], count: int) -> list[str]:
    """Up to `count` of the (id, benchmark) at random, in turn from each benchmark; the draw depends on ids alone."""
    groups: dict[str, list[str]] = {}
    for one, benchmark in sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest()):
        groups.setdefault(benchmark, []).append(one)
    turns = itertools.zip_longest(*(groups[name] for name in sorted(groups)))
    return [one for turn in turns for one in turn if one is not None][:count]


def _ids(path: Path) -> list[tuple[str, str]]:
    names = ("id", "benchmark")
    columns = records.read_table(Trajectory, path, names)
    return list(zip(*(columns.column(name).to_pylist() for name in names), strict=True))
