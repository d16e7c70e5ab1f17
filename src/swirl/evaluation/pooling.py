"""Runs of the same settings with several seeds as one result: means over seeds and questions, a bootstrap over both."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swirl.core.seeds import derive
from swirl.core.types import Passage, Prediction, Stop, Trajectory
from swirl.evaluation.comparison import Estimate
from swirl.evaluation.statistics import by_question
from swirl.evaluation.supporting import bringing

MEASURES = ("accuracy", "em", "f1", "answered", "malformed", "new_support")
"""What is pooled: shares, with F1 a mean in [0, 1]; `tallies` says of what."""

DRAWS = 10_000
_CHUNK = 500
_ZERO = 1e-9
"""A difference of means below it is rounding."""

Tally = Mapping[str, tuple[float, float]]
"""Question id -> (sum, number of things summed); a measure is the total of the sums over the total of the numbers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more of a measure a model has than another one."""

    value: float
    low: float
    high: float
    """95% interval of the bootstrap."""
    p: float
    """Two-sided, of the same bootstrap: twice the share of its differences that lie on the rarer side of zero."""
    p_holm: float | None = None
    """The same after Holm's correction over the benchmarks that RL trained on; None for the others."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """One measure on one benchmark, with tools, over all runs."""

    benchmark: str
    measure: str
    trained: bool
    """Whether RL trained on questions of this benchmark."""
    n: int
    """Questions, the same in each run."""
    models: dict[str, Estimate]
    """By model; without those of which there is nothing to measure."""
    against: str
    """The model that the others are set against."""
    over: dict[str, Difference]
    """By model, what it has more than `against`."""


def tallies(
    predictions: Sequence[Prediction], trajectories: Sequence[Trajectory], pages: Mapping[str, Sequence[Passage]]
) -> dict[str, Tally]:
    """The measures of one model on one benchmark in one run, by the names in `MEASURES`.

    Of questions: how often their samples are right (`accuracy`), match exactly (`em`), overlap (`f1`) and end with an
    answer (`answered`). Of actions: how many are malformed or cut (`malformed`). Of searches on questions in `pages`,
    question id -> supporting pages: how many bring a page that was not shown before (`new_support`; none: left out).
    """
    made: dict[str, Tally] = {
        name: {question: (share, 1.0) for question, share in by_question(predictions, field).items()}
        for name, field in (("accuracy", "correct"), ("em", "em"), ("f1", "f1"))
    }
    asked, ended = made["accuracy"], dict.fromkeys(made["accuracy"], (0.0, 0.0))
    faulty, found = dict(ended), {question: (0.0, 0.0) for question in asked if question in pages}
    for prediction in predictions:
        _add(ended, prediction.question_id, prediction.stop is Stop.ANSWERED, 1)
    for trajectory in trajectories:
        name = trajectory.question_id
        _add(faulty, name, sum(step.action.faulty for step in trajectory.steps), len(trajectory.steps))
        if name in found:
            searches, bring = bringing(trajectory, pages[name])
            _add(found, name, bring, searches)
    return made | {"answered": ended, "malformed": faulty} | ({"new_support": found} if found else {})


def _add(tally: dict[str, tuple[float, float]], question: str, total: float, number: float) -> None:
    before = tally[question]
    tally[question] = (before[0] + total, before[1] + number)


