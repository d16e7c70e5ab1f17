"""The questions and golden derivations that the stage `download` wrote, as other stages read them."""

from __future__ import annotations

from collections.abc import Mapping

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
