"""What the page shows besides the tables: curves, stop reasons, gates and sample trajectories."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from urllib.parse import urlencode

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Prediction, Question, Stop, Trajectory
from swirl.reporting import charts
from swirl.reporting.gates import GATES
from swirl.reporting.markup import Child, Html, tag
from swirl.reporting.results import LABELS, Results
from swirl.reporting.tables import section, table, text

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


def columns(series: Sequence[Mapping[str, Any]]) -> dict[str, list[charts.Point]]:
    """Column name -> (step, value) of each row that has a number there."""
    curves: dict[str, list[charts.Point]] = {}
    for row in series:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, []).append((float(row["step"]), float(value)))
    return curves


def curve_kind(name: str) -> str | None:
    """The title in `CURVES` for a column such as `development.accuracy` or `steps_per_trajectory`; None for others."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((title for known, title, _ in CURVES if not words.isdisjoint(known)), None)


def known_curves(evidence: Evidence) -> list[tuple[str, list[charts.Point]]]:
    """The columns that belong to a kind in `CURVES`, kind by kind, in the order of the page."""
    found = columns(evidence.series)
    return [(name, found[name]) for _, title, _ in reversed(CURVES) for name in found if curve_kind(name) == title]


def curves(evidence: Evidence) -> Html:
    """A small chart for each column of the training series, and a sentence that names the kinds without one."""
    found = columns(evidence.series)
    groups: list[Child] = []
    absent = []
    for _, title, share in reversed(CURVES):
        names = [name for name in found if curve_kind(name) == title]
        if names:
            groups.append(_curve_group(title, [(name, found[name], share) for name in names]))
        else:
            absent.append(title)
    others = [(name, found[name], False) for name in found if curve_kind(name) is None]
    if others:
        groups.append(tag("details", tag("summary", "Other curves"), _curve_group("", others)))
    words = (
        "A curve for each measure over the updates of step-wise RL. Reward, KL, entropy, length, steps and malformed "
        "rate need no label and may stop the run; oracle agreement and development accuracy are only watched."
    )
    lost = text(f"Not in this run's series: {', '.join(absent)}.") if absent else None
    return section("training", "Training curves", text(words), tag("div", groups, class_="curves"), lost)


def stops(evidence: Evidence, results: Results) -> Html:
    """Why the evaluated trajectories with tools ended."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for model, predictions in evidence.predictions.items():
        counts.update((row.benchmark, model, row.stop) for row in predictions if row.with_tools)
    seen = [stop for stop in Stop if any(key[2] == stop for key in counts)]
    rows: list[Sequence[Child]] = [
        [f"{benchmark}, {LABELS[model]}", *(counts[benchmark, model, stop] for stop in seen)]
        for benchmark in results.benchmarks
        for model in results.models
    ]
    shown = table("Stop reasons", ["Benchmark, model", *(stop.replace("_", " ") for stop in seen)], rows)
    fold = tag("details", tag("summary", f"All {len(rows)} rows"), shown)
    return section("stops", "Why trajectories ended", text("Evaluated questions with tools, by stop reason."), fold)


def samples(evidence: Evidence, results: Results, each: int) -> Html:
    """Up to `each` questions per benchmark that only one of base and SWiRL gets right; gains and losses alternate."""
    pairs = [pair for benchmark in results.benchmarks for pair in _pairs(evidence, benchmark)[:each]]
    shown = [_sample(evidence, before, after) for before, after in pairs]
    words = (
        "By turns, in order of id: questions that only SWiRL answers (gained), and that only the base answers (lost)."
    )
    none = text("No stored trajectories to show.") if not shown else None
    return section("samples", "Before and after", text(words), none, shown)


def _pairs(evidence: Evidence, benchmark: str) -> list[tuple[Prediction, Prediction]]:
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


def _sample(evidence: Evidence, before: Prediction, after: Prediction) -> Html:
    question = evidence.questions.get(before.question_id)
    asked = question.text if question else "(its text is not stored)"
    wanted = f"Accepted: {', '.join(question.answers)}" if question else ""
    change = "gained" if after.correct else "lost"
    sides = [
        tag(
            "div",
            tag("h3", f"{LABELS[row.model]}: {'right' if row.correct else 'wrong'}, {row.stop.replace('_', ' ')}"),
            _steps(evidence.trajectories[row.model][row.trajectory_id]),
        )
        for row in (before, after)
    ]
    title = tag("summary", tag("b", before.benchmark), f", {change}: ", tag("bdi", cut(asked, 140)))
    address = f"browser/index.html#{urlencode({'t': f'{after.model}:{after.trajectory_id}', 'view': 'all'})}"
    key = tag(
        "small", tag("bdi", cut(wanted)), f" ({before.question_id}), ", tag("a", "with all verdicts", href=address)
    )
    body = tag("p", tag("bdi", cut(asked)), tag("br"), key)
    return tag("details", title, body, tag("div", sides, class_="sides"))


def _steps(trajectory: Trajectory) -> Html:
    items = []
    for step in trajectory.steps:
        seen = [tag("pre", cut(one.text), class_="observation") for one in step.observations]
        items.append(tag("li", tag("span", step.action.kind), tag("pre", cut(step.action.text)), *seen))
    return tag("ol", items)


def cut(words: str, longest: int = LONGEST) -> str:
    """Text cut to `longest` characters, with the number of those left out."""
    return words if len(words) <= longest else f"{words[:longest]}… ({len(words) - longest} more characters)"


def _curve_group(title: str, named: Sequence[tuple[str, Sequence[charts.Point], bool]]) -> Html:
    pictures = [
        tag("figure", charts.line(points, f"{title} {name}".strip(), share), tag("figcaption", name))
        for name, points, share in named
    ]
    return tag("div", tag("h3", title) if title else None, tag("div", pictures, class_="row"), class_="group")
