"""What the page shows besides the tables: curves, stop reasons and sample trajectories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Prediction, Question, Stop, Trajectory
from swirl.reporting.format import words
from swirl.reporting.gates import GATES
from swirl.reporting.plots import Curve, Point
from swirl.reporting.results import LABELS, Results
from swirl.reporting.tables import Row, Table

LONGEST = 700
"""The most characters of an action or observation that a sample shows."""

CURVES = (
    (("oracle", "agreement", "label"), "Oracle agreement and process label", True),
    (("accuracy",), "Development accuracy", True),
    (("malformed",), "Malformed rate", True),
    (("steps",), "Steps per trajectory", False),
    (("entropy",), "Entropy", False),
    (("kl",), "KL to the reference", False),
    (("length", "tokens"), "Action length", False),
    (("reward",), "Reward", True),
)
"""Kinds of curves: (words, title, whether it is a share). A column is of the first kind with a word of its name."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the page needs besides `Results`; a field is empty when the run has no such data."""

    predictions: Mapping[str, Sequence[Prediction]]
    series: Sequence[Mapping[str, Any]]
    gates: Mapping[str, Any]
    questions: Mapping[str, Question]
    trajectories: Mapping[str, Mapping[str, Trajectory]]


def read(layout: Layout, predictions: Mapping[str, Sequence[Prediction]]) -> Evidence:
    """Read the files that exist. Raises `DataError` for a file that is broken, not for one that is missing."""
    series, questions = layout.series("train-swirl"), layout.questions
    gates = {what: layout.quality(what) for what in GATES}
    runs = {model: layout.prediction_trajectories(model) for model in ("base", "swirl")}
    return Evidence(
        predictions=predictions,
        series=records.load_json(series) if series.exists() else [],
        gates={what: records.load_json(path) for what, path in gates.items() if path.exists()},
        questions={row.id: row for row in records.load(Question, questions)} if questions.exists() else {},
        trajectories={
            model: {row.id: row for row in records.load(Trajectory, path)}
            for model, path in runs.items()
            if path.exists()
        },
    )


def columns(series: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Column name -> (step, value) of each row that has a number there."""
    curves: dict[str, list[Point]] = {}
    for row in series:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, []).append((float(row["step"]), float(value)))
    return curves


def curve_kind(name: str) -> str | None:
    """The title in `CURVES` for a column such as `development.accuracy` or `steps_per_trajectory`; None for others."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((title for known, title, _ in CURVES if not words.isdisjoint(known)), None)


def curves(series: Sequence[Mapping[str, Any]]) -> dict[str, list[Curve]]:
    """The columns by the title of their kind, in the order of the page; those of no kind come last, without a title."""
    found = columns(series)
    kinds = [*((title, share) for _, title, share in reversed(CURVES)), ("", False)]
    return {
        title: [Curve(name, found[name], share) for name in found if (curve_kind(name) or "") == title]
        for title, share in kinds
    }


def stops(evidence: Evidence, results: Results) -> Table:
    """Why the evaluated trajectories with tools ended."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for model, predictions in evidence.predictions.items():
        counts.update((row.benchmark, model, row.stop) for row in predictions if row.with_tools)
    seen = [stop for stop in Stop if any(key[2] == stop for key in counts)]
    rows: list[Row] = [
        [f"{benchmark}, {LABELS[model]}", *(counts[benchmark, model, stop] for stop in seen)]
        for benchmark in results.benchmarks
        for model in results.models
    ]
    return Table("Stop reasons", ["Benchmark, model", *map(words, seen)], rows)


def samples(evidence: Evidence, benchmark: str) -> list[tuple[Prediction, Prediction]]:
    """(base, SWiRL) predictions, one right and one wrong, that have trajectories; gains and losses alternate.

    Of several samples of a question, the first is looked at.
    """
    rows: dict[str, dict[str, Prediction]] = {"base": {}, "swirl": {}}
    for model, by_id in rows.items():
        asked = (row for row in evidence.predictions.get(model, ()) if row.benchmark == benchmark and row.with_tools)
        stored = evidence.trajectories.get(model, {})
        for row in asked:
            if row.trajectory_id in stored:
                by_id.setdefault(row.question_id, row)
    both = [(rows["base"][key], rows["swirl"][key]) for key in sorted(rows["base"].keys() & rows["swirl"].keys())]
    gains = [pair for pair in both if pair[1].correct and not pair[0].correct]
    losses = [pair for pair in both if pair[0].correct and not pair[1].correct]
    return [pair for turn in zip_longest(gains, losses) for pair in turn if pair]


def cut(words: str, longest: int = LONGEST) -> str:
    """Text cut to `longest` characters, with the number of those left out."""
    return words if len(words) <= longest else f"{words[:longest]}… ({len(words) - longest} more characters)"
