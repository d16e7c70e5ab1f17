"""Which skill improved: the page's tables, and the rows that the terminal shows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swirl.reporting import skills
from swirl.reporting.format import NONE, percent
from swirl.reporting.results import LABELS, Results
from swirl.reporting.skills import EVERYWHERE, FAULTS, By, Share, Skill
from swirl.reporting.tables import Cell, Row, Table

JUDGES = (By.JUDGE, By.ORACLE)
"""Who labels the steps, in the order of the columns."""

_CHANGE = "SWiRL over base, points"

NOTE = (
    "When to answer: of the answers after good calls alone, those after as many calls as the question has hops, or "
    "good themselves. The answer itself: of these, the good ones. Repeated queries (of all queries) and early stops "
    "(answers after fewer calls than hops, of all trajectories) are counted without labels: the rarer, the better."
)


def compared(results: Results) -> list[tuple[str, str]]:
    """The compared models that were evaluated, each with its label."""
    return [(model, LABELS[model]) for model in skills.MODELS if model in results.models]


def skill_rows(shares: Sequence[Share], benchmark: str = EVERYWHERE) -> Iterator[tuple[Skill, list[Share | None]]]:
    """The skills that were measured, each with what judge and oracle say; of a fault, with its count alone."""
    for skill in Skill:
        found = [skills.of(shares, benchmark, skill, by) for by in ((By.COUNT,) if skill in FAULTS else JUDGES)]
        if any(found):
            yield skill, found


def tables(results: Results, benchmark: str = EVERYWHERE) -> list[Table]:
    """The skills by judge and by oracle, and the faults."""
    models = compared(results)[::-1]
    names = [name for _, name in models]
    where = benchmark or "all benchmarks"
    good: list[Row] = []
    faults: list[Row] = []
    for skill, found in skill_rows(results.skills, benchmark):
        # The oracle's change, or the judge's where there is no oracle.
        gain = skills.change(found[-1] or found[0])
        cells = [_cell(row, model) for row in found for model, _ in models]
        row = [str(skill), *cells, NONE if gain is None else f"{100 * gain:+.1f}"]
        (faults if skill in FAULTS else good).append(row)
    head = ["Kind of action", *(f"{name}, by the {by}" for by in JUDGES for name in names), _CHANGE]
    return [
        Table(f"Skills on {where}", head, good),
        Table(f"Faults on {where}", ["Counted", *names, _CHANGE], faults),
    ]


def _cell(row: Share | None, model: str) -> Cell | str:
    if row is None or model not in row.share:
        return NONE
    return Cell(percent(row.share[model]), f"of {row.n[model]:,}")
