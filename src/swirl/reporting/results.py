"""This run's numbers: gathered from what the stages wrote, and kept in `reports/results.json`."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import JudgeRole, Prediction, Question, Score, Strategy
from swirl.evaluation.state_scores import StateMeasure
from swirl.evaluation.statistics import by_question, paired_p, relative_gain, wilson
from swirl.reporting import coverage, declines, searches, skills
from swirl.reporting.paper import paper_order, published

MODELS = ("ceiling", "base", "sft", "swirl")
"""All models, in the order of the tables. Only embedded runs have a ceiling."""

LABELS = {"ceiling": "Ceiling", "base": "Base", "sft": "SFT", "swirl": "SWiRL"}

_OPTIONAL_NUMBERS = ("p_vs_base", "process_label_judge", "process_label_oracle")
_TEXTS = ("benchmark", "model", "with_tools", "judge", "judge_role")
_FRACTIONS = ("accuracy", "ci_low", "ci_high", "em", "f1", "precision", "recall")


@dataclass(frozen=True, slots=True)
class Arm:
    """What one filter strategy would keep."""

    trajectories: int
    steps: int
    correct: float | None
    """Share of the kept trajectories with a golden label whose answer matches; None when none has one."""
    by_benchmark: dict[str, int]


@dataclass(frozen=True, slots=True)
class Funnel:
    """The filter's counts for all four strategies, and the strategy that training used."""

    strategy: str
    trajectories: int
    arms: dict[str, Arm]
    kept: Arm
    """What the used strategy kept after any cap on the number of trajectories."""


@dataclass(frozen=True, slots=True)
class ByHops:
    """Accuracy with tools on a benchmark's questions with one number of hops, or the mean over all numbers of hops."""

    benchmark: str
    hops: int | None
    """None: the mean, in which each number of hops has the same weight (CofCA's score)."""
    n: int
    """Number of questions."""
    accuracy: dict[str, float]
    """By model."""


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that `reports/results.json` holds."""

    scores: tuple[Score, ...]
    filters: Funnel
    reward_model: dict[str, float]
    """How often it errs on held-out steps, with verdicts at `heldout.threshold`; empty where it was not measured."""
    memory: dict[str, float]
    retrieval: dict[str, float] = dataclasses.field(default_factory=dict)
    """`BENCHMARK.SPLIT.recall@k` and `.all@k`, for questions whose supporting passages are known."""
    by_hops: tuple[ByHops, ...] = ()
    """Rows of the benchmarks whose questions differ in their number of hops; the mean is the last row of each."""
    coverage: dict[str, coverage.Coverage] = dataclasses.field(default_factory=dict)
    """What `sft` and `swirl` saw of the kept states; a model that was not trained is missing."""
    searches: tuple[searches.Brought, ...] = ()
    """What searches bring, for the benchmarks that say which pages support an answer."""
    skills: tuple[skills.Share, ...] = ()
    """How well the models do each kind of action; see `skills.shares`."""
    declines: declines.Declines = declines.NOTHING
    """What SWiRL does worse than the base."""
    states: tuple[StateMeasure, ...] = ()
    """How the models act in the states of logged conversations."""

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks in the paper's order."""
        return sorted({score.benchmark for score in self.scores}, key=paper_order)

    @property
    def models(self) -> list[str]:
        """The models that were evaluated, in the order of the tables."""
        evaluated = {score.model for score in self.scores} | {one.model for one in self.states}
        return [model for model in MODELS if model in evaluated]

    def score(self, benchmark: str, model: str, with_tools: bool = True) -> Score | None:
        """One cell of the tables, None when it was not measured."""
        for score in self.scores:
            if (score.benchmark, score.model, score.with_tools) == (benchmark, model, with_tools):
                return score
        return None

    def gain(self, benchmark: str, model: str, with_tools: bool = True) -> float | None:
        """Relative gain over base; None when a cell is missing or the base got nothing right."""
        base, other = self.score(benchmark, "base", with_tools), self.score(benchmark, model, with_tools)
        return relative_gain(base.accuracy, other.accuracy) if base and other else None

    def labels(self, benchmark: str) -> tuple[float | None, float | None, bool]:
        """Mean process labels of base and SWiRL, and whether they are the oracle's; else they are the judge's."""
        pair = [self.score(benchmark, model) for model in ("base", "swirl")]
        base, swirl = (score.process_label_oracle if score else None for score in pair)
        if base is not None or swirl is not None:
            return base, swirl, True
        base, swirl = (score.process_label_judge if score else None for score in pair)
        return base, swirl, False

    @property
    def label_judge(self) -> str:
        """Who gave the process labels that are not the oracle's, and whether it was the reward too."""
        first = self.scores[0]
        return "no judge" if first.judge_role is JudgeRole.NONE else f'the judge "{first.judge}", {first.judge_role}'

    def trained_on(self, benchmark: str) -> bool:
        """Whether trajectories were synthesised from this benchmark."""
        return self.filters.arms[Strategy.NONE].by_benchmark.get(benchmark, 0) > 0


