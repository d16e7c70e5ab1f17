"""The benchmarks: questions, golden answers, and the passages to search in."""

from __future__ import annotations

from pathlib import Path

from swirl.errors import DataError
from swirl.types import Passage, Question


def load(
    name: str,
    split: str,
    path: Path | None = None,
    *,
    count: int = 400,
    worlds: int = 3,
    changed: float = 0.5,
    seed: int = 0,
) -> tuple[list[Question], list[Passage]]:
    """One split of a benchmark, and its corpus; the keywords size an embedded benchmark.

    Raises `DataError` for a name that is not known, and for a `path`: official files are not read yet.
    """
    from swirl.benchmarks.embedded import EMBEDDED, build

    if name not in EMBEDDED:
        raise DataError(f"benchmark {name!r} is not known; the embedded ones are {', '.join(EMBEDDED)}")
    if path is not None:
        raise DataError(f"benchmark {name!r} is generated, so it has no file to read; leave out path {str(path)!r}")
    built = build(name, split, count, worlds, changed, seed)
    return built.questions, built.passages