def pool(
    benchmark: str, measure: str, trained: bool, models: Mapping[str, Sequence[Tally]], against: str = "base"
) -> Pooled:
    """One measure of all models; `models` has a tally for each run, in the same order for every model.

    Every draw of the bootstrap takes as many runs and as many questions as there are, with replacement, and measures
    all models on them, so differences are paired. Of R runs a bootstrap sees (R - 1) / R of the variance: how far
    the drawn runs lie from all runs, on the same questions, is stretched by the root of R / (R - 1) (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, p. 76). Raises `ValueError` unless all tallies are of the
    same questions.
    """
    questions = list(models[against][0])
    for name, runs in models.items():
        for tally in runs:
            if tally.keys() != models[against][0].keys():
                raise ValueError(f"{benchmark}, {measure}: {name} was asked other questions than {against}")
    sums = np.array([[[tally[q] for q in questions] for tally in runs] for runs in models.values()])
    known = {name: number for number, name in enumerate(models) if sums[number, :, :, 1].sum() > 0}
    drawn, even = crossed(np.concatenate([sums[..., 0], sums[..., 1]]), derive(0, "pool", benchmark))
    totals = sums.sum(axis=(1, 2))
    means = {name: float(totals[i, 0] / totals[i, 1]) for name, i in known.items()}
    stretch, half = math.sqrt(sums.shape[1] / max(1, sums.shape[1] - 1)), len(models)
    with np.errstate(invalid="ignore"):  # a draw without a search, of which there is no share
        of_drawn, of_all = (one[:, :half] / one[:, half:] for one in (drawn, even))
        shares = {name: (of_all + stretch * (of_drawn - of_all))[:, i] for name, i in known.items()}
    over = {
        name: _difference(
            means[name] - means[against],
            shares[name] - shares[against],
            int(_apart(sums[i], sums[known[against]]).any(axis=0).sum()),
        )
        for name, i in known.items()
        if name != against and against in known
    }
    estimates = {name: Estimate(means[name], *interval(shares[name].clip(0.0, 1.0))) for name in known}
    return Pooled(benchmark, measure, trained, len(questions), estimates, against, over)


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where two models' shares differ, by run and question; both are (runs, questions, 2): sums and numbers.

    A question on which only one of them did what is measured tells them apart, unless that was of no use and the other
    one never finds anything either.
    """
    (sums, numbers), (theirs, of_theirs) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    apart = np.abs(sums * of_theirs - theirs * numbers) > _ZERO
    first_alone = (of_theirs == 0) & (numbers > 0) & ((sums > 0) | bool(theirs.any()))
    other_alone = (numbers == 0) & (of_theirs > 0) & ((theirs > 0) | bool(sums.any()))
    return np.asarray(apart | first_alone | other_alone)


def crossed(
    values: NDArray[np.float64], seed: int, draws: int = DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bootstrap means over runs and, crossed with them, questions (Owen 2007, Annals of Applied Statistics 1, p. 386).

    `values` has the shape (measures, runs, questions), each of the results (draws, measures): means over the drawn runs
    and questions, and over all runs and the same questions. Each draw resamples runs and questions independently, the
    same for all measures. With one run only questions are resampled.
    """
    rng = np.random.default_rng(seed)
    _, runs, questions = values.shape
    drawn, even = [], []
    for first in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - first)
        often = rng.multinomial(runs, np.full(runs, 1 / runs), size=size) / runs
        asked = rng.multinomial(questions, np.full(questions, 1 / questions), size=size) / questions
        by_run = np.tensordot(asked, values.T, axes=1)
        drawn.append(np.einsum("drk,dr->dk", by_run, often))
        even.append(by_run.mean(axis=1))
    return np.concatenate(drawn), np.concatenate(even)


def interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5% and the 97.5% point of bootstrap values; those that are not a number are left out."""
    ordered = np.sort(drawn[np.isfinite(drawn)])
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[-1 - cut])


def two_sided(drawn: NDArray[np.float64], deciding: int) -> float:
    """The p-value of bootstrap differences from zero: 2 (k + 1) / (draws + 1), k on the rarer side or at zero.

    It is at least 2 / 2^d for d = `deciding` questions on which the models differ: the smallest p that a test which
    flips their signs can have. A bootstrap alone is sure where three questions out of three agree.
    """
    known = drawn[np.isfinite(drawn)]
    rarer = min(int((known <= _ZERO).sum()), int((known >= -_ZERO).sum()))
    return min(1.0, max(2 * (rarer + 1) / (len(known) + 1), 2.0 ** (1 - deciding)))


def _difference(value: float, drawn: NDArray[np.float64], deciding: int) -> Difference:
    return Difference(value, *interval(drawn), two_sided(drawn, deciding))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979, Scandinavian Journal of Statistics 6, p. 65): the smallest of m times m, and so on.

    Adjusted values are in the given order, at most 1, and never smaller than that of a smaller p-value.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def corrected(rows: Sequence[Pooled]) -> list[Pooled]:
    """The rows with `p_holm`: of each measure and model, over the benchmarks that RL trained on."""
    families: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        for model in row.over if row.trained else ():
            families.setdefault((row.measure, model), []).append(place)
    made = [dataclasses.replace(row, over=dict(row.over)) for row in rows]
    for (_, model), places in families.items():
        for place, p in zip(places, holm([rows[place].over[model].p for place in places]), strict=True):
            made[place].over[model] = dataclasses.replace(rows[place].over[model], p_holm=p)
    return made
