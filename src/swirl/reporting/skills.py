"""Which skill improved: the share of good steps by kind of action, for base, SFT and SWiRL, by judge and by oracle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import ActionKind, Prediction, Question
from swirl.reporting.labelled import Labelled, evaluated, repeats, searches
from swirl.reporting.paper import paper_order

if TYPE_CHECKING:
    from swirl.wiring.oracles import Oracle

MODELS = ("base", "sft", "swirl")
"""The models that are compared, in the order of the tables."""

EVERYWHERE = ""
"""`Share.benchmark` of all benchmarks together, in which each action counts once."""

_NO_CALL = (ActionKind.ANSWER, ActionKind.THINK, ActionKind.MALFORMED, ActionKind.CUT)


class Skill(StrEnum):
    """A kind of action, or of fault."""

    FIRST_QUERY = "first query"
    LATER_QUERY = "later query"
    CALCULATION = "calculation"
    OTHER_CALL = "other call"
    """A call of a tool that is neither the search nor the calculator."""
    WHEN_TO_ANSWER = "when to answer"
    """Of the answers after good calls alone, to questions whose number of hops is known, those that come in time: after
    as many calls as the question has hops, or good themselves, since one call can do the work of two."""
    ANSWER = "the answer itself"
    """Of the answers after good calls alone that come in time, the good ones: so each mistake counts once, where it was
    made. Where the number of hops is not known, of all answers after good calls."""
    REPEATED_QUERY = "repeated queries"
    """Of the queries, those with the words of an earlier one of the trajectory, in any order."""
    EARLY_STOP = "early stops"
    """Of the trajectories on questions whose number of hops is known, those that answer after fewer calls than that."""


FAULTS = (Skill.REPEATED_QUERY, Skill.EARLY_STOP)
"""What is counted without any label, and is better the rarer it is."""


class By(StrEnum):
    """Who says which steps are good."""

    JUDGE = "judge"
    ORACLE = "oracle"
    COUNT = "count"
    """Nobody: see `FAULTS`."""


@dataclass(frozen=True, slots=True)
class Share:
    """How often the models do one thing well, or make one mistake."""

    benchmark: str
    """Or `EVERYWHERE`."""
    skill: Skill
    by: By
    n: dict[str, int]
    """By model: how many actions or trajectories the share is of."""
    share: dict[str, float]
    """By model, in [0, 1]; without those whose `n` is 0."""


Outcomes = Mapping[tuple[str, str, Skill, By], Mapping[str, Sequence[bool]]]
"""(benchmark, question id, skill, who says it) -> by model: one truth value an action, which of a fault is bad."""


def found(
    layout: Layout,
    predictions: Mapping[str, Sequence[Prediction]],
    questions: Mapping[str, Question],
    oracles: Mapping[str, Oracle],
) -> Outcomes:
    """What the evaluated models did well and badly; `shares` counts it.

    `predictions` are by model, `questions` and `oracles` by question id. Empty where no trajectory is stored. Raises
    `DataError` for a file that is broken.
    """
    stored = [model for model in MODELS if model in predictions and layout.prediction_trajectories(model).exists()]
    return outcomes({model: evaluated(layout, model, predictions[model], oracles) for model in stored}, questions)


def outcomes(made: Mapping[str, Iterable[Labelled]], questions: Mapping[str, Question]) -> Outcomes:
    """The outcomes of trajectories by model; `questions` are by id, and those that are missing have unknown hops."""
    known: dict[tuple[str, str, Skill, By], dict[str, list[bool]]] = {}
    for model, trajectories in made.items():
        for one in trajectories:
            name, benchmark = one.trajectory.question_id, one.trajectory.benchmark
            question = questions.get(name)
            for skill, by, good in _outcomes(one, question.hops if question else 0):
                known.setdefault((benchmark, name, skill, by), {}).setdefault(model, []).append(good)
    return known


def shares(known: Outcomes) -> tuple[Share, ...]:
    """The shares of all benchmarks together, then benchmark by benchmark."""
    counts: dict[tuple[str, Skill, By], dict[str, list[int]]] = {}
    for (benchmark, _, skill, by), models in known.items():
        for model, good in models.items():
            for where in (EVERYWHERE, benchmark):
                total = counts.setdefault((where, skill, by), {}).setdefault(model, [0, 0])
                total[0], total[1] = total[0] + sum(good), total[1] + len(good)
    evaluated_models = {model for models in known.values() for model in models}
    skills, judges = list(Skill), list(By)

    def order(key: tuple[str, Skill, By]) -> tuple[Any, ...]:
        return key[0] != EVERYWHERE, paper_order(key[0]), skills.index(key[1]), judges.index(key[2])

    return tuple(
        Share(
            *key,
            {model: counts[key].get(model, (0, 0))[1] for model in MODELS if model in evaluated_models},
            {model: good / of_all for model, (good, of_all) in counts[key].items()},
        )
        for key in sorted(counts, key=order)
    )


def loaded(content: Sequence[Mapping[str, Any]]) -> tuple[Share, ...]:
    """The shares, from `reports/results.json`."""
    return tuple(records.from_dict(Share, dict(row)) for row in content)


def of(rows: Sequence[Share], benchmark: str, skill: Skill, by: By) -> Share | None:
    """One share; None where nothing was measured."""
    return next((row for row in rows if (row.benchmark, row.skill, row.by) == (benchmark, skill, by)), None)


def change(row: Share | None) -> float | None:
    """SWiRL's share less the base's, in [-1, 1]; None where one is missing."""
    if row is None or not {"base", "swirl"} <= row.share.keys():
        return None
    return row.share["swirl"] - row.share["base"]


def sentence(rows: Sequence[Share]) -> str:
    """What improved most over all benchmarks and what least, by the oracle or else the judge; empty without rows."""
    for by in (By.ORACLE, By.JUDGE):
        known = [(change(row), row) for row in rows if row.benchmark == EVERYWHERE and row.by is by]
        ranked = sorted(((gain, row) for gain, row in known if gain is not None), key=lambda one: -one[0])
        if len(ranked) > 1:
            most, least = (f"{row.skill} ({_points(gain)})" for gain, row in (ranked[0], ranked[-1]))
            if ranked[0][0] <= 0:
                return f"From base to SWiRL, by the {by}, nothing improved: {most} fell least and {least} most."
            return f"From base to SWiRL, by the {by}, {most} improved most and {least} least."
    return ""


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"


def _outcomes(one: Labelled, hops: int) -> Iterator[tuple[Skill, By, bool]]:
    """What a trajectory did well and badly, action by action."""
    yield from ((Skill.REPEATED_QUERY, By.COUNT, again) for again in _repeated(one))
    calls = [action for step in one.trajectory.steps for action in step.actions if action.kind not in _NO_CALL]
    answered = any(step.action.kind == ActionKind.ANSWER for step in one.trajectory.steps)
    if hops:
        yield Skill.EARLY_STOP, By.COUNT, answered and len(calls) < hops
    for by in (By.JUDGE, By.ORACLE) if one.trajectory.steps else ():
        labels = _labels(one, by)
        yield from ((skill, by, good) for skill, good in _calls(one, labels))
        yield from ((skill, by, good) for skill, good in _answer(one, labels, hops))


def _repeated(one: Labelled) -> list[bool]:
    """A value a query, True for as many as repeat one."""
    asked, again = len(searches(one.trajectory)), repeats(one.trajectory)
    return [True] * again + [False] * (asked - again)


def _labels(one: Labelled, by: By) -> list[bool | None]:
    """Whether each step is good; None where it is not said."""
    if by is By.JUDGE:
        return [one.judged(step.index) for step in one.trajectory.steps]
    return list(one.oracle) if one.oracle else [None] * len(one.trajectory.steps)


def _calls(one: Labelled, labels: Sequence[bool | None]) -> Iterator[tuple[Skill, bool]]:
    """The skill of each step that calls a tool, and whether it is good; those without a label are left out."""
    queried = False
    for step, good in zip(one.trajectory.steps, labels, strict=True):
        kind = step.action.kind
        if kind in _NO_CALL:
            continue
        skill = Skill.CALCULATION if kind == ActionKind.CALCULATE else Skill.OTHER_CALL
        if kind == ActionKind.SEARCH:
            skill, queried = Skill.LATER_QUERY if queried else Skill.FIRST_QUERY, True
        if good is not None:
            yield skill, good


def _answer(one: Labelled, labels: Sequence[bool | None], hops: int) -> Iterator[tuple[Skill, bool]]:
    """Whether an answer after good calls alone comes in time, and if so whether it is good; else nothing."""
    *before, last = one.trajectory.steps
    good = labels[-1]
    if last.action.kind != ActionKind.ANSWER or good is None or not all(labels[:-1]):
        return
    calls = sum(len(step.actions) for step in before if step.action.kind not in _NO_CALL)
    in_time = good or not hops or calls >= hops
    if hops:
        yield Skill.WHEN_TO_ANSWER, in_time
    if in_time:
        yield Skill.ANSWER, good