def load_predictions(layout: Layout, models: Sequence[str]) -> dict[str, list[Prediction]]:
    """The predictions of each model, by its name."""
    return {model: records.load(Prediction, layout.predictions(model)) for model in models}


def evaluated(layout: Layout) -> list[str]:
    """The models to report on: all that were evaluated. Only embedded bases have a ceiling; training may be off."""
    return [
        model
        for model in MODELS
        if model == "base" or layout.state_actions(model).exists() or records.load_json(layout.evaluation(model))
    ]


def gather(
    layout: Layout, predictions: Mapping[str, Sequence[Prediction]], questions: Mapping[str, Question]
) -> Results:
    """Join the stages' outputs and test every model against base; `questions` is by id.

    Raises `DataError` naming an input that is missing, broken or contradicts another.
    """
    scores = [score for model in predictions for score in _read_scores(layout, model)]
    _require_one_judge(scores, layout)
    scores.sort(key=lambda score: (paper_order(score.benchmark), not score.with_tools, MODELS.index(score.model)))
    outcomes = {model: _outcomes(rows) for model, rows in predictions.items()}  # of questions, over their samples
    base_metrics, judged = (_read_numbers(layout.metrics(stage)) for stage in ("base_model", "judge"))
    return Results(
        scores=tuple(_tested(score, outcomes, layout) for score in scores),
        filters=read_funnel(records.load_json(layout.filters), layout.filters),
        reward_model={key: value for key, value in judged.items() if key.startswith("heldout.")},
        memory={key.removeprefix("memory."): base_metrics[key] for key in base_metrics if key.startswith("memory.")},
        retrieval={key: value for key, value in _read_numbers(layout.metrics("index")).items() if "@" in key},
        by_hops=tuple(_by_hops(predictions, {name: question.hops for name, question in questions.items()})),
        coverage=coverage.found({item: _read_numbers(layout.metrics(f"train-{item}")) for item in ("sft", "swirl")}),
        searches=searches.found(layout, list(predictions), questions),
    )


def to_json(results: Results) -> dict[str, Any]:
    """The content of `reports/results.json`, including the relative gains and the paper's, as fractions."""
    gains = {}
    for benchmark in results.benchmarks:
        known = published(benchmark)
        gains[benchmark] = {
            "stands_for": known.name if known else None,
            "paper": known.gain if known else None,
            "with_tools": _gains(results, benchmark, True),
            "without_tools": _gains(results, benchmark, False),
        }
    content = dataclasses.asdict(results)
    content["filters"]["strategies"] = content["filters"].pop("arms")
    for name in ("searches", "skills", "states"):
        if not content[name]:
            del content[name]
    if not results.declines.compared:
        del content["declines"]
    return {**content, "scores": list(content["scores"]), "relative_gain": gains}


def load(path: Path) -> Results:
    """Read `reports/results.json` back. Raises `DataError` naming the file and what is wrong."""
    content = records.load_json(path)
    _require(content, ("scores", "filters", "reward_model", "memory"), path)
    try:
        return _loaded(content, path)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not as stage report writes it: {error!r}; run `dvc repro report`") from error


