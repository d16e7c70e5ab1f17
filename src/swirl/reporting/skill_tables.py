"""The page's section on which skill improved, and the rows that the terminal shows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swirl.reporting import skills
from swirl.reporting.format import NONE, percent
from swirl.reporting.markup import Child, Html, tag
from swirl.reporting.results import LABELS, Results
from swirl.reporting.skills import EVERYWHERE, FAULTS, By, Share, Skill
from swirl.reporting.tables import section, seen, table, text

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


def skills_section(results: Results) -> Html | None:
    """The tables over all benchmarks and of each; None where no trajectory is stored."""
    if not results.skills:
        return None
    words = (
        f"Good ones of each kind of step, over all evaluation questions with tools; small print: of how many. {NOTE}"
    )
    each = [
        tag("details", tag("summary", benchmark), *_tables(results, benchmark))
        for benchmark in results.benchmarks
        if any(row.benchmark == benchmark for row in results.skills)
    ]
    return section(
        "skills",
        "Which skill improved",
        text(tag("strong", skills.sentence(results.skills))),
        text(words),
        _tables(results, EVERYWHERE),
        each,
        seen(results),
    )


def _columns(results: Results) -> list[tuple[str, str]]:
    """`compared` in the order of a table's columns."""
    return list(reversed(compared(results)))


def _tables(results: Results, benchmark: str) -> list[Html]:
    """The skills by judge and by oracle, and the faults."""
    names = [name for _, name in _columns(results)]
    where = benchmark or "all benchmarks"
    shown = list(skill_rows(results.skills, benchmark))
    head = ["Kind of action", *(f"{name}, by the {by}" for by in JUDGES for name in names), _CHANGE]
    good = [_row(results, skill, found) for skill, found in shown if skill not in FAULTS]
    faults = [_row(results, skill, found) for skill, found in shown if skill in FAULTS]
    return [
        table(f"Skills on {where}", head, good),
        table(f"Faults on {where}", ["Counted", *names, _CHANGE], faults),
    ]


def _row(results: Results, skill: Skill, found: Sequence[Share | None]) -> list[Child]:
    """The cells of one skill; the change is the oracle's, or the judge's where there is no oracle."""
    cells = [_cell(row, model) for row in found for model, _ in _columns(results)]
    gain = skills.change(found[-1] or found[0])
    return [str(skill), *cells, NONE if gain is None else f"{100 * gain:+.1f}"]


def _cell(row: Share | None, model: str) -> Child:
    if row is None or model not in row.share:
        return NONE
    return (percent(row.share[model]), tag("small", f"of {row.n[model]:,}"))
