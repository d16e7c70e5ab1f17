"""Generated demonstrations of multi-step tool use, sound or flawed, on which an embedded model is pretrained.

The flaws are deliberate. Most are *contextual* (tied to a certain relation or kind of sentence), because a flaw that is
rare everywhere vanishes under greedy decoding and would leave step-wise RL nothing to improve.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swirl.benchmarks.embedded.problems import Move, Problem
from swirl.benchmarks.embedded.world import RELATIONS, Chain
from swirl.core.types import ActionKind
from swirl.tools.actions import render

Tool = Callable[[str], str]
"""Runs one payload and gives the result text."""

MALFORMED = "error: give one call or one answer"
"""The observation after an action that is neither a call nor an answer."""

SKIPPED_RELATIONS = frozenset({"spouse", "seat"})
"""Relations whose hop a flawed demonstrator skips."""
DROPPED_LAST = frozenset({"country", "mayor", "twin"})
"""Relations before which a flawed demonstrator stops, if they are the last hop."""

_MATH_SLIPS = ("operand", "operator", "answer", "skip", "repeat", "malformed")

_VALUE: re.Pattern[str] = re.compile(r" is ([^.|]+)\.")


@dataclass(frozen=True, slots=True)
class Flaws:
    """How often a demonstrator errs; a sound one has all probabilities at zero."""

    contextual: float = 0.0
    """Probability of a flaw where its trigger (a relation, a kind of sentence) occurs."""
    anywhere: float = 0.0
    """Probability of a flaw without a trigger, in any step."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One action and its observation, which is empty after an answer."""

    action: str
    observation: str


def observe(payload: str, result: str) -> str:
    """The text of the next user turn: `QUERY -> RESULT` (paper, appendix)."""
    return f"{payload} -> {result}"


def search_demonstration(chain: Chain, search: Tool, flaws: Flaws, steps: int, rng: random.Random) -> list[Turn]:
    """Answer a chain by searching, one hop per step, in at most `steps` actions, the last of which is no search."""
    turns: list[Turn] = []
    subject, hop, said, last_query = chain.start, 0, "", ""
    hops = len(chain.relations)
    while len(turns) < steps:
        if hop < hops and rng.random() < flaws.contextual:
            if chain.relations[hop] in SKIPPED_RELATIONS:
                hop += 1
            elif hop == hops - 1 and hop > 0 and chain.relations[hop] in DROPPED_LAST:
                hop = hops
        slip = (
            rng.choice(("relation", "restart", "repeat", "page", "malformed")) if rng.random() < flaws.anywhere else ""
        )
        if slip == "malformed":
            turns.append(Turn(f"{said}Next", MALFORMED))
            continue
        if hop >= hops or len(turns) == steps - 1 or (slip == "page" and turns):
            answer = _another_value(turns, subject, rng) if slip == "page" else subject
            turns.append(Turn(f"{said}Done: {render(ActionKind.ANSWER, answer)}", ""))
            return turns
        relation = chain.relations[hop]
        if slip == "relation":
            relation = rng.choice([name for pairs in RELATIONS.values() for name, _ in pairs])
        elif slip == "restart":
            subject, hop = chain.start, 0
            relation = chain.relations[0]
        query = last_query if slip == "repeat" and last_query else f"{relation} of {subject}"
        result = search(query)
        turns.append(Turn(f"{said}Next {relation}: {render(ActionKind.SEARCH, query)}", observe(query, result)))
        if query != last_query:
            found = _VALUE.search(result)
            subject, hop = (found.group(1) if found else subject), hop + 1
        said, last_query = f"It is {subject}. ", query
    return turns


def _another_value(turns: Sequence[Turn], subject: str, rng: random.Random) -> str:
    values: list[str] = [value for turn in turns for value in _VALUE.findall(turn.observation)]
    return rng.choice([value for value in values if value != subject] or [subject])


def recall_demonstration(chain: Chain) -> list[Turn]:
    """Answer a chain from memory, hop by hop, in one action without tools."""
    thoughts = "".join(
        f"Next {relation}: It is {value}. " for relation, value in zip(chain.relations, chain.values, strict=True)
    )
    return [Turn(f"{thoughts}Done: {render(ActionKind.ANSWER, chain.values[-1])}", "")]


def math_demonstration(problem: Problem, calculate: Tool, flaws: Flaws, steps: int, rng: random.Random) -> list[Turn]:
    """Solve a word problem by calculating, one operation per step, in at most `steps` actions.

    The last of them is no calculation: where more would follow, it is an answer with what is known by then. A thought
    gives the last result in the problem's own words, then repeats the problem's next sentence.
    """
    turns: list[Turn] = []
    answers: list[Turn] = []
    """In place of each turn, the answer that could be given there."""
    value, last = str(problem.start), ""
    said = f"It is {problem.opening}."
    for move in problem.moves:
        for number, template in enumerate(_calls(move, flaws, rng)):
            expression = template.format(value=value, last=last or value)
            answer = Turn(f"{said} Done: {render(ActionKind.ANSWER, value)}", "")
            slip = rng.choice(_MATH_SLIPS) if rng.random() < flaws.anywhere else ""
            if slip == "answer" and turns:
                return _within(steps, [*turns, answer], [*answers, answer])
            if slip == "skip":
                continue
            if slip == "malformed":
                turns.append(Turn(said, MALFORMED))
            elif slip == "repeat" and turns:
                turns.append(Turn(turns[-1].action, turns[-1].observation))
            else:
                expression = _slip(expression, slip, problem.numbers, rng)
            cue = "So together" if number else move.cue
            last = calculate(expression)
            call = render(ActionKind.CALCULATE, expression)
            turns.append(Turn(f"{said} {cue}: {call}", observe(expression, last)))
            answers += [answer] * (len(turns) - len(answers))
            done = "{value}" in template
            value = last if done else value
            said = f"It is {last} {'after' if done else 'in'} {' '.join(move.cue.split()[-2:])}."
    answer = Turn(f"{said} Done: {render(ActionKind.ANSWER, value)}", "")
    return _within(steps, [*turns, answer], [*answers, answer])


def _within(steps: int, turns: list[Turn], answers: list[Turn]) -> list[Turn]:
    """The turns, or if they are more than `steps`, the first ones and the answer of that place."""
    return turns if len(turns) <= steps else [*turns[: steps - 1], answers[steps - 1]]


def _calls(move: Move, flaws: Flaws, rng: random.Random) -> tuple[str, ...]:
    """The calculations for one sentence; a contextual flaw replaces them with the decoy, or drops them."""
    if (move.decoy or move.is_ending) and rng.random() < flaws.contextual:
        return (move.decoy,) if move.decoy else ()
    return move.calls


def _slip(expression: str, slip: str, numbers: Sequence[int], rng: random.Random) -> str:
    left, operator, right = expression.split()
    if slip == "operand":
        return f"{left} {operator} {rng.choice(numbers)}"
    if slip != "operator":
        return expression
    return f"{left} {'-' if operator == '+' else '+'} {right}"
