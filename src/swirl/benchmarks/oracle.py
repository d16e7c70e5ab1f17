"""What an omniscient judge says of each step, from the golden derivation of an embedded question.

Golden labels: only the making of the embedded models (verdicts among the sound demonstrations, the reward model's
training), logging and evaluation may read them. Covers questions whose
derivation is one fixed order of calls; another order that would also do is called BAD.
"""

from __future__ import annotations

from collections.abc import Sequence

from swirl.grading import grade, normalize
from swirl.tools.calculator import canonical
from swirl.types import Action, ActionKind, Derivation


def label_steps(derivation: Derivation, actions: Sequence[Action]) -> list[bool]:
    """GOOD (True) or BAD for each action given the ones before it.

    A call is GOOD when it is the next one of the derivation that has not been made yet; an answer is GOOD when all
    calls have been made and it is the derivation's last result.
    """
    done, labels = 0, []
    for action in actions:
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


def same_call(kind: str, call: str, golden: str) -> bool:
    """Whether two tool calls ask the same: the same words in any order, or the same operation."""
    if kind == ActionKind.CALCULATE:
        form = canonical(call)
        return form is not None and form == canonical(golden)
    return sorted(normalize(call).split()) == sorted(normalize(golden).split())
