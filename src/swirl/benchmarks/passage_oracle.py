"""The oracle of questions that rest on annotated passages (HotPotQA, MuSiQue): labels each step GOOD or BAD.

These are golden labels, as those of `swirl.benchmarks.oracle`. Two cases are labelled wrongly: a search that finds what
is needed in a passage without annotation (BAD), and a right answer that does not follow from the passages (GOOD).
"""

from __future__ import annotations

from collections.abc import Sequence

from swirl.benchmarks.oracle import first_thought
from swirl.core.grading import grade
from swirl.core.showing import shows
from swirl.core.types import Action, ActionKind, Passage, Step, Trajectory


def label_by_passages(trajectory: Trajectory, passages: Sequence[Passage], answers: Sequence[str]) -> list[bool]:
    """GOOD (True) or BAD for each step of a trajectory whose question rests on `passages`.

    A search is GOOD when it shows one of them that was not shown yet, an answer when it is right and all of them were
    shown. A step of several searches is GOOD when each of them is. A thought alone is GOOD unless another precedes it.
    Any other call is BAD.
    """
    seen, labels, before = set[str](), list[bool](), None
    for step in trajectory.steps:
        good = bool(step.actions)
        for number, action in enumerate(step.actions):
            good &= _label(step, number, before, passages, seen, answers)
            before = action
        labels.append(good)
    return labels


def _label(
    step: Step, number: int, before: Action | None, passages: Sequence[Passage], seen: set[str], answers: Sequence[str]
) -> bool:
    """The label of one action of a step; what it shows is added to `seen`, ids of passages."""
    action = step.actions[number]
    if action.kind == ActionKind.SEARCH:
        answered = [seen.text for seen in step.observations if seen.kind]
        new = {one.id for one in passages if answered and shows(answered[number], one)} - seen
        seen |= new
        return bool(new)
    if action.kind == ActionKind.ANSWER:
        return len(seen) == len(passages) and grade(action.payload, answers)
    return action.kind == ActionKind.THINK and first_thought(before)
