"""Arithmetic word problems of two to eight calculator steps, in the manner of GSM8K."""

from __future__ import annotations

import random
from dataclasses import dataclass

from swirl.benchmarks.embedded.names import first_names, split_of
from swirl.core.types import Derivation

OBJECTS = tuple(
    "apples marbles stickers coins shells books cards pens beads stamps cookies buttons ribbons pears plums".split()
)
LARGEST = 600
"""Largest intermediate result."""

_ADD = ("finds", "buys", "wins", "collects")
_SUBTRACT = ("loses", "eats", "donates", "breaks")
_SCALE = {"doubles": 2, "triples": 3}
_PACKED = ("boxes", "bags")
VERBS = (*_ADD, *_SUBTRACT, *_SCALE, *_PACKED)
"""Words that say what happens."""


@dataclass(frozen=True, slots=True)
class Move:
    """One sentence of a problem: what it says, and the calculations it asks for.

    In `calls` and `decoy`, `{value}` is the running value and `{last}` the last result.
    """

    cue: str
    """The sentence without its full stop: a solver repeats it before calculating."""
    text: str
    calls: tuple[str, ...]
    decoy: str = ""
    """A tempting single calculation that gets the sentence wrong; empty when there is none."""
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem and its golden derivation."""

    text: str
    start: int
    opening: str
    """The last words of the first sentence: the start value and what is counted."""
    moves: tuple[Move, ...]
    numbers: tuple[int, ...]

    def solve(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The golden calculations and their results; the last result is the answer."""
        calls: list[str] = []
        results: list[int] = []
        value = self.start
        for move in self.moves:
            for template in move.calls:
                calls.append(template.format(value=value, last=results[-1] if results else ""))
                results.append(_evaluate(calls[-1]))
            value = results[-1]
        return tuple(calls), tuple(results)

    def derivation(self, question_id: str) -> Derivation:
        """The golden derivation, for oracles."""
        calls, results = self.solve()
        return Derivation(question_id, "calculate", calls, tuple(str(result) for result in results))


def draw_problem(steps: int, split: str, rng: random.Random) -> Problem:
    """A random problem of exactly `steps` calculations whose tuple of numbers `split` owns."""
    while True:
        problem = _attempt(steps, rng)
        if problem and split_of("numbers " + " ".join(map(str, problem.numbers))) == split:
            return problem


def _evaluate(call: str) -> int:
    """The value of `a op b` over integers."""
    left, operator, right = call.split()
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operator]


def _attempt(steps: int, rng: random.Random) -> Problem | None:
    """One draw; None when a result leaves the allowed range."""
    name, thing = rng.choice(first_names()), rng.choice(OBJECTS)
    value = start = rng.randint(4, 60)
    numbers, moves = [start], []
    ending = rng.choices(("", "shares", "sells"), (0.6, 0.2, 0.2))[0]
    budget = steps - bool(ending)
    verbs = list(VERBS)
    while budget:
        verb = rng.choice(verbs)
        if verb in _PACKED and (budget < 2 or rng.random() < 0.35):
            continue
        verbs.remove(verb)
        move, value = _move(verb, name, value, rng, numbers)
        if not 1 <= value <= LARGEST:
            return None
        moves.append(move)
        budget -= len(move.calls)
    asks = f"How many {thing} does {name} have now?"
    if ending:
        last = _ending(ending, name, value, rng, numbers)
        if last is None:
            return None
        moves.append(last)
        asks = f"How many {thing} does each get?" if ending == "shares" else f"How many dollars does {name} get?"
    text = " ".join([f"{name} has {start} {thing}.", *(move.text for move in moves), asks])
    return Problem(text, start, f"{start} {thing}", tuple(moves), tuple(numbers))


def _move(verb: str, name: str, value: int, rng: random.Random, numbers: list[int]) -> tuple[Move, int]:
    """The sentence for `verb`, and the running value after it; the numbers drawn are added to `numbers`."""
    if verb in _SCALE:
        factor = _SCALE[verb]
        return Move(f"Then the number {verb}", f"Then the number {verb}.", (f"{{value}} * {factor}",)), value * factor
    if verb in _PACKED:
        count, size = rng.randint(2, 9), rng.randint(3, 15)
        numbers += [count, size]
        calls = (f"{count} * {size}", "{value} + {last}")
        text = f"{name} gets {count} {verb} of {size}"
        return Move(text, f"{text}.", calls, f"{{value}} + {size}"), value + count * size
    amount = rng.randint(2, 50)
    numbers.append(amount)
    if verb in _ADD:
        return Move(f"{name} {verb} {amount}", f"{name} {verb} {amount}.", (f"{{value}} + {amount}",)), value + amount
    return Move(f"{name} {verb} {amount}", f"{name} {verb} {amount}.", (f"{{value}} - {amount}",)), value - amount


def _ending(kind: str, name: str, value: int, rng: random.Random, numbers: list[int]) -> Move | None:
    """The last sentence: an exact division among friends, or a sale. None when it would not come out even."""
    if kind == "shares":
        divisors = [d for d in range(2, 10) if value % d == 0]
        if not divisors:
            return None
        friends = rng.choice(divisors)
        numbers.append(friends)
        cue = f"{name} shares them among {friends} friends"
        return Move(cue, f"{cue}.", (f"{{value}} / {friends}",), is_ending=True)
    price = rng.randint(2, 9)
    if value * price > LARGEST:
        return None
    numbers.append(price)
    cue = f"{name} sells them at {price} dollars"
    return Move(cue, f"{cue}.", (f"{{value}} * {price}",), is_ending=True)
