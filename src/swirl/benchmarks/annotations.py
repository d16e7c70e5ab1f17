"""GSM8K's calculator annotations as tool use: `48/2 = <<48/2=24>>24 clips` is a call of the calculator and its result.

A solution becomes turns. The action of a turn is the words before an annotation and a `<math_exp>` call of its left
side, the observation the calculator's own result; the last action is the remaining words and the answer. A row whose
annotations do not lead to its answer is left out, with the reason.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from swirl.benchmarks.embedded.demonstrations import Turn, observe
from swirl.benchmarks.oracle import ANNOTATED, is_operation, value_of
from swirl.core.grading import same_number
from swirl.core.types import ActionKind, Derivation
from swirl.tools import Calculator
from swirl.tools.actions import render
from swirl.tools.base import call as run_tool

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_IN_EXPRESSIONS = frozenset("0123456789 \t\n+-*/×÷=$€£().,%–−")
SEPARATOR = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
"""Thousands separators: the commas of 1,200,000."""
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_OPERATOR = re.compile(r"(?<=[0-9)])[-+*/]")
_LONGEST_NUMBER = 12
"""Maximum number of characters of a number that `spoil` takes from the question."""


class LeftOut(StrEnum):
    """Why a row does not become a demonstration."""

    NO_ANNOTATION = "no annotation"
    NO_VALUE = "the calculator refuses an annotation"
    OTHER_VALUE = "an annotation says another value than the calculator"
    OTHER_ANSWER = "the last annotation is not the answer"
    NO_ACTION = "the words around an annotation or the answer cannot be written as an action"


@dataclass(frozen=True, slots=True)
class Solution:
    """An annotated row as a correct conversation with the calculator."""

    question: str
    turns: tuple[Turn, ...]
    """One call per turn, then the answer."""
    calls: tuple[str, ...]
    """The annotations' left sides."""
    results: tuple[str, ...]
    """The calculator's result of each call; the last one is the answer."""

    def derivation(self, question_id: str) -> Derivation:
        """The golden derivation, for oracles."""
        return Derivation(question_id, ANNOTATED, self.calls, self.results)

    def without_words(self) -> Solution:
        """The same conversation with every thought left out: easier for a tiny model to learn."""
        turns = tuple(Turn(turn.action[turn.action.index("<") :], turn.observation) for turn in self.turns)
        return dataclasses.replace(self, turns=turns)


def solve(question: str, solution: str) -> Solution | LeftOut:
    """The demonstration of one official row, from its fields `question` and `answer`, or why there is none.

    Numbers in the words lose their thousands separators, an expression right before its annotation is dropped because
    the call repeats it, and an annotation that is a bare number is skipped. Never raises, whatever the two strings.
    """
    body, _, answer = solution.rpartition("####")
    if not _ANNOTATION.search(body):
        return LeftOut.NO_ANNOTATION
    *pieces, tail = _ANNOTATION.split(body)
    turns: list[Turn] = []
    calls: list[str] = []
    results: list[str] = []
    words = ""
    try:
        for before, annotation in zip(pieces[0::2], pieces[1::2], strict=True):
            words += before
            call, _, written = annotation.rpartition("=")
            value = value_of(call)
            if value is None:
                return LeftOut.NO_VALUE
            if not same_number(value, written) and value != value_of(written):
                return LeftOut.OTHER_VALUE
            if is_operation(call):
                turns.append(Turn(_action(_before_expression(words), ActionKind.CALCULATE, call), observe(call, value)))
                calls.append(call)
                results.append(value)
                words = ""
        if not results or not same_number(results[-1], answer):
            return LeftOut.OTHER_ANSWER
        turns.append(Turn(_action(words + tail, ActionKind.ANSWER, results[-1]), ""))
    except ValueError:
        return LeftOut.NO_ACTION
    return Solution(question, tuple(turns), tuple(calls), tuple(results))


def spoil(solution: Solution, rng: random.Random) -> tuple[Turn, ...]:
    """The solution up to a random step, which is changed at random and ends the conversation.

    The changed step uses another number or operator, repeats an earlier call, or answers with another number. The
    oracle decides whether it is BAD, because now and then the change happens to be right.
    """
    last = rng.randrange(len(solution.turns))
    known = [n for n in _NUMBER.findall(SEPARATOR.sub("", solution.question)) if len(n) <= _LONGEST_NUMBER]
    known += solution.results[:last]
    turns, turn = list(solution.turns[:last]), solution.turns[last]
    if last and rng.random() < 0.15:
        return (*turns, rng.choice(turns))
    said = turn.action.partition("<")[0]
    if last == len(solution.calls) or (last and rng.random() < 0.15):
        wrong = rng.choice([number for number in known if number != solution.results[-1]] or ["0"])
        return (*turns, Turn(f"{said}{render(ActionKind.ANSWER, wrong)}", ""))
    call = _slip(solution.calls[last], known, rng)
    observation = observe(call, run_tool(Calculator(), call).text)
    return (*turns, Turn(f"{said}{render(ActionKind.CALCULATE, call)}", observation))


def _before_expression(words: str) -> str:
    """The words without an expression at their end, because the call repeats it."""
    end = len(words)
    while end and (
        words[end - 1] in _IN_EXPRESSIONS or (words[end - 1] in "xX" and not words[end - 2 : end - 1].isalpha())
    ):
        end -= 1
    return words[:end]


def _action(words: str, kind: str, payload: str) -> str:
    """The words on one line, then the call or answer. Raises `ValueError` when that would not be one action."""
    thought = " ".join(SEPARATOR.sub("", words).split())
    if "<" in thought:
        raise ValueError(f"a thought must not hold '<': {thought!r}")
    return f"{thought} {render(kind, payload)}".lstrip()


def _slip(call: str, known: Sequence[str], rng: random.Random) -> str:
    """The call with one number or one operator replaced."""
    operators, numbers = list(_OPERATOR.finditer(call)), list(_NUMBER.finditer(call))
    if not numbers:
        return f"{call}+1"
    if operators and rng.random() < 0.4:
        chosen = rng.choice(operators)
        new = rng.choice([sign for sign in "+-*/" if sign != chosen.group()])
    else:
        chosen = rng.choice(numbers)
        new = rng.choice([number for number in known if number != chosen.group()] or ["1"])
    return call[: chosen.start()] + new + call[chosen.end() :]
