"""Recall@k of the search tool: how many of a question's supporting passages one search finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from swirl.core.errors import DataError
from swirl.core.types import Question

if TYPE_CHECKING:
    from swirl.tools.search import Search

KS = (1, 2, 5, 10, 20)
"""The values of k."""


def recall(
    search: Search, questions: Sequence[Question], support: Mapping[str, Sequence[str]], ks: Sequence[int] = KS
) -> dict[str, float]:
    """Means over the questions in `support` (question id -> passage ids); each question's text is its query.

    `recall@k` is the share of a question's supporting passages among the first k results, `all@k` the share of
    questions with all of them there. A model may search several times, so this measures only a first search. Raises
    `DataError` when no question has support, and for a supporting passage that the index does not hold.
    """
    asked = [question for question in questions if support.get(question.id)]
    if not asked:
        raise DataError(f"none of {len(questions)} questions has supporting passages")
    place = {passage.id: position for position, passage in enumerate(search.passages)}
    totals = dict.fromkeys([f"{name}@{k}" for name in ("recall", "all") for k in ks], 0.0)
    found = search.best([question.text for question in asked], max(ks))
    for question, ranked in zip(asked, found, strict=True):
        wanted = set(support[question.id])
        if lost := sorted(wanted - place.keys()):
            raise DataError(f"question {question.id}: its supporting passage {lost[0]} is not in the index")
        for k in ks:
            share = len({place[passage] for passage in wanted} & set(ranked[:k])) / len(wanted)
            totals[f"recall@{k}"] += share
            totals[f"all@{k}"] += share == 1
    return {name: total / len(asked) for name, total in totals.items()}
