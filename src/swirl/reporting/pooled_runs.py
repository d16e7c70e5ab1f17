"""Runs of the pipeline that differ in their seed alone: read, checked against each other, and pooled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from swirl.config import params
from swirl.config.presets import differences
from swirl.config.secrets import plain
from swirl.core import records
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.splits import counts
from swirl.core.types import Question, Score, Trajectory
from swirl.evaluation.pooling import MEASURES, Pooled, Tally, corrected, pool, tallies
from swirl.evaluation.supporting import supporting_pages
from swirl.reporting.provenance import stale
from swirl.reporting.results import load, load_predictions
from swirl.reporting.state_tables import require_answers

Cell = tuple[str, bool]
"""(benchmark, with tools)."""


@dataclass(frozen=True, slots=True)
class SeedRun:
    """What one run's stages wrote about its evaluation."""

    place: Path
    """The project's folder, or the file that stands in for it (`swirl.reporting.kept_runs`)."""
    seed: int
    settings: dict[str, Any]
    """params.yaml without `seed`, and without secrets."""
    trained: tuple[str, ...]
    """The benchmarks that RL trained on."""
    scores: tuple[Score, ...]
    asked: dict[str, str]
    """Question id -> a digest of its text and answers."""
    tallies: dict[Cell, dict[str, dict[str, Tally]]]
    """By model and measure; without tools the accuracy alone."""

    def at(self, path: Path) -> Path:
        """Where something of the run is: `path` of a project's folder, or the file that stands in for it."""
        return self.place if self.place.is_file() else path

    @property
    def params_file(self) -> Path:
        """Where its settings are."""
        return self.at(self.place / "params.yaml")


@dataclass(frozen=True, slots=True)
class PooledRuns:
    """Everything that `swirl seeds` prints."""

    seeds: tuple[int, ...]
    settings: dict[str, Any]
    """params.yaml without `seed`."""
    scores: tuple[Score, ...]
    """As in `reports/results.json`, over all runs: means, and for accuracy the bootstrap's interval and p-value."""
    rows: tuple[Pooled, ...]
    runs: tuple[tuple[Score, ...], ...]
    """The scores of each run."""

    @property
    def against(self) -> str:
        """The model that the others are set against in `rows`."""
        return self.rows[0].against if self.rows else "base"

    @property
    def trained(self) -> list[str]:
        """The benchmarks that RL trained on."""
        return list(dict.fromkeys(row.benchmark for row in self.rows if row.trained))


def read(folder: Path) -> SeedRun:
    """Read one run. Raises `DataError` or `ParamsError` for a file that is missing, broken or contradicts another."""
    if not (folder / "params.yaml").is_file():
        raise ParamsError(
            f"{folder} holds no params.yaml; a run is a project's folder, in which the pipeline has run, or a file "
            "that `swirl seeds --keep` made of one"
        )
    layout, settings = Layout(folder), params.load(folder / "params.yaml")
    if reasons := stale(layout):
        raise DataError(
            f"{folder}: its answers are not of its params.yaml: {reasons[0]}; run `dvc repro` there, or, if it "
            "alters no answer that is there, `dvc commit`, which records the settings as they are now"
        )
    scores = load(layout.results).scores
    models = dict.fromkeys(("base", *settings.train.methods, *(score.model for score in scores)))
    predictions = load_predictions(layout, list(models))
    asked = {row.question_id for rows in predictions.values() for row in rows}
    questions = {row.id: row for row in records.pick(Question, layout.questions, "id", sorted(asked))}
    if lost := sorted(asked - questions.keys()):
        raise DataError(
            f"{layout.questions}: no question {lost[0]!r}, which {layout.predictions('base').parent} answers"
        )
    pages = supporting_pages(layout, questions.values())
    found: dict[Cell, dict[str, dict[str, Tally]]] = {}
    for model, rows in predictions.items():
        if not rows:
            require_answers(layout, str(folder))
            raise DataError(f"{layout.predictions(model)} holds no prediction; run `dvc repro evaluate@{model}` there")
        made = {one.id: one for one in records.load(Trajectory, layout.prediction_trajectories(model))}
        for cell in dict.fromkeys((row.benchmark, row.with_tools) for row in rows):
            of_cell = [row for row in rows if (row.benchmark, row.with_tools) == cell]
            behind = [row.trajectory_id for row in of_cell if cell[1]]
            if lost := [name for name in behind if name not in made]:
                raise DataError(f"{layout.prediction_trajectories(model)}: no trajectory {lost[0]!r}; evaluate again")
            measured = tallies(of_cell, [made[name] for name in behind], pages)
            found.setdefault(cell, {})[model] = measured if cell[1] else {"accuracy": measured["accuracy"]}
    trained = tuple(name for name, one in settings.download.benchmarks.items() if "train" in counts(one))
    named = {key: value for key, value in plain(settings).items() if key != "seed"}
    texts = {name: _digest(question) for name, question in sorted(questions.items())}
    run = SeedRun(folder, settings.seed, named, trained, scores, texts, found)
    _require_scored(run, layout)
    return run


