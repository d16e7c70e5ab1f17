"""The embedded benchmarks: offline, seeded miniatures of the paper's five, over generated fictional worlds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swirl.benchmarks.embedded.problems import draw_problem
from swirl.benchmarks.embedded.world import Chain, World, change_facts, make_world, merge
from swirl.core.errors import DataError
from swirl.core.seeds import generator
from swirl.core.types import Derivation, Passage, Question

QA_BENCHMARKS: dict[str, dict[int, float]] = {
    "mini-hotpotqa": {2: 1.0},
    "mini-musique": {3: 0.6, 4: 0.4},
    "mini-cofca": {2: 0.34, 3: 0.33, 4: 0.33},
    "mini-beerqa": {1: 0.3, 2: 0.4, 3: 0.3},
}
"""Search benchmark -> number of hops -> share of its questions."""
MATH_BENCHMARKS: dict[str, dict[int, float]] = {
    "mini-gsm8k": {2: 0.26, 3: 0.24, 4: 0.2, 5: 0.12, 6: 0.08, 7: 0.06, 8: 0.04},
}
"""Calculator benchmark -> number of steps -> share of its questions."""
EMBEDDED = (*QA_BENCHMARKS, *MATH_BENCHMARKS)

_PATIENCE = 10_000
"""Draws in a row without a new question after which it is assumed that there are no more."""


@dataclass(frozen=True, slots=True)
class Built:
    """One split of a benchmark; `memory` holds mini-cofca's derivations in the remembered, unchanged world."""

    questions: list[Question]
    derivations: list[Derivation]
    passages: list[Passage]
    memory: list[Derivation]


def memory_world(seed: int) -> World:
    """The remembered world: the one that pretraining repeats."""
    return make_world("memory", 1.0, generator(seed, "memory world"))


def build(benchmark: str, split: str, count: int, worlds: int, changed: float, seed: int) -> Built:
    """`count` different questions of one embedded benchmark, from `worlds` worlds, with their corpus.

    `changed` is the share of facts of the remembered world that mini-cofca gives another value. Raises `DataError`
    when the worlds do not have that many questions, or the split does not own names for that many worlds.
    """
    if benchmark in MATH_BENCHMARKS:
        return _build_math(benchmark, split, count, seed)
    if benchmark == "mini-cofca":
        return _build_changed(benchmark, split, count, changed, seed)
    rng = generator(seed, benchmark, split)
    taken: set[str] = set()
    made = [make_world(split, 1.0, generator(seed, "world", benchmark, split, i), taken) for i in range(worlds)]
    hops = QA_BENCHMARKS[benchmark]
    chains = _distinct(f"{benchmark}, {split}", count, lambda: rng.choice(made).draw_chain(_draw(hops, rng), rng))
    return _search_split(benchmark, split, chains, list(merge(made)), [])


def _build_math(benchmark: str, split: str, count: int, seed: int) -> Built:
    rng = generator(seed, benchmark, split)
    shares = MATH_BENCHMARKS[benchmark]
    questions: dict[str, tuple[Question, Derivation]] = {}
    while len(questions) < count:
        problem = draw_problem(_draw(shares, rng), split, rng)
        if problem.text not in questions:
            name = f"{benchmark}/{split}/{len(questions)}"
            derivation = problem.derivation(name)
            answer, hops = derivation.results[-1], len(derivation.calls)
            question = Question(name, benchmark, split, problem.text, (answer,), hops, ("calculator",), "calculate")
            questions[problem.text] = question, derivation
    pairs = list(questions.values())
    return Built([q for q, _ in pairs], [d for _, d in pairs], [], [])


def _build_changed(benchmark: str, split: str, count: int, changed: float, seed: int) -> Built:
    """Questions whose answers differ between the remembered world and its version with changed facts."""
    rng = generator(seed, benchmark, split)
    before = memory_world(seed)
    after = change_facts(before, changed, generator(seed, "changed facts"))

    def differing() -> Chain | None:
        chain = after.draw_chain(_draw(QA_BENCHMARKS[benchmark], rng), rng)
        same = before.chain(chain.start, chain.relations).values[-1] == chain.values[-1]
        return None if same else chain

    chains = _distinct(f"{benchmark}, {split}, {changed:g} of the facts changed", count, differing)
    memory = [
        before.chain(chain.start, chain.relations).derivation(f"{benchmark}/{split}/{i}")
        for i, chain in enumerate(chains)
    ]
    return _search_split(benchmark, split, chains, after.passages(), memory)


def _distinct(what: str, count: int, draw: Callable[[], Chain | None]) -> list[Chain]:
    """`count` chains with different question texts. Raises `DataError` when there are not that many."""
    chains: dict[str, Chain] = {}
    in_vain = 0
    while len(chains) < count:
        chain = draw()
        in_vain += 1
        if chain and chain.question not in chains:
            chains[chain.question] = chain
            in_vain = 0
        if in_vain == _PATIENCE:
            raise DataError(
                f"{what}: {count} different questions are asked for, and only {len(chains)} were found; "
                "ask for fewer, or for more worlds"
            )
    return list(chains.values())


def _search_split(
    benchmark: str, split: str, chains: Sequence[Chain], passages: list[Passage], memory: list[Derivation]
) -> Built:
    questions, derivations = [], []
    for number, chain in enumerate(chains):
        name = f"{benchmark}/{split}/{number}"
        answers = (chain.values[-1],)
        questions.append(Question(name, benchmark, split, chain.question, answers, len(chain.relations), ("search",)))
        derivations.append(chain.derivation(name))
    return Built(questions, derivations, passages, memory)


def _draw(shares: Mapping[int, float], rng: random.Random) -> int:
    return rng.choices(list(shares), list(shares.values()))[0]
