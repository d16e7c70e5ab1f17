"""A run's evaluation as one small file, so that runs of several machines, or of different days, can be pooled.

It holds the settings without secrets, the scores, and how each question went by measure; of the questions themselves
their ids and a digest. JSON: `settings`, `seed`, `trained`, `scores`, `asked` (id -> digest) and `cells`, each with
`benchmark`, `with_tools`, `questions` (ids) and `models`: model -> measure -> [sums, numbers] in the order of the ids,
null where a question has none.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl.core import records
from swirl.core.errors import DataError
from swirl.evaluation.pooling import MEASURES, Tally
from swirl.reporting.pooled_runs import Cell, SeedRun
from swirl.reporting.results import is_number, read_score, require

_KEYS = ("seed", "settings", "trained", "scores", "asked", "cells")
_SUMS = 2  # sums, numbers


def keep(run: SeedRun, path: Path) -> None:
    """Write the run to `path`, a line for each cell's measure."""
    cells = []
    for (benchmark, with_tools), models in run.tallies.items():
        ids = sorted({name for measured in models.values() for tally in measured.values() for name in tally})
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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items()]
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(partial, path)


def _columns(tally: Tally, ids: Sequence[str]) -> list[list[float | None]]:
    return [[tally[name][part] if name in tally else None for name in ids] for part in range(_SUMS)]


def read_kept(path: Path) -> SeedRun:
    """Read a run that `keep` wrote. Raises `DataError` naming the file and what is wrong in it."""
    content = records.load_json(path)
    require(content, _KEYS, f"{path}, written by `swirl seeds --keep`")
    for key, kind in (("seed", int), ("settings", dict), ("trained", list), ("scores", list), ("asked", dict)):
        if not isinstance(content[key], kind):
            raise DataError(f"{path}: {key} is {str(content[key])[:60]!r}, expected {_NAMES[kind]}")
    scores = tuple(read_score(row, path, number) for number, row in enumerate(content["scores"]))
    cells = dict(_cell(row, f"{path}, cells, entry {number}") for number, row in enumerate(content["cells"]))
    run = SeedRun(
        path, content["seed"], content["settings"], tuple(content["trained"]), scores, content["asked"], cells
    )
    for (benchmark, with_tools), models in cells.items():
        for model in models:
            if not any((one.benchmark, one.with_tools, one.model) == (benchmark, with_tools, model) for one in scores):
                raise DataError(f"{path}: no score of {model} on {benchmark}")
    if lacking := [one for one in scores if one.model not in cells.get((one.benchmark, one.with_tools), {})]:
        raise DataError(f"{path}: {lacking[0].model} has a score on {lacking[0].benchmark}, and no cell")
    return run


_NAMES = {int: "a whole number", dict: "an object", list: "a list"}


def _cell(row: Any, where: str) -> tuple[Cell, dict[str, dict[str, Tally]]]:
    require(row, ("benchmark", "with_tools", "questions", "models"), where)
    ids, models = row["questions"], row["models"]
    require(models, ("base",), f"{where}, models")
    found: dict[str, dict[str, Tally]] = {}
    for model, measured in models.items():
        require(measured, ("accuracy",), f"{where}, {model}")
        for measure, columns in measured.items():
            if measure not in MEASURES:
                raise DataError(f"{where}, {model}: no measure {measure!r}; there are {', '.join(MEASURES)}")
            found.setdefault(model, {})[measure] = _tally(columns, ids, f"{where}, {model}, {measure}")
    return (str(row["benchmark"]), bool(row["with_tools"])), found


def _tally(columns: Any, ids: Sequence[str], where: str) -> Tally:
    lengths = [len(one) if isinstance(one, list) else -1 for one in columns] if isinstance(columns, list) else []
    if lengths != [len(ids)] * _SUMS:
        raise DataError(f"{where}: expected two lists of {len(ids)} numbers, one for each question")
    for column in columns:
        if wrong := [value for value in column if value is not None and not (is_number(value) and value >= 0)]:
            raise DataError(f"{where}: {wrong[0]!r} is no number from 0")
    pairs = zip(ids, *columns, strict=True)
    return {name: (total, number) for name, total, number in pairs if total is not None and number is not None}
