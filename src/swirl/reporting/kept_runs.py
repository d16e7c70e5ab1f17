"""A run's evaluation as one small file, so that runs of several machines, or of different days, can be pooled.

It holds the settings as they are shown in MLflow (without secrets: `swirl.config.secrets`), the scores, and how each
question went by measure; of the questions themselves their ids and a digest.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swirl.core import records
from swirl.core.errors import DataError
from swirl.evaluation.pooling import MEASURES, Tally
from swirl.reporting.markup import printable
from swirl.reporting.pooled_runs import Cell, SeedRun, what, wrong_scores
from swirl.reporting.results import read_score

_Number = Annotated[float, Field(ge=0, le=1e9)]
_Column = list[_Number | None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _KeptCell(_Strict):
    """What one benchmark, with or without tools, has: columns of sums and of numbers in the order of `questions`."""

    benchmark: str
    with_tools: bool
    questions: Annotated[list[str], Field(min_length=1)]
    models: dict[str, dict[str, Annotated[list[_Column], Field(min_length=2, max_length=2)]]]
    """Model -> measure -> sums and numbers, null where a question has none."""


class _KeptRun(_Strict):
    seed: int
    settings: dict[str, Any]
    trained: list[str]
    scores: list[dict[str, Any]]
    asked: dict[str, str]
    """Question id -> digest."""
    cells: list[_KeptCell]


def keep(run: SeedRun, path: Path) -> None:
    """Write the run to `path`, whatever is there."""
    cells = []
    for (benchmark, with_tools), models in run.tallies.items():
        # In the run's own order, in which the bootstrap draws.
        ids = list(dict.fromkeys(name for measured in models.values() for tally in measured.values() for name in tally))
        rows = {
            model: {measure: _columns(tally, ids) for measure, tally in measured.items()}
            for model, measured in models.items()
        }
        cells.append({"benchmark": benchmark, "with_tools": with_tools, "questions": ids, "models": rows})
    content = {
        "seed": run.seed,
        "settings": run.settings,
        "trained": list(run.trained),
        "scores": [dataclasses.asdict(score) for score in run.scores],
        "asked": run.asked,
        "cells": cells,
    }
    try:
        lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    except ValueError as error:
        raise DataError(f"{run.place} has a number in its settings or scores that is none: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}; --keep wants a folder") from error


def _columns(tally: Tally, ids: Sequence[str]) -> list[list[float | None]]:
    return [[tally[name][part] if name in tally else None for name in ids] for part in range(2)]


def read_kept(path: Path) -> SeedRun:
    """Read a run that `keep` wrote. Raises `DataError` naming the file and what is wrong in it."""
    try:
        kept = _KeptRun.model_validate(records.load_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(", ".join(str(part)[:80] for part in first["loc"]))
        raise _wrong(path, f"{where}: {first['msg']}" if where else str(first["msg"])) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise _wrong(path, str(error)) from error
    scores = tuple(read_score(row, path, number) for number, row in enumerate(kept.scores))
    if len({(score.benchmark, score.model, score.with_tools) for score in scores}) < len(scores):
        raise _wrong(path, "scores: two of one benchmark and model")
    tallies: dict[Cell, dict[str, dict[str, Tally]]] = {}
    for number, cell in enumerate(kept.cells):
        try:
            tallies[cell.benchmark, cell.with_tools] = _read_cell(cell, kept)
        except ValueError as error:
            raise _wrong(path, f"cells, {number}, {error}") from error
    if len(tallies) < len(kept.cells):
        raise _wrong(path, "cells: two of one benchmark")
    run = SeedRun(path, kept.seed, kept.settings, tuple(kept.trained), scores, kept.asked, tallies)
    for of_cell, model, right in wrong_scores(run):
        why = "the score of {} on {} is not what its cell says" if right else "a score of {} on {}, and no cell of it"
        raise _wrong(path, why.format(model, what(of_cell)))
    return run


def _wrong(path: Path, what: str) -> DataError:
    return DataError(f"{path} is no file that `swirl seeds FOLDER --keep DIR` wrote, or it was changed: {what}")


def _read_cell(cell: _KeptCell, kept: _KeptRun) -> dict[str, dict[str, Tally]]:
    """The tallies of a cell by model and measure. Raises `ValueError` for what contradicts itself."""
    ids = cell.questions
    if lost := [name for name in ids if name not in kept.asked]:
        raise ValueError(f"questions: {lost[0]!r} is not in asked")
    if len(set(ids)) < len(ids):
        raise ValueError("questions: one stands there twice")
    found: dict[str, dict[str, Tally]] = {}
    for model, measured in cell.models.items():
        for measure, (sums, numbers) in measured.items():
            if measure not in MEASURES:
                raise ValueError(f"models, {model}: no measure {measure!r}; there are {', '.join(MEASURES)}")
            if not len(sums) == len(numbers) == len(ids):
                raise ValueError(f"models, {model}, {measure}: not two lists of {len(ids)} numbers, one per question")
            tally: dict[str, tuple[float, float]] = {}
            for name, total, number in zip(ids, sums, numbers, strict=True):
                if total is not None and number is not None and total <= number:
                    tally[name] = total, number
                elif (total, number) != (None, None):
                    raise ValueError(f"models, {model}, {measure}, {name!r}: {total} of {number} is no share")
            found.setdefault(model, {})[measure] = tally
    base = found.get("base", {})
    for model, tallies in found.items():
        for measure in ("accuracy", *tallies):
            if measure not in tallies or tallies[measure].keys() != base.get(measure, {}).keys():
                raise ValueError(f"models, {model}, {measure}: not of the questions that base's is of")
    if not base or any(number != 1 for _, number in base["accuracy"].values()):
        raise ValueError("models, base, accuracy: not one number per question")
    return found