def _digest(question: Question) -> str:
    return blake2b("\0".join((question.text, *question.answers)).encode(), digest_size=8).hexdigest()


def _require_scored(run: SeedRun, layout: Layout) -> None:
    """Raise `DataError` unless `reports/results.json` is of the predictions, and each model's are on the base's."""
    for cell, model, right in wrong_scores(run):
        if not right:
            raise DataError(f"{layout.predictions(model)}: no prediction on {what(cell)}")
        mean = sum(share for share, _ in right.values()) / len(right)
        raise DataError(
            f"{layout.results}: of {model} on {what(cell)} it is not what {layout.predictions(model)} "
            f"says, {mean:.4f} right of {len(right)}; run `dvc repro report` there"
        )
    for cell, models in run.tallies.items():
        for model, measured in models.items():
            if measured["accuracy"].keys() != models.get("base", {}).get("accuracy", {}).keys():
                raise DataError(f"{layout.predictions(model)}: {what(cell)}, other questions than those of base")


def wrong_scores(run: SeedRun) -> Iterator[tuple[Cell, str, Tally]]:
    """Cell and model of each score that is not what the model's answers say, or not there, with these answers."""
    scored = {(score.benchmark, score.with_tools, score.model): score for score in run.scores}
    for cell, models in run.tallies.items():
        for model, measured in models.items():
            right, score = measured["accuracy"], scored.pop((*cell, model), None)
            mean = sum(share for share, _ in right.values()) / max(1, len(right))
            if score is None or score.n != len(right) or not math.isclose(score.accuracy, mean, abs_tol=1e-6):
                yield cell, model, right
    for benchmark, with_tools, model in scored:
        yield (benchmark, with_tools), model, {}


def what(cell: Cell) -> str:
    """A cell in words."""
    return f"{cell[0]} {'with' if cell[1] else 'without'} tools"


def require_alike(runs: Sequence[SeedRun]) -> None:
    """Raise `ParamsError` or `DataError` unless the runs differ in their seed alone and asked the same questions."""
    first = runs[0]
    for number, run in enumerate(runs[1:], 1):
        path, other = run.params_file, first.params_file
        for key, old, new in differences(first.settings, run.settings):
            raise ParamsError(f"{path}: {key} is {new!r}, but {old!r} in {other}; only seed may differ")
        if twin := next((one for one in runs[:number] if one.seed == run.seed), None):
            raise ParamsError(f"{path}: seed is {run.seed}, as in {twin.params_file}")
        _require_same_questions(first, run)


def _measured(run: SeedRun) -> set[tuple[Cell, str, str]]:
    """(cell, model, measure) of everything that was measured."""
    by_cell = run.tallies.items()
    return {(cell, model, one) for cell, models in by_cell for model, made in models.items() for one in made}


