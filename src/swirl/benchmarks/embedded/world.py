"""Fictional worlds: entities, facts, passages that state one fact each, and multi-hop questions over them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from swirl.benchmarks.embedded.names import BOOK, CITY, COMPANY, COUNTRY, FILM, PERSON, TYPES, names
from swirl.core.errors import DataError
from swirl.core.types import Derivation, Passage

RELATIONS: dict[str, tuple[tuple[str, str], ...]] = {
    PERSON: (("spouse", PERSON), ("birthplace", CITY), ("employer", COMPANY)),
    FILM: (("director", PERSON), ("star", PERSON), ("studio", COMPANY)),
    BOOK: (("author", PERSON), ("publisher", COMPANY)),
    COMPANY: (("founder", PERSON), ("seat", CITY)),
    CITY: (("country", COUNTRY), ("mayor", PERSON), ("twin", CITY)),
    COUNTRY: (("capital", CITY), ("president", PERSON)),
}
"""Subject type -> its relations and the type of each relation's value."""

_PERSONAL = {relation for pairs in RELATIONS.values() for relation, kind in pairs if kind == PERSON}

_SIZES = {PERSON: 24, FILM: 10, BOOK: 10, COMPANY: 10, CITY: 14, COUNTRY: 6}
"""Number of entities of each type in a world of scale 1."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A path of facts: start -relations[0]-> values[0] -relations[1]-> values[1] ..."""

    start: str
    relations: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def question(self) -> str:
        """`Who is the spouse of the director of Silent Harbor?`"""
        path = "".join(f"the {relation} of " for relation in reversed(self.relations))
        return f"{'Who' if self.relations[-1] in _PERSONAL else 'What'} is {path}{self.start}?"

    @property
    def calls(self) -> tuple[str, ...]:
        """The searches that lead to the answer, one per hop."""
        subjects = (self.start, *self.values[:-1])
        return tuple(f"{relation} of {subject}" for relation, subject in zip(self.relations, subjects, strict=True))

    def derivation(self, question_id: str) -> Derivation:
        """The golden derivation, for oracles."""
        return Derivation(question_id, "search", self.calls, self.values)


@dataclass(frozen=True)
class World:
    """Entities by type, and (subject, relation) -> value."""

    entities: dict[str, tuple[str, ...]]
    facts: dict[tuple[str, str], str]

    @cached_property
    def types(self) -> dict[str, str]:
        """The type of each entity."""
        return {name: kind for kind, members in self.entities.items() for name in members}

    def passages(self) -> list[Passage]:
        """One passage per fact, titled by its subject."""
        return [
            Passage(id=f"{relation} of {subject}", title=subject, text=f"The {relation} of {subject} is {value}.")
            for (subject, relation), value in self.facts.items()
        ]

    def chain(self, start: str, relations: Sequence[str]) -> Chain:
        """Follow `relations` from `start`."""
        values: list[str] = []
        subject = start
        for relation in relations:
            subject = self.facts[subject, relation]
            values.append(subject)
        return Chain(start, tuple(relations), tuple(values))

    def draw_chain(self, hops: int, rng: random.Random) -> Chain:
        """A random chain whose entities are all different."""
        while True:
            start = rng.choice(self._starts)
            kind, relations = self.types[start], []
            for _ in range(hops):
                relation, kind = rng.choice(RELATIONS[kind])
                relations.append(relation)
            chain = self.chain(start, relations)
            if len({start, *chain.values}) == hops + 1:
                return chain

    @cached_property
    def _starts(self) -> list[str]:
        return [name for kind in TYPES for name in self.entities[kind]]


def make_world(split: str, scale: float, rng: random.Random, taken: set[str] | None = None) -> World:
    """A random world of `scale` times the usual size from names that `split` owns.

    Names in `taken` are avoided, and the new world's are added to it, so that worlds of one corpus never share a name.
    Raises `DataError` when the split has too few names left.
    """
    taken = set() if taken is None else taken
    entities: dict[str, tuple[str, ...]] = {}
    for kind in TYPES:
        count = max(3, round(_SIZES[kind] * scale))
        free = [name for name in names(kind, split) if name not in taken] if taken else names(kind, split)
        if len(free) < count:
            raise DataError(
                f"the next world needs {count} {kind} names, and split {split!r} has {len(free)} left of its "
                f"{len(names(kind, split))}; ask for fewer worlds"
            )
        entities[kind] = tuple(rng.sample(free, count))
        taken.update(entities[kind])
    facts = {}
    for kind in TYPES:
        for subject in entities[kind]:
            for relation, value_type in RELATIONS[kind]:
                facts[subject, relation] = _other(entities[value_type], subject, rng)
    return World(entities, facts)


def change_facts(world: World, share: float, rng: random.Random) -> World:
    """The same world with a `share` of its facts given another value of the same type."""
    facts = dict(world.facts)
    for subject, relation in rng.sample(sorted(facts), round(share * len(facts))):
        kind = world.types[facts[subject, relation]]
        choices = [name for name in world.entities[kind] if name not in (subject, facts[subject, relation])]
        facts[subject, relation] = rng.choice(choices)
    return World(world.entities, facts)


def merge(worlds: Sequence[World]) -> Iterator[Passage]:
    """The passages of several worlds, as one corpus."""
    for world in worlds:
        yield from world.passages()


def _other(members: Sequence[str], not_this: str, rng: random.Random) -> str:
    while (choice := rng.choice(members)) == not_this:
        pass
    return choice
