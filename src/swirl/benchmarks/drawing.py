"""Assigns the questions of each file to splits.

Splits are drawn one after the other, in the order of `ORDER`, over all benchmarks; each takes the next questions of its
shuffled file. So a split depends only on the splits before it. When a split asks for more questions, the earlier splits
do not change, the split itself keeps the questions it had, in the same order, and the later splits get other ones. A
split that asks for `all` takes what the later splits of the same file leave, and so depends on them too.

No question text is ever in two splits, even of different benchmarks: a text that one split took is skipped in others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swirl.core.errors import DataError
from swirl.core.leakage import leakage_key
from swirl.core.seeds import generator
from swirl.core.types import Question

ORDER = ("evaluation", "development", "train", "reward", "pretrain")
"""The splits in the order of drawing: first those whose results are compared over time."""

Key = tuple[str, str]
"""(benchmark, split), or (benchmark, file)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one split of one benchmark asks for."""

    benchmark: str
    split: str
    file: str
    """Which of the benchmark's files its questions come from."""
    count: int | None
    """Number of questions; None: all that are left."""
    listed: tuple[Question, ...] = ()
    """If not empty, exactly these questions are taken, and none is drawn."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The questions that the wishes got."""

    questions: dict[Key, list[Question]]
    """By (benchmark, split), in the order of drawing; their ids and splits are still those of the file."""
    repeated: dict[str, int]
    """Questions of each benchmark that were passed over because another split has one with the same text."""


def draw(wishes: Sequence[Wish], pools: Mapping[Key, Sequence[Question]], seed: int) -> Drawn:
    """Questions for every wish, from the pool of its (benchmark, file).

    Raises `DataError` when there are too few, naming how many are asked for and how many there are.
    """
    drawn = Drawn({}, dict.fromkeys((wish.benchmark for wish in wishes), 0))
    left = {key: _shuffled(pool, seed, key) for key, pool in pools.items()}
    taken: dict[str, str] = {}
    repeated = Counter[Key]()
    for wish in sorted(wishes, key=lambda wish: ORDER.index(wish.split)):
        key = (wish.benchmark, wish.file)
        free = [one for one in left[key] if taken.get(one[0], wish.split) == wish.split]
        repeated[key] += len(left[key]) - len(free)
        if wish.listed:
            chosen = [(leakage_key(question.text), question) for question in wish.listed]
        else:
            later = sum(w.count or 0 for w in wishes if (w.benchmark, w.file) == key and _after(w, wish))
            chosen = free[: _count(wish, free, later, len(pools[key]), repeated[key])]
        ids = {question.id for _, question in chosen}
        left[key] = [one for one in free if one[1].id not in ids]
        taken.update((text, wish.split) for text, _ in chosen if text)
        drawn.questions[wish.benchmark, wish.split] = [question for _, question in chosen]
    for (benchmark, _), count in repeated.items():
        drawn.repeated[benchmark] += count
    return drawn


def _shuffled(pool: Sequence[Question], seed: int, key: Key) -> list[tuple[str, Question]]:
    """(normalised text, question) in the order of drawing."""
    pairs = [(leakage_key(question.text), question) for question in pool]
    generator(seed, "download", *key).shuffle(pairs)
    return pairs


def _after(one: Wish, other: Wish) -> bool:
    return ORDER.index(one.split) > ORDER.index(other.split)


def _count(wish: Wish, free: Sequence[tuple[str, Question]], later: int, total: int, repeated: int) -> int:
    """How many of the free questions the wish gets; the splits after it ask for `later` of them.

    The error says how many the file has and how many of them were passed over as `repeated`.
    """
    if wish.count is not None:
        count, missing = wish.count, wish.count > len(free)
    else:
        count = _most(free, later)
        missing = count < 1
    if missing:
        asked = "all that are left" if wish.count is None else f"{wish.count:,}"
        after = f", {later:,} of them for later splits" if wish.count is None and later else ""
        passed = f"; {repeated:,} were passed over, because their text is in another split" if repeated else ""
        raise DataError(
            f"{wish.benchmark}: {wish.split} asks for {asked} of the {total:,} questions of file {wish.file!r}, "
            f"and {len(free):,} are left{after}{passed}; ask for fewer"
        )
    return count


def _most(free: Sequence[tuple[str, Question]], later: int) -> int:
    """How many questions can be taken so that `later` are left whose text is not among the taken; below 1: none."""
    if not 0 < later <= len(free):
        return len(free) - later
    first: dict[str | int, int] = {}
    begun = sorted(first.setdefault(text or place, place) for place, (text, _) in enumerate(free))
    return begun[-later]  # where the text of that many begins at the earliest, none of them has been taken
