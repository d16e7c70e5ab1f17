"""What to log of a stage, read from the files that it wrote. Knows nothing of MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.pipeline.dvc_file import DvcStage, dvc_hash


@dataclass(slots=True)
class Contents:
    """What is logged of one stage."""

    metrics: dict[str, float] = field(default_factory=dict)
    series: list[tuple[str, float, int]] = field(default_factory=list)
    """(name, value, step)"""
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[Path, str]] = field(default_factory=list)
    """(file or folder, the artifact folder that it is logged to)"""


def read_contents(stage: DvcStage, layout: Layout, since: float, max_model_mb: float) -> Contents:
    """Read the outputs of `stage` that were written at or after `since` (Unix time; 0: all).

    A model larger than `max_model_mb` megabytes is a tag with DVC's hash instead of a copy (0: no limit; negative:
    every model). A gate that failed since then is logged with the report of its failure (unless `since` is 0).

    Raises `DataError` for a report that is not JSON.
    """
    contents = Contents()
    failed = layout.root / f".swirl/quality/{stage.name.removeprefix('check_')}.failed.json"
    if since and failed.exists() and failed.stat().st_mtime >= since:
        contents.artifacts.append((failed, "reports/quality"))
        _add_gate(contents, failed)
    own = [path.relative_to(layout.root).as_posix() for path in (layout.metrics(stage.id), layout.series(stage.id))]
    for out in dict.fromkeys([*stage.outs, *own]):
        path = layout.root / out
        if not path.exists() or max(file.stat().st_mtime for file in [path, *_files(path)]) < since:
            continue
        if out.startswith("models/") and not fits(path, max_model_mb):
            contents.tags[out] = f"not copied: {dvc_hash(path)}"
        elif out.startswith(("models/", "reports/")):
            contents.artifacts.append((path, out if path.is_dir() else str(Path(out).parent)))
        for report in _files(path) if out.startswith("reports/") else []:
            _add_report(contents, report, stage, layout)
    return contents


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def fits(path: Path, max_mb: float) -> bool:
    """Whether a file or folder is small enough to copy; `max_mb` 0: no limit."""
    return max_mb == 0 or sum(file.stat().st_size for file in _files(path)) <= max_mb * 1e6


def _add_report(contents: Contents, path: Path, stage: DvcStage, layout: Layout) -> None:
    """Extract metrics from a report of a known kind, recognised by its path; any other is an artifact only."""
    if path == layout.metrics(stage.id):
        kind, measured = stage.name.partition("@")[0], numbers(load_json(path))
        if kind == "train":  # what was measured before the first update is the first point of the curves
            measured = {name: value for name, value in measured.items() if not name.startswith("start.")}
        renamed = {"evaluate": by_measure, "train": grouped}.get(kind, str)
        contents.metrics.update({renamed(name): value for name, value in measured.items()})
    elif path == layout.series(stage.id):
        contents.series.extend(points(load_json(path)))
    elif path.parent == layout.quality("").parent:
        _add_gate(contents, path)


def _add_gate(contents: Contents, path: Path) -> None:
    """Extract tag and metrics from a gate's report, such as `steps.json` or `steps.failed.json`."""
    report = load_json(path)
    contents.tags["gate"] = "passed" if report.get("success") else "failed"
    contents.metrics.update(numbers(report, f"gate.{path.name.partition('.')[0]}."))


def by_measure(name: str) -> str:
    """Rename `mini-gsm8k.accuracy` to `accuracy/mini-gsm8k`, `mini-gsm8k.hops_2.accuracy` to `accuracy_by_hops/...`.

    MLflow then groups each measure over all benchmarks, so that a comparison of the models' runs is the paper's table.
    """
    where, dot, measure = name.rpartition(".")
    benchmark, _, part = where.rpartition(".")
    if part == "without_tools":
        return f"{measure}_without_tools/{benchmark}"
    if part.startswith(("hops_", "mean_of_hops")) and benchmark:
        return f"{measure}_by_hops/{where}"
    return f"{measure}/{where}" if dot else name


def points(rows: list[dict[str, float]]) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of every number in the rows of a series, its name as of `grouped`."""
    for row in rows:
        for name, value in numbers(row).items():
            if name != "step":
                yield grouped(name), value, int(row["step"])


def grouped(name: str) -> str:
    """Rename what training measures to `train/kl`, `development/reward` or, by golden labels, `oracle/process_label`.

    MLflow then shows each group by itself.
    """
    for group, prefix in (("development", "development."), ("oracle", "golden.")):
        if name.startswith(prefix):
            return f"{group}/{name.removeprefix(prefix)}"
    return f"train/{name}"


def numbers(value: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested mappings by dotted name; booleans become 0 or 1."""
    return {name: float(inner) for name, inner in _leaves(value, prefix) if isinstance(inner, bool | int | float)}


def flat(params: Mapping[str, Any], only: tuple[str, ...] = ()) -> dict[str, str]:
    """Parameters by dotted name (`filter.strategy`), as text or JSON; with `only`, just these keys and those below."""
    return {
        name: inner if isinstance(inner, str) else json.dumps(inner)
        for name, inner in _leaves(params)
        if not only or any(f"{name}.".startswith(f"{wanted}.") for wanted in only)
    }


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all that nested mappings hold, in characters that MLflow accepts in names.

    An empty mapping is a value.
    """
    for key, inner in value.items():
        name = re.sub(r"[^\w\-. /]", "_", f"{prefix}{key}")
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{name}.")
        else:
            yield name, inner