def _loaded(content: Mapping[str, Any], path: Path) -> Results:
    return Results(
        scores=tuple(read_score(row, path, number) for number, row in enumerate(content["scores"])),
        filters=read_funnel(content["filters"], path),
        reward_model=content["reward_model"],
        memory=content["memory"],
        retrieval=content.get("retrieval", {}),
        by_hops=tuple(_hops_row(row, path, number) for number, row in enumerate(content.get("by_hops", ()))),
        coverage=coverage.loaded(content.get("coverage", {})),
        searches=searches.loaded(content.get("searches", ())),
        skills=skills.loaded(content.get("skills", ())),
        declines=declines.loaded(content.get("declines", {"compared": 0, "rows": []})),
        states=tuple(_state(row, path, number) for number, row in enumerate(content.get("states", ()))),
    )


def read_funnel(content: Any, path: Path) -> Funnel:
    """The funnel of `reports/filters.json`. Raises `DataError` when a strategy or a count is missing."""
    _require(content, ("strategy", "strategies", "trajectories", "kept"), path)
    arms = {}
    for strategy in Strategy:
        if strategy not in content["strategies"]:
            raise DataError(f"{path}: strategies has no {strategy.value!r}; all of {', '.join(Strategy)} are needed")
        arms[strategy.value] = _arm(content["strategies"][strategy], path)
    return Funnel(content["strategy"], content["trajectories"], arms, _arm(content["kept"], path))


def _arm(content: Any, path: Path) -> Arm:
    _require(content, ("trajectories", "steps", "correct", "by_benchmark"), path)
    return Arm(content["trajectories"], content["steps"], content["correct"], content["by_benchmark"])


def _gains(results: Results, benchmark: str, with_tools: bool) -> dict[str, float | None]:
    """Relative gain over base of each trained model that was evaluated so (with or without tools)."""
    models = [model for model in ("sft", "swirl") if results.score(benchmark, model, with_tools)]
    return {model: results.gain(benchmark, model, with_tools) for model in models}


def _read_scores(layout: Layout, model: str) -> list[Score]:
    """The scores of a model; none where it was evaluated in logged states alone."""
    path = layout.evaluation(model)
    rows = records.load_json(path)
    if not isinstance(rows, list) or not (rows or layout.state_actions(model).exists()):
        raise DataError(f"{path}: expected a list with one object per benchmark, got {str(rows)[:60]}")
    scores = [read_score(row, path, number) for number, row in enumerate(rows)]
    for number, score in enumerate(scores):
        if score.model != model:
            raise DataError(f"{path}, entry {number}: model is {score.model!r}, expected {model!r}")
    return scores


def read_score(row: Any, path: Path, number: int) -> Score:
    """One validated `Score`; `p_vs_base` may be missing."""
    where = f"{path}, entry {number}"
    names = [field.name for field in dataclasses.fields(Score)]
    _require(row, [name for name in names if name != "p_vs_base"], where)
    try:
        score = records.from_dict(Score, {"p_vs_base": None, **row})
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    for name in names:
        value = getattr(score, name)
        if name in _TEXTS:
            if not isinstance(value, bool if name == "with_tools" else str):
                raise DataError(
                    f"{where}: {name} is {value!r}, expected {'true or false' if name == 'with_tools' else 'a text'}"
                )
            continue
        if value is None and name in _OPTIONAL_NUMBERS:
            continue
        if not _is_number(value) or value < 0 or (name in _FRACTIONS and value > 1):
            raise DataError(f"{where} ({score.benchmark}): {name} is {value!r}, expected a number, fractions in [0, 1]")
    return score


def _state(row: Any, path: Path, number: int) -> StateMeasure:
    where = f"{path}, states, entry {number}"
    _require(row, [field.name for field in dataclasses.fields(StateMeasure)], where)
    try:
        return records.from_dict(StateMeasure, row)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _require_one_judge(scores: Sequence[Score], layout: Layout) -> None:
    """Raise `DataError` unless one judge gave all process labels, without which base and SWiRL cannot be compared."""
    by = {score.model: f"{score.judge!r}, {score.judge_role}" for score in scores}
    for model, judge in by.items():
        if judge != by["base"]:
            raise DataError(
                f"{layout.evaluation(model)}: the judge is {judge}, but in {layout.evaluation('base')} it is "
                f"{by['base']}; run evaluate again for both, with one evaluate.judge"
            )


def _hops_row(row: Any, path: Path, number: int) -> ByHops:
    _require(row, [field.name for field in dataclasses.fields(ByHops)], f"{path}, by_hops, entry {number}")
    return records.from_dict(ByHops, row)


