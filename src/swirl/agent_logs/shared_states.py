"""States in long loops of calls, cut from one rendering of the whole: the time to render each is the turns squared.

What a template writes of a beginning need not be the beginning of what it writes of the whole. So of each loop the
first and the last state are rendered, and one that ends as others do, in each way that there is; only if all of them
are what the whole begins with, the loop's states are taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swirl.agent_logs.conversation import Message, Role

LONG = 8
"""Turns of a loop from which on it is cheaper to render the whole."""


@dataclass(frozen=True, slots=True)
class SharedStates:
    """The states that the rendering of the whole begins with."""

    whole: str = ""
    given: str = ""
    """What the template writes after each of them where a reply is asked for."""
    ends: dict[int, int] = field(default_factory=dict)
    """Message of the assistant -> where in `whole` the state before it ends."""

    def get(self, index: int) -> str | None:
        """The state before the assistant's message at `index`; None if it must be rendered."""
        return self.whole[: self.ends[index]] + self.given if index in self.ends else None


def shared_states(
    messages: Sequence[Message], write: Callable[[int, bool], str], past: Callable[[str], str]
) -> SharedStates:
    """The shared states of these messages, the last of which is the assistant's; none where there is no long loop.

    `write` gives the first messages, so many, as the template writes them, with what asks for a reply or without;
    `past` what asks for a reply as it stands before past turns, empty where other text may look the same. Raises what
    `write` raises.
    """
    loops = [loop for loop in loops_of(messages) if len(loop) >= LONG]
    if not loops:
        return SharedStates()
    first = loops[0][0]
    asked, bare = write(first, True), write(first, False)
    opening = past(asked[len(bare) :]) if asked.startswith(bare) else ""
    if not opening:
        return SharedStates()
    whole = write(len(messages), False)
    said = [index for index, message in enumerate(messages) if message.role is Role.ASSISTANT]
    places = _places(whole, opening)
    if len(places) != len(said):
        return SharedStates()
    shared = SharedStates(whole, asked[len(bare) :], dict(zip(said, places, strict=True)))
    kept = [
        loop for loop in loops if all(shared.get(index) == write(index, True) for index in _samples(messages, loop))
    ]
    return SharedStates(whole, shared.given, {index: shared.ends[index] for loop in kept for index in loop})


def _samples(messages: Sequence[Message], loop: Sequence[int]) -> list[int]:
    """The first and the last turn of a loop, and the last one after each kind of turn: so many results, with a text."""
    kinds: dict[tuple[int, bool], int] = {}
    for index in loop:
        results = _results(messages, index)
        kinds[results, bool(messages[index - 1 - results].text)] = index
    return sorted({loop[0], loop[-1], *kinds.values()})


def loops_of(messages: Sequence[Message]) -> list[list[int]]:
    """The assistant's turns that follow results, in order, in runs between whose turns there are results alone."""
    loops: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.role is not Role.ASSISTANT:
            continue
        before = index - 1 - _results(messages, index)
        if before == index - 1 or before < 0 or messages[before].role is not Role.ASSISTANT:
            continue
        if loops and loops[-1][-1] == before:
            loops[-1].append(index)
        else:
            loops.append([index])
    return loops


def _results(messages: Sequence[Message], index: int) -> int:
    """How many results come right before a message."""
    count = 0
    while count < index and messages[index - 1 - count].role is Role.TOOL:
        count += 1
    return count


def _places(text: str, part: str) -> list[int]:
    """Where a part begins, each time that a text has it."""
    found, at = list[int](), text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at + len(part))
    return found
