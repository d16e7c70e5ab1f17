"""From what is annotated of questions to the oracles that label the steps of their trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from swirl.benchmarks.oracle import label_trajectory
from swirl.benchmarks.passage_oracle import label_by_passages
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Derivation, Passage, Question, Support, Trajectory
from swirl.wiring.questions import derivations_of

Oracle = Callable[[Trajectory], list[bool]]
"""GOOD (True) or BAD for each step of a trajectory of one question."""


def oracles_of(layout: Layout, questions: Iterable[Question]) -> Mapping[str, Oracle]:
    """The oracles of annotated questions, by question id.

    They go by the golden derivation (generated questions, calculator annotations), or else by the supporting passages.
    Golden labels: for logging and evaluation, and for a reward model that is set to learn from annotations.
    """
    derivations = derivations_of(layout)
    support = {row.question_id: row.passage_ids for row in load(Support, layout.support)}
    passages: dict[Path, dict[str, Passage]] = {}
    oracles: dict[str, Oracle] = {}
    for question in questions:
        if question.id in derivations:
            oracles[question.id] = _by_derivation(derivations[question.id])
            continue
        corpus = layout.corpus(question.benchmark, question.split)
        if question.id in support and corpus.exists():
            if corpus not in passages:
                passages[corpus] = {passage.id: passage for passage in load(Passage, corpus)}
            pages = [passages[corpus][name] for name in support[question.id]]
            oracles[question.id] = _by_passages(pages, question.answers)
    return oracles


def _by_derivation(derivation: Derivation) -> Oracle:
    return partial(label_trajectory, derivation)


def _by_passages(passages: Sequence[Passage], answers: Sequence[str]) -> Oracle:
    return partial(label_by_passages, passages=passages, answers=answers)