def _require_same_questions(first: SeedRun, run: SeedRun) -> None:
    here, there = _measured(run), _measured(first)
    for lacking, missing in ((run, there - here), (first, here - there)):
        for cell, model, measure in sorted(missing):
            file = lacking.at(Layout(lacking.place).predictions(model))
            raise DataError(f"{file}: no {measure} of a prediction on {what(cell)}, unlike another run")
    why = "runs are pooled over the same questions, which the same base_seed draws"
    for name in sorted(first.asked.keys() | run.asked.keys()):
        ours, theirs = run.asked.get(name), first.asked.get(name)
        where = f"{run.at(Layout(run.place).questions)}: question {name!r}"
        if ours is None or theirs is None:
            raise DataError(f"{where} is asked {'here' if ours else f'in {first.place}'} alone; {why}")
        if ours != theirs:
            raise DataError(f"{where} has another text, or other answers, than in {first.place}; {why}")


def pooled(runs: Sequence[SeedRun], against: str = "base") -> PooledRuns:
    """All measures over all runs, differences from the model `against`; `scores` are set against the base as ever.

    Raises as `require_alike` does, and `DataError` where a run has no such model.
    """
    require_alike(runs)
    first = runs[0]
    models_there = {model: None for measured in first.tallies.values() for model in measured}
    if against not in models_there:
        raise DataError(f"{first.place} has no model {against!r} to set others against, but {', '.join(models_there)}")
    rows: list[Pooled] = []
    accuracy: dict[Cell, Pooled] = {}
    for cell in dict.fromkeys((score.benchmark, score.with_tools) for score in first.scores):
        for measure in MEASURES:
            models = {
                model: [run.tallies[cell][model][measure] for run in runs]
                for model, measured in first.tallies[cell].items()
                if measure in measured
            }
            if measure == "accuracy":
                accuracy[cell] = pool(cell[0], measure, cell[0] in first.trained, models)
            if cell[1] and against in models:
                rows.append(pool(cell[0], measure, cell[0] in first.trained, models, against))
    return PooledRuns(
        seeds=tuple(run.seed for run in runs),
        settings=first.settings,
        scores=tuple(_mean(score, runs, accuracy[score.benchmark, score.with_tools]) for score in first.scores),
        rows=tuple(corrected(rows)),
        runs=tuple(run.scores for run in runs),
    )


def _mean(score: Score, runs: Iterable[SeedRun], accuracy: Pooled) -> Score:
    """The mean of a score over the runs, with the accuracy's interval and p-value of the bootstrap."""
    key = (score.benchmark, score.model, score.with_tools)
    same = [one for run in runs for one in run.scores if (one.benchmark, one.model, one.with_tools) == key]
    averaged = ("em", "f1", "precision", "recall", "process_label_judge", "process_label_oracle", "steps", "malformed")
    means: dict[str, Any] = {}
    for name in averaged:
        known = [value for one in same if (value := getattr(one, name)) is not None]
        means[name] = sum(known) / len(known) if known else None
    mean, difference = accuracy.models[score.model], accuracy.over.get(score.model)
    means |= {"accuracy": mean.value, "ci_low": mean.low, "ci_high": mean.high}
    return dataclasses.replace(score, p_vs_base=difference.p if difference else None, **means)


def to_json(results: PooledRuns) -> dict[str, Any]:
    """What `--json` writes; `pooled` has a row for each benchmark and measure."""
    return {
        "seeds": list(results.seeds),
        "settings": results.settings,
        "scores": [dataclasses.asdict(score) for score in results.scores],
        "pooled": [dataclasses.asdict(row) for row in results.rows],
        "runs": [
            {"seed": seed, "scores": [dataclasses.asdict(score) for score in scores]}
            for seed, scores in zip(results.seeds, results.runs, strict=True)
        ],
    }
