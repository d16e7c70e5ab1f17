"""What got worse: where SWiRL is worse than the base beyond chance, by benchmark, number of hops and skill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swirl.core import records
from swirl.core.types import Prediction, Question
from swirl.evaluation.statistics import by_question, paired_p
from swirl.reporting.format import p_equals, percent
from swirl.reporting.paper import paper_order
from swirl.reporting.skills import FAULTS, By, Outcomes

LEVEL = 0.05
"""Worse beyond chance is a p-value below this."""
RIGHT = "right answers"
"""`Decline.what` of accuracy with tools."""
SAID = 3
"""How many declines a sentence names."""

Values = dict[str, dict[str, float]]
"""Model -> question id -> a share."""


@dataclass(frozen=True, slots=True)
class Decline:
    """One thing that SWiRL does worse than the base."""

    benchmark: str
    hops: int | None
    """The questions with this number of hops; None: all of the benchmark."""
    what: str
    """`RIGHT`, or a `Skill`; of a fault, more of it is worse."""
    by: str
    """Who says which steps are good: `judge` or `oracle`; `count` where no label is needed."""
    n: int
    """Questions on which both models did it at all."""
    base: float
    swirl: float
    """Means over these questions, of the share of each."""
    p: float
    """Of `paired_p`, as in the other tables: over questions, two-sided; McNemar's where every share is 0 or 1."""


@dataclass(frozen=True, slots=True)
class Declines:
    """All declines beyond chance, the surest of each benchmark first, and how much was compared."""

    compared: int
    """How many combinations of benchmark, hops and skill were tested."""
    rows: tuple[Decline, ...]


NOTHING = Declines(0, ())
"""Where nothing was compared."""


def found(
    predictions: Mapping[str, Sequence[Prediction]], questions: Mapping[str, Question], skilled: Outcomes
) -> Declines:
    """Test SWiRL against the base in every combination; nothing is compared where one of them was not evaluated.

    `predictions` are by model, `questions` by id. Skills are by the oracle where a benchmark has one, else by the
    judge. The p-values are not corrected for their number, so up to `LEVEL / 2` of all combinations come out by chance.
    """
    hops = {name: question.hops for name, question in questions.items()}
    compared, rows = 0, []
    for (benchmark, what, by), values in _measured(predictions, skilled).items():
        for number, base, swirl in _by_hops(values["base"], values["swirl"], hops):
            compared += 1
            before, after = (math.fsum(one.values()) / len(one) for one in (base, swirl))
            worse = after > before if what in FAULTS else after < before
            if worse and (p := paired_p(base, swirl)) < LEVEL:
                rows.append(Decline(benchmark, number, what, by, len(base), before, after, p))
    return Declines(compared, tuple(sorted(rows, key=lambda row: (paper_order(row.benchmark), row.p))))


def loaded(content: Mapping[str, Any]) -> Declines:
    """The declines, from `reports/results.json`."""
    return Declines(content["compared"], tuple(records.from_dict(Decline, dict(row)) for row in content["rows"]))


def name(row: Decline) -> str:
    """What got worse in words, such as `1-hop mini-beerqa, right answers`."""
    where = row.benchmark if row.hops is None else f"{row.hops}-hop {row.benchmark}"
    return f"{where}, {row.what}" + (f" by the {row.by}" if row.by in (By.JUDGE, By.ORACLE) else "")


def sentence(declines: Declines) -> str:
    """What got worse, the surest first, or that nothing did; empty where nothing was compared."""
    if not declines.compared:
        return ""
    if not declines.rows:
        many = "1 comparison" if declines.compared == 1 else f"{declines.compared:,} comparisons"
        return f"Nothing got worse than the base beyond chance (p < {LEVEL:g}), in {many}."
    surest = sorted(declines.rows, key=lambda row: row.p)
    parts = [f"{name(row)}, {percent(row.base)} to {percent(row.swirl)} (p {p_equals(row.p)})" for row in surest[:SAID]]
    more = f"; and {len(surest) - SAID} more" if len(surest) > SAID else ""
    return f"Worse than the base: {'; '.join(parts)}{more}."


def note(declines: Declines) -> str:
    """How to read the declines."""
    expected = declines.compared * LEVEL / 2
    return (
        f"All that SWiRL does worse than the base at p < {LEVEL:g}, of {declines.compared} combinations of benchmark, "
        "hops and skill, with tools. Numbers are means over the questions on which both models did it at all. p: "
        "sign-flip test over these questions, two-sided (McNemar's exact test where each did it once), not "
        f"corrected: up to {expected:.2g} such rows are expected by chance alone. Skills are by the oracle where there "
        "is one, else by the judge."
    )


def _measured(predictions: Mapping[str, Sequence[Prediction]], skilled: Outcomes) -> dict[tuple[str, str, str], Values]:
    """(benchmark, what, by) -> the shares of both models; without what one of them was not measured on."""
    found: dict[tuple[str, str, str], Values] = {}
    for model in ("base", "swirl"):
        rows = [row for row in predictions.get(model, ()) if row.with_tools]
        for benchmark in {row.benchmark for row in rows}:
            right = by_question(row for row in rows if row.benchmark == benchmark)
            found.setdefault((benchmark, RIGHT, By.COUNT.value), {})[model] = right
    known = {benchmark for benchmark, _, _, by in skilled if by is By.ORACLE}
    for (benchmark, question, skill, by), models in skilled.items():
        if by is By.JUDGE and benchmark in known:
            continue
        for model, good in models.items():
            cell = found.setdefault((benchmark, skill.value, by.value), {}).setdefault(model, {})
            cell[question] = sum(good) / len(good)
    return {key: found[key] for key in sorted(found) if {"base", "swirl"} <= found[key].keys()}


def _by_hops(
    base: Mapping[str, float], swirl: Mapping[str, float], hops: Mapping[str, int]
) -> Iterator[tuple[int | None, dict[str, float], dict[str, float]]]:
    """The shared questions of both, all of them and, where they differ in it, by number of hops."""
    shared = sorted(base.keys() & swirl.keys())
    numbers = sorted({hops.get(question, 0) for question in shared})
    for number in (None, *(numbers if len(numbers) > 1 else ())):
        asked = [question for question in shared if number is None or hops.get(question, 0) == number]
        if asked and number != 0:
            yield number, {question: base[question] for question in asked}, {q: swirl[q] for q in asked}
