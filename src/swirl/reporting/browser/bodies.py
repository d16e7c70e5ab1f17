"""What the browser shows of one trajectory, as plain values for JSON, and what its filters ask of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from enum import IntFlag, auto
from typing import Any

from swirl.core.types import OUTCOME, Action, Draw, Question, Verdict
from swirl.reporting.labelled import Labelled, repeats
from swirl.reporting.tool_names import tool_name

_TAG = re.compile(r"(?<!<)<+[^<>/\s]+>+\s*")
"""What may stand before the payload of a call or an answer."""


class Trait(IntFlag):
    """What a trajectory can be looked for by; data.js names the same bits."""

    JUDGE_TOO_KIND = auto()
    """The judge calls a step GOOD that the oracle calls BAD."""
    JUDGE_TOO_STRICT = auto()
    """The judge calls a step BAD that the oracle calls GOOD."""
    UNJUDGED = auto()
    """A step has no verdict of the judge."""
    FAULTY = auto()
    """An action is malformed or cut."""
    TOOL_ERROR = auto()
    """A tool answered a call with an error."""
    REPEATS = auto()
    """A search asks what an earlier one asked."""
    DRAWN = auto()
    """Step-wise RL drew actions in one of its states, and what it drew is kept."""


def traits(one: Labelled, drawn: bool) -> Trait:
    """All that holds of a trajectory; `drawn` says whether draws of its states are kept."""
    steps, found = one.trajectory.steps, Trait(0)
    for number, step in enumerate(steps):
        judge, oracle = one.judged(step.index), one.oracle[number] if one.oracle else None
        if judge is None:
            found |= Trait.UNJUDGED
        elif oracle is not None and judge is not oracle:
            found |= Trait.JUDGE_TOO_KIND if judge else Trait.JUDGE_TOO_STRICT
    found |= Trait.FAULTY if any(step.action.faulty for step in steps) else Trait(0)
    found |= Trait.TOOL_ERROR if any(step.tool_error for step in steps) else Trait(0)
    found |= Trait.REPEATS if repeats(one.trajectory) else Trait(0)
    return found | (Trait.DRAWN if drawn else Trait(0))


def body(one: Labelled, question: Question | None, draws: Sequence[Draw]) -> dict[str, Any]:
    """The trajectory with its steps, labels and drawn actions; what is empty is left out."""
    trajectory = one.trajectory
    shown = {
        "text": question.text if question else "",
        "answers": list(question.answers) if question else [],
        "answer": trajectory.answer,
        "error": trajectory.error,
        "outcome": _verdict(one.verdicts.get(OUTCOME)),
        "steps": [_step(one, number, draws) for number in range(len(trajectory.steps))],
    }
    return {name: value for name, value in shown.items() if value}


def _step(one: Labelled, number: int, draws: Sequence[Draw]) -> dict[str, Any]:
    step = one.trajectory.steps[number]
    thought, call = halves(step.action)
    kind, tool = step.action.kind, tool_name(step.action.kind)
    shown: dict[str, Any] = {
        "kind": kind,
        "tool": tool if tool != kind else "",
        "thought": thought,
        "call": call,
        "seen": [[seen.text, seen.error] for seen in step.observations],
        "judge": _verdict(one.verdicts.get(step.index)),
        "tokens": len(step.token_ids),
        "draws": _states([draw for draw in draws if draw.step == step.index]),
    }
    labels = {"oracle": one.oracle[number]} if one.oracle else {}
    return {name: value for name, value in shown.items() if value} | labels


def halves(action: Action) -> tuple[str, str]:
    """(the thought, the call or answer with its tags and all that follows): together the whole text of an action."""
    if action.kind == "think":
        return action.text, ""
    tags = _TAG.finditer(action.text) if action.payload else ()
    start = next((tag.start() for tag in tags if action.text.startswith(action.payload, tag.end())), 0)
    return action.text[:start], action.text[start:]


def _verdict(verdict: Verdict | None) -> list[Any] | None:
    """[good, score, rationale]; None without a verdict."""
    if verdict is None:
        return None
    return [verdict.good, None if verdict.score is None else round(verdict.score, 4), verdict.rationale]


def _states(draws: Iterable[Draw]) -> list[dict[str, Any]]:
    """The draws in one state, by update; equal actions with equal rewards are one row with their number."""
    updates: dict[int, dict[tuple[Any, ...], list[Draw]]] = {}
    for draw in draws:
        same = (draw.action_ids, draw.reward, draw.advantage)
        updates.setdefault(draw.update, {}).setdefault(same, []).append(draw)
    return [
        {"update": update, "actions": [_drawn(group) for group in rows.values()]} for update, rows in updates.items()
    ]


def _drawn(group: Sequence[Draw]) -> list[Any]:
    """[text, how often, reward, advantage, log-probability, whether it is cut]."""
    first = group[0]
    reward = None if first.reward is None else round(first.reward, 4)
    logprob = round(first.logprob, 3) if math.isfinite(first.logprob) else None
    return [first.text, len(group), reward, round(first.advantage, 4), logprob, first.cut]
