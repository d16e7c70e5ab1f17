"""What to log of a stage, read from the files that it wrote. Knows nothing of MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swirl.core.checksums import checksum
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.pipeline.dvc_file import DvcStage


@dataclass(slots=True)
class Contents:
    """What is logged of one stage."""

    metrics: dict[str, float] = field(default_factory=dict)
    series: list[tuple[str, float, int]] = field(default_factory=list)
    """(name, value, step)"""
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[Path, str]] = field(default_factory=list)
    """(file or folder, the artifact folder that it is logged to)"""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """(artifact name, text): checksums in place of models that are too large to copy"""


def read_contents(stage: DvcStage, layout: Layout, since: float, max_model_mb: float) -> Contents:
    """Read the outputs of `stage` that were written at or after `since` (Unix time; 0: all).

    A model larger than `max_model_mb` megabytes is logged as checksums instead of a copy (0: no limit; negative: every
    model). A gate that failed since then is logged with the report of its failure (unless `since` is 0).

    Raises `DataError` for a report that is not JSON.
    """
    contents = Contents()
    if since and (failed := _failed_gate(stage, layout)).exists() and failed.stat().st_mtime >= since:
        contents.artifacts.append((failed, "reports/quality"))
        _add_gate(contents, failed)
    for out in dict.fromkeys([*stage.outs, *_own_files(stage, layout)]):
        path = layout.root / out
        if not path.exists() or _newest(path) < since:
            continue
        top = out.split("/")[0]
        if top == "models":
            _add_model(contents, path, out, max_model_mb)
        elif top == "reports":
            contents.artifacts.append((path, out if path.is_dir() else str(Path(out).parent)))
            for report in [path] if path.is_file() else sorted(path.rglob("*.json")):
                _add_report(contents, report, stage, layout)
    return contents


def _own_files(stage: DvcStage, layout: Layout) -> list[str]:
    own = (layout.metrics(stage.id), layout.series(stage.id))
    return [path.relative_to(layout.root).as_posix() for path in own]


def _failed_gate(stage: DvcStage, layout: Layout) -> Path:
    """Where `swirl.quality.validation.publish` writes the report of a gate that failed; other stages have none."""
    return layout.root / f".swirl/quality/{stage.name.removeprefix('check_')}.failed.json"


def _newest(path: Path) -> float:
    return max(file.stat().st_mtime for file in [path, *_files(path)])


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _add_model(contents: Contents, path: Path, name: str, max_mb: float) -> None:
    if fits(path, max_mb):
        contents.artifacts.append((path, name if path.is_dir() else str(Path(name).parent)))
    else:
        contents.texts.append((f"{name}.sha256", _checksums(path)))


def fits(path: Path, max_mb: float) -> bool:
    """Whether a file or folder is small enough to copy; `max_mb` 0: no limit."""
    return max_mb == 0 or sum(file.stat().st_size for file in _files(path)) <= max_mb * 1e6


def _checksums(path: Path) -> str:
    """One line per file, as `sha256sum` writes it, after a line that says where the files are."""
    lines = [f"# not copied: {path}"]
    for file in _files(path):
        lines.append(f"{checksum(file).sha256}  {file.relative_to(path) if path.is_dir() else file.name}")
    return "\n".join(lines) + "\n"


def _add_report(contents: Contents, path: Path, stage: DvcStage, layout: Layout) -> None:
    """Extract metrics from a report of a known kind, recognised by its path; any other is an artifact only."""
    if path == layout.metrics(stage.id):
        measured = numbers(load_json(path))
        renamed = {"evaluate": by_measure, "train": grouped}.get(stage.name.partition("@")[0], str)
        contents.metrics.update({renamed(name): value for name, value in measured.items()})
    elif path == layout.series(stage.id):
        contents.series.extend(points(load_json(path)))
    elif path.parent == layout.quality("").parent:
        _add_gate(contents, path)
    elif path.parent == layout.evaluation("").parent:
        contents.metrics.update({by_measure(name): value for name, value in _scores(load_json(path), "").items()})


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

    MLflow then shows each group by itself. What was measured before the first update is `development/start.reward`.
    """
    rest = name.removeprefix("start.")
    start = name.removesuffix(rest)
    for group, prefix in (("development", "development."), ("oracle", "golden.")):
        if rest.startswith(prefix):
            return f"{group}/{start}{rest.removeprefix(prefix)}"
    return f"train/{name}"


def _scores(scores: list[dict[str, Any]], prefix: str) -> dict[str, float]:
    """`<benchmark>.accuracy` and so on; `<benchmark>.without_tools.accuracy` for scores without tools."""
    found: dict[str, float] = {}
    for score in scores:
        where = score["benchmark"] if score["with_tools"] else f"{score['benchmark']}.without_tools"
        found.update(
            {f"{prefix}{where}.{name}": value for name, value in numbers(score).items() if name != "with_tools"}
        )
    return found


def numbers(value: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested mappings by dotted name, in characters that MLflow accepts; booleans become 0 or 1."""
    found: dict[str, float] = {}
    for key, inner in value.items():
        name = _named(f"{prefix}{key}")
        if isinstance(inner, Mapping):
            found.update(numbers(inner, f"{name}."))
        elif isinstance(inner, (bool, int, float)):
            found[name] = float(inner)
    return found


def _named(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)


def flat(params: Mapping[str, Any], only: tuple[str, ...] = (), prefix: str = "") -> dict[str, str]:
    """Parameters by dotted name (`filter.strategy`), as text or JSON; with `only`, just these keys and those below."""
    found: dict[str, str] = {}
    for key, value in params.items():
        name = _named(f"{prefix}{key}")
        if isinstance(value, Mapping) and value:
            found.update(flat(value, only, f"{name}."))
        elif not only or any(f"{name}.".startswith(f"{wanted}.") for wanted in only):
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found
