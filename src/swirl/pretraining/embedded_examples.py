"""Pretraining data of the embedded models: an endless stream of demonstrations over the pretraining split.

Fresh random worlds teach reading; one fixed world is repeated, so that the model has a memory that changed facts
contradict.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from swirl.benchmarks.embedded.demonstrations import (
    Flaws,
    Turn,
    math_demonstration,
    recall_demonstration,
    search_demonstration,
)
from swirl.benchmarks.embedded.names import words
from swirl.benchmarks.embedded.problems import OBJECTS, VERBS, draw_problem
from swirl.benchmarks.embedded.world import World, make_world
from swirl.benchmarks.oracle import label_steps
from swirl.core.types import BAD, GOOD, Derivation
from swirl.models.chat import Chat
from swirl.models.prompts import Prompts, fill
from swirl.pretraining.training import Example
from swirl.tools import Calculator, Search
from swirl.tools.actions import parse

_COPIED = sorted({*words(), *OBJECTS, *VERBS})

SOUND = Flaws()
CORRUPTED = Flaws(contextual=0.4, anywhere=0.25)
"""Flaws of the demonstrations that judged examples are cut from."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of the kinds of examples (they need not add up to one), and the settings of each kind."""

    search: float
    calculate: float
    recall: float
    """Questions on the fixed world, answered from memory without tools."""
    remembered_search: float
    """Questions on the fixed world, answered with tools."""
    copying: float
    """Drills: repeat a row of random words and numbers."""
    judged: float
    """Share of the tool examples that end in a judge's question and a verdict."""
    sound: float
    """Share of sound demonstrations among those not judged; the others have `flaws`."""
    flaws: Flaws
    hops: Mapping[int, float]
    steps: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation with its golden derivation."""

    prompt: str
    turns: list[Turn]
    derivation: Derivation


class Demonstrator:
    """Draws demonstrations of one split from its own random stream."""

    def __init__(
        self,
        split: str,
        memory: World | None,
        prompts: Prompts,
        judge: str,
        limits: Mapping[str, int],
        k: int,
        rng: random.Random,
    ) -> None:
        """`judge` is the judge's question, `limits` the step limits by task, `k` how many passages a search shows."""
        self._split, self._rng, self._prompts, self._limits, self._k = split, rng, prompts, limits, k
        self._calculate = Calculator().run
        self._memory = memory
        self._memory_search = Search.over(memory.passages(), k) if memory else None
        self.judge = judge
        self._left = 0
        self._world: World
        self._search: Search

    def search(self, hops: Mapping[int, float], flaws: Flaws, remembered: bool = False) -> Demonstration:
        """A search over a fresh world (a new one every 60 draws), or over the remembered one."""
        if remembered:
            assert self._memory and self._memory_search
            world, search = self._memory, self._memory_search
        else:
            world, search = self._fresh()
        chain = world.draw_chain(draw(hops, self._rng), self._rng)
        limit = self._limits["search"]
        turns = search_demonstration(chain, search.run, flaws, limit, self._rng)
        prompt = fill(self._prompts.tasks["search"], chain.question, limit)
        return Demonstration(prompt, turns, chain.derivation(""))

    def recall(self, hops: Mapping[int, float]) -> Demonstration:
        """An answer without tools, over the remembered world."""
        assert self._memory
        chain = self._memory.draw_chain(draw(hops, self._rng), self._rng)
        prompt = fill(self._prompts.closed_book, chain.question, 1)
        return Demonstration(prompt, recall_demonstration(chain), chain.derivation(""))

    def calculate(self, steps: Mapping[int, float], flaws: Flaws) -> Demonstration:
        """A word problem of the split, solved with the calculator."""
        problem = draw_problem(draw(steps, self._rng), self._split, self._rng)
        limit = self._limits["calculate"]
        turns = math_demonstration(problem, self._calculate, flaws, limit, self._rng)
        prompt = fill(self._prompts.tasks["calculate"], problem.text, limit)
        return Demonstration(prompt, turns, problem.derivation(""))

    def _fresh(self) -> tuple[World, Search]:
        if self._left == 0:
            self._world = make_world(self._split, 0.5, self._rng)
            self._search = Search.over(self._world.passages(), self._k)
            self._left = 60
        self._left -= 1
        return self._world, self._search


