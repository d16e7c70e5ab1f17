"""The oracle: labels each step GOOD or BAD by the golden derivation of its question.

These are golden labels: only the making of pretraining data, the reward model's training, logging and evaluation may
read them. A derivation is one fixed order of calls; another order that also leads to the answer is labelled BAD.

Annotated rows (GSM8K) can be solved in many ways, so their steps are labelled by value: a call is GOOD when it is an
operation (not a bare number) with the value of an annotation that no earlier call has claimed; an answer is GOOD when
it is right. Any order is accepted, and any expression with the right value, even one that covers two annotations at
once. Two cases are labelled wrongly: a right value by wrong reasoning (GOOD), and a correct solution with other
intermediate values (BAD).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from swirl.core.errors import ToolError
from swirl.core.grading import grade, normalize
from swirl.core.types import Action, ActionKind, Derivation, Trajectory
from swirl.tools.calculator import Calculator, canonical

ANNOTATED = "annotated"
"""`Derivation.kind` of rows with calculator annotations: calls are compared by value, in any order."""


def label_steps(derivation: Derivation, actions: Sequence[Action]) -> list[bool]:
    """GOOD (True) or BAD for each action given the ones before it.

    A call is GOOD when it is the next one of the derivation that has not been made yet; an answer is GOOD when all
    calls have been made and it is the derivation's last result. A thought alone is GOOD unless another one precedes it:
    its words are not read. Annotated rows are labelled by value, see the module.
    """
    if derivation.kind == ANNOTATED:
        return _by_value(derivation, actions)
    done, labels = 0, []
    for before, action in zip((None, *actions), actions, strict=False):
        if action.kind == ActionKind.THINK:
            labels.append(first_thought(before))
            continue
        if action.kind == ActionKind.ANSWER:
            labels.append(done == len(derivation.calls) and grade(action.payload, derivation.results[-1:]))
            continue
        good = (
            action.kind == derivation.kind
            and done < len(derivation.calls)
            and same_call(derivation.kind, action.payload, derivation.calls[done])
        )
        done += good
        labels.append(good)
    return labels


def label_trajectory(derivation: Derivation, trajectory: Trajectory) -> list[bool]:
    """GOOD or BAD for each step of the trajectory: a step of several calls is GOOD when each of them, in order, is."""
    steps = [step.actions for step in trajectory.steps]
    labels = iter(label_steps(derivation, [action for actions in steps for action in actions]))
    return [all(list(islice(labels, len(actions)))) for actions in steps]


def same_call(kind: str, call: str, golden: str) -> bool:
    """Whether two tool calls ask the same: the same words in any order, or the same operation."""
    if kind == ActionKind.CALCULATE:
        form = canonical(call)
        return form is not None and form == canonical(golden)
    return sorted(normalize(call).split()) == sorted(normalize(golden).split())


def _by_value(derivation: Derivation, actions: Sequence[Action]) -> list[bool]:
    """The labels of an annotated row."""
    waiting = list(derivation.results)
    labels = []
    for before, action in zip((None, *actions), actions, strict=False):
        if action.kind == ActionKind.THINK:
            labels.append(first_thought(before))
            continue
        if action.kind == ActionKind.ANSWER:
            labels.append(grade(action.payload, derivation.results[-1:]))
            continue
        value = value_of(action.payload) if action.kind == ActionKind.CALCULATE else None
        good = value in waiting and is_operation(action.payload)
        if good and value is not None:
            waiting.remove(value)
        labels.append(good)
    return labels


def first_thought(before: Action | None) -> bool:
    """Whether a thought does not follow another one, so that a model gains nothing by thinking on and on."""
    return before is None or before.kind != ActionKind.THINK


def value_of(expression: str) -> str | None:
    """The calculator's result; None when it refuses the expression."""
    try:
        return Calculator().run(expression)
    except ToolError:
        return None


def is_operation(expression: str) -> bool:
    """Whether the expression parses and is more than a number."""
    return (canonical(expression) or "").startswith("(")
