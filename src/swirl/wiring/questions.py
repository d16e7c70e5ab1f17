"""The questions and golden derivations that the stage `download` wrote, as other stages read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from swirl.config.params import Params
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Derivation, Question


def questions_of(layout: Layout, split: str, benchmark: str | None = None) -> list[Question]:
    """The questions of one split (and of one benchmark, if given), in file order."""
    wanted = load(Question, layout.questions)
    return [q for q in wanted if q.split == split and benchmark in (None, q.benchmark)]


def derivations_of(layout: Layout) -> Mapping[str, Derivation]:
    """Golden derivations by question id, of generated questions and of annotated rows (GSM8K's training rows).

    Golden labels: for logging and evaluation, and for a reward model that is set to learn from annotations.
    """
    return {derivation.question_id: derivation for derivation in load(Derivation, layout.derivations)}


def with_tools(question: Question, params: Params) -> Question:
    """The question with the tools of its task. Raises `ParamsError` for a task that params.yaml does not have."""
    if question.task not in params.tasks:
        raise ParamsError(
            f"tasks has no {question.task!r}, which the questions of {question.benchmark} need; it has "
            f"{', '.join(params.tasks)}"
        )
    return replace(question, tools=tuple(params.tasks[question.task].tools))
