"""Variants of an annotated row with other numbers, but the same words and the same steps: one row becomes many.

The calls show where each number comes from: the question, an earlier result, or neither (the 60 minutes of an hour);
a number from neither stays. GSM-Symbolic (Mirzadeh et al., arXiv 2410.05229) makes such variants from templates written
by hand; here the annotations are the template.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from swirl.benchmarks.annotations import SEPARATOR, Solution
from swirl.benchmarks.embedded.demonstrations import Turn, observe
from swirl.benchmarks.oracle import value_of
from swirl.core.types import ActionKind
from swirl.tools.actions import render

_IN_QUESTION = re.compile(r"(?<![\w./])[0-9]+(?![\w/]|\.[0-9])")
"""Whole numbers that stand alone: not `1/2`, `3.5`, `2nd`."""
_IN_CALL = re.compile(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?")
_LEAST = 3
"""Smaller numbers stay, because calls also use them for words such as half, twice and both."""
_LONGER = 2
"""Maximum number of characters by which a new result may be longer than the old one."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call as a template: its text, and where each of its numbers comes from."""

    pieces: tuple[str, ...]
    """The text before each number, and after the last one."""
    numbers: tuple[str | int, ...]
    """Each number as the row has it, or the index of the earlier result that it equals."""

    def filled(self, new: dict[str, str], results: list[str]) -> str:
        """The call with new numbers (`new` maps old to new) and new results."""
        values = [results[n] if isinstance(n, int) else new.get(n, n) for n in self.numbers]
        return "".join(piece + value for piece, value in zip(self.pieces, [*values, ""], strict=True))


def renumbered(solution: Solution, rng: random.Random, tries: int = 12) -> Solution | None:
    """The row with other numbers of about the same size, solved anew; None when `tries` draws give no valid row.

    `solution` is one without words. Every whole number of the question (from 3 on) that a call uses is replaced;
    results stay positive, and whole where they were. A number in a call that equals an earlier result is taken for it.
    """
    question = SEPARATOR.sub("", solution.question)
    asked = {n for n in _IN_QUESTION.findall(question) if int(n) >= _LEAST}
    calls = [_read(call, solution.results[:number]) for number, call in enumerate(solution.calls)]
    read = sorted({n for call in calls for n in call.numbers if n in asked}, key=str)
    for _ in range(tries if read else 0):
        new = {str(old): _like(int(old), rng) for old in read}
        if any(old == other for old, other in new.items()) or len(set(new.values())) < len(new):
            continue
        filled = _work_out(calls, solution.results, new)
        if filled is not None:
            return _written(_replaced(question, new), *filled)
    return None


def _replaced(question: str, new: dict[str, str]) -> str:
    return _IN_QUESTION.sub(lambda number: new.get(number.group(), number.group()), question)


def _written(question: str, calls: list[str], results: list[str]) -> Solution:
    pairs = zip(calls, results, strict=True)
    turns = [Turn(render(ActionKind.CALCULATE, call), observe(call, result)) for call, result in pairs]
    turns.append(Turn(render(ActionKind.ANSWER, results[-1]), ""))
    return Solution(question, tuple(turns), tuple(calls), tuple(results))


def _read(call: str, results: tuple[str, ...]) -> _Call:
    """The call's template, given the results before it; a number that equals several of them stands for the last."""
    found = _IN_CALL.findall(call)
    places = [len(results) - 1 - results[::-1].index(n) if n in results else n for n in found]
    return _Call(tuple(_IN_CALL.split(call)), tuple(places))


def _work_out(calls: list[_Call], before: tuple[str, ...], new: dict[str, str]) -> tuple[list[str], list[str]] | None:
    """The calls with new numbers and their results; None when a result is too unlike the old one in `before`."""
    done: list[str] = []
    results: list[str] = []
    for call, old in zip(calls, before, strict=True):
        filled = call.filled(new, results)
        value = value_of(filled)
        if value is None or value.startswith("-") or value == "0" or len(value) > len(old) + _LONGER:
            return None
        if "." in value and "." not in old:
            return None
        done.append(filled)
        results.append(value)
    return done, results


def _like(number: int, rng: random.Random) -> str:
    """A random number between about 0.4 and 2.2 times `number`, and as round."""
    unit = 100 if number % 100 == 0 else 10 if number % 10 == 0 and number > 10 else 1
    low, high = max(1 if unit > 1 else 2, int(number * 0.4) // unit), max(6, int(number * 2.2)) // unit
    return str(rng.randint(low, max(low, high)) * unit)