def _by_hops(predictions: Mapping[str, Sequence[Prediction]], hops: Mapping[str, int]) -> list[ByHops]:
    """The numbers that stage `evaluate` has as its metrics `hops_N.accuracy` and `mean_of_hops.accuracy`.

    `hops` is by question id, 0 when not known.
    """
    cells: dict[str, dict[int, dict[str, list[float]]]] = {}
    for model, rows in predictions.items():
        for (benchmark, with_tools), right in _outcomes(rows).items():
            for question, share in right.items():
                if with_tools and (count := hops.get(question, 0)):
                    cells.setdefault(benchmark, {}).setdefault(count, {}).setdefault(model, []).append(share)
    found: list[ByHops] = []
    for benchmark in sorted(cells, key=paper_order):
        groups = [_group(benchmark, count, answers) for count, answers in sorted(cells[benchmark].items())]
        if len(groups) > 1:
            models = [model for model in predictions if all(model in group.accuracy for group in groups)]
            means = {model: sum(group.accuracy[model] for group in groups) / len(groups) for model in models}
            found += [*groups, ByHops(benchmark, None, sum(group.n for group in groups), means)]
    return found


def _group(benchmark: str, hops: int, answers: Mapping[str, Sequence[float]]) -> ByHops:
    """The row for one number of hops; `answers` says for each model how often it answered each question right."""
    accuracy = {model: sum(right) / len(right) for model, right in answers.items()}
    return ByHops(benchmark, hops, max(len(right) for right in answers.values()), accuracy)


def _outcomes(rows: Sequence[Prediction]) -> dict[tuple[str, bool], dict[str, float]]:
    """(benchmark, with tools) -> question id -> the share of its samples that are right."""
    cells: dict[tuple[str, bool], list[Prediction]] = {}
    for row in rows:
        cells.setdefault((row.benchmark, row.with_tools), []).append(row)
    return {cell: by_question(group) for cell, group in cells.items()}


def _tested(
    score: Score, outcomes: Mapping[str, Mapping[tuple[str, bool], Mapping[str, float]]], layout: Layout
) -> Score:
    """`score` with its p-value against base, after checking that it agrees with its predictions."""
    cell = (score.benchmark, score.with_tools)
    ours = outcomes[score.model].get(cell, {})
    path = layout.predictions(score.model)
    what = f"{score.benchmark} {'with' if score.with_tools else 'without'} tools"
    if len(ours) != score.n or not math.isclose(sum(ours.values()), score.accuracy * score.n, abs_tol=1e-6):
        raise DataError(
            f"{path}: {sum(ours.values()):g} of {len(ours)} answers right on {what}, but "
            f"{layout.evaluation(score.model)} says {score.accuracy} of n={score.n}; run evaluate again"
        )
    base = outcomes["base"].get(cell)
    if score.model == "base" or base is None:
        return score
    try:
        return dataclasses.replace(score, p_vs_base=paired_p(base, ours))
    except ValueError as error:
        raise DataError(f"{path}, {what}, paired with {layout.predictions('base')}: {error}") from error


def _read_numbers(path: Path) -> dict[str, float]:
    """A flat JSON of finite numbers; null entries (not measured) are left out."""
    content = records.load_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object of numbers, got {str(content)[:60]}")
    for key, value in content.items():
        if value is not None and not _is_number(value):
            raise DataError(f"{path}: {key} is {value!r}, expected a finite number")
    return {key: value for key, value in content.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _require(content: Any, keys: Sequence[str], where: Path | str) -> None:
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected an object with {', '.join(keys)}, got {str(content)[:60]}")
    for key in keys:
        if key not in content:
            raise DataError(f"{where}: {key!r} is missing; expected {', '.join(keys)}")


def memory_at_chance(memory: Mapping[str, float]) -> bool | None:
    """Whether closed-book accuracy on the facts before their change is no better than guessing; None if not measured.

    Better means that the whole 95% Wilson interval lies above `chance` (0.05 unless stage `base_model` reports it).
    """
    if "closed_book_before" not in memory or memory.get("n", 0) < 1:
        return None
    n = int(memory["n"])
    return wilson(round(memory["closed_book_before"] * n), n)[0] <= memory.get("chance", 0.05)
