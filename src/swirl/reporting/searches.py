"""The share of searches that bring a new supporting page, by benchmark and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Question, Trajectory
from swirl.evaluation.supporting import bringing, supporting_pages
from swirl.reporting.paper import paper_order


@dataclass(frozen=True, slots=True)
class Brought:
    """The searches on a benchmark's evaluation questions whose supporting pages are known."""

    benchmark: str
    searches: dict[str, int]
    """By model."""
    new_support: dict[str, float]
    """By model: the share of them that bring a supporting page not yet shown; without models that never search."""


def found(layout: Layout, models: Sequence[str], questions: Mapping[str, Question]) -> tuple[Brought, ...]:
    """A row for each benchmark that names supporting pages, in the paper's order; `questions` is by id.

    Raises `DataError` when a file is missing or broken.
    """
    asked = [question for question in questions.values() if question.split == "evaluation"]
    pages = supporting_pages(layout, asked)
    benchmarks = sorted({questions[name].benchmark for name in pages}, key=paper_order)
    counts = {(name, model): [0, 0] for name in benchmarks for model in models}
    for model in models if pages else ():
        for group in records.stream(Trajectory, layout.prediction_trajectories(model)):
            for trajectory in group:
                if trajectory.question_id in pages:
                    searches, bring = bringing(trajectory, pages[trajectory.question_id])
                    total = counts[trajectory.benchmark, model]
                    total[0], total[1] = total[0] + searches, total[1] + bring
    return tuple(
        Brought(
            name,
            {model: counts[name, model][0] for model in models},
            {model: bring / searches for model in models for searches, bring in [counts[name, model]] if searches},
        )
        for name in benchmarks
    )


def loaded(content: Sequence[Mapping[str, Any]]) -> tuple[Brought, ...]:
    """The rows, from `reports/results.json`."""
    return tuple(records.from_dict(Brought, dict(row)) for row in content)
