"""Which searches bring a supporting page that was not shown before, where a benchmark says which pages those are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.showing import shows
from swirl.core.types import ActionKind, Passage, Question, Support, Trajectory


def supporting_pages(layout: Layout, questions: Iterable[Question]) -> dict[str, list[Passage]]:
    """Question id -> its supporting pages; without the questions that have none named.

    Raises `DataError` when a file is missing or broken, or a corpus lacks a page that it should have.
    """
    support = {row.question_id: row.passage_ids for row in records.load(Support, layout.support)}
    asked: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        if support.get(question.id):
            asked.setdefault((question.benchmark, question.split), []).append(question.id)
    pages: dict[str, list[Passage]] = {}
    for (benchmark, split), ids in asked.items():
        path, wanted = layout.corpus(benchmark, split), {page for name in ids for page in support[name]}
        found = {page.id: page for page in records.pick(Passage, path, "id", sorted(wanted))}
        if lost := sorted(wanted - found.keys()):
            raise DataError(f"{path}: it has no passage {lost[0]!r}, which {layout.support} names; run `dvc repro`")
        pages |= {name: [found[page] for page in support[name]] for name in ids}
    return pages


def bringing(trajectory: Trajectory, pages: Sequence[Passage]) -> tuple[int, int]:
    """(searches of a trajectory, those of them whose result shows one of `pages` that no earlier result showed)."""
    unseen = list(pages)
    searches = bring = 0
    for step in trajectory.steps:
        for result in step.observations:
            if result.kind == ActionKind.SEARCH:
                left = [page for page in unseen if not shows(result.text, page)]
                searches, bring, unseen = searches + 1, bring + (len(left) < len(unseen)), left
    return searches, bring