def examples(
    demonstrator: Demonstrator, mixture: Mixture, chat: Chat, other: float, rng: random.Random
) -> Iterator[Example]:
    """Draw training sequences without end; `other` is the loss weight of tokens that are not the model's own."""
    kinds = ("search", "calculate", "recall", "remembered", "copying")
    shares = (mixture.search, mixture.calculate, mixture.recall, mixture.remembered_search, mixture.copying)
    while True:
        kind = rng.choices(kinds, shares)[0]
        if kind == "copying":
            yield copying_example(chat, other, rng)
            continue
        judged = kind != "recall" and rng.random() < mixture.judged
        flaws = CORRUPTED if judged else SOUND if rng.random() < mixture.sound else mixture.flaws
        if kind == "calculate":
            demonstration = demonstrator.calculate(mixture.steps, flaws)
        elif kind == "recall":
            demonstration = demonstrator.recall(mixture.hops)
        else:
            demonstration = demonstrator.search(mixture.hops, flaws, remembered=kind == "remembered")
        if judged:
            last = rng.randrange(len(demonstration.turns))
            yield judged_example(demonstration, chat, demonstrator.judge, last)
        else:
            yield example(demonstration, chat, other)


def example(demonstration: Demonstration, chat: Chat, other: float, thought: float = 1.0) -> Example:
    """The whole conversation; weight 1 on the model's turns, `thought` on words before a tag, `other` elsewhere."""
    ids = list(chat.prompt(demonstration.prompt))
    weights = [other] * len(ids)
    for turn in demonstration.turns:
        reply = chat.reply(turn.action)
        between = chat.turn(turn.observation, closed=True) if turn.observation else ()
        words = _words(turn.action, chat) if thought != 1.0 else 0
        ids += [*reply, *between]
        weights += [thought] * words + [1.0] * (len(reply) - words) + [other] * len(between)
    return Example(tuple(ids), tuple(weights))


def _words(action: str, chat: Chat) -> int:
    """Number of tokens before an action's first tag."""
    return min(len(chat.reply(action.partition("<")[0].rstrip())) - 1, len(chat.reply(action)))


def copying_example(chat: Chat, other: float, rng: random.Random) -> Example:
    """Repeat 8 to 24 random words and numbers: a skill that a model needs before it can follow a text."""
    drawn = [rng.choice(_COPIED) if rng.random() < 0.5 else str(rng.randint(0, 999)) for _ in range(rng.randint(8, 24))]
    return repeated(" ".join(drawn), chat, other)


def repeated(text: str, chat: Chat, other: float) -> Example:
    """A text after the prompt to repeat it, which has the weight `other`."""
    prompt, reply = chat.prompt(f"Repeat: {text}"), chat.reply(text)
    return Example((*prompt, *reply), (*([other] * len(prompt)), *([1.0] * len(reply))))


def judged_example(demonstration: Demonstration, chat: Chat, judge: str, last: int) -> Example:
    """The conversation up to turn `last`, the judge's question, and the oracle's verdict, which alone has weight."""
    labels = label_steps(demonstration.derivation, [parse(turn.action) for turn in demonstration.turns])
    ids = list(chat.prompt(demonstration.prompt))
    for turn in demonstration.turns[:last]:
        ids += [*chat.reply(turn.action), *chat.turn(turn.observation, closed=True)]
    ids += [*chat.reply(demonstration.turns[last].action), *chat.turn(judge, closed=True)]
    verdict = chat.reply(GOOD if labels[last] else BAD)
    return Example((*ids, *verdict), (*([0.0] * len(ids)), *([1.0] * len(verdict))))


def draw(shares: Mapping[int, float], rng: random.Random) -> int:
    """A key drawn in proportion to its share."""
    return rng.choices(list(shares), list(shares.values()))[0]
