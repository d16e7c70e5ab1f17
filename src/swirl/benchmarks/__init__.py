"""The benchmarks: questions, golden answers, and the passages to search in."""

from __future__ import annotations

from pathlib import Path

from swirl.core.errors import DataError
from swirl.core.types import Passage, Question


def load(
    name: str,
    split: str,
    path: Path | None = None,
    *,
    count: int = 400,
    worlds: int = 3,
    changed: float = 0.5,
    seed: int = 0,
    drop_easy: bool = True,
    on_bad_row: str = "raise",
) -> tuple[list[Question], list[Passage]]:
    """One split of a benchmark, and its corpus.

    An embedded benchmark is generated, in the size that `count`, `worlds`, `changed` and `seed` say. An official one is
    read from the local file `path`, as `swirl.benchmarks.official.read` says, which also takes `drop_easy` and
    `on_bad_row` and returns more: what was left out, and why.

    Raises `DataError` for a name that is not known, an official benchmark without a `path`, an embedded one with a
    `path`, and a file that cannot be read.
    """
    from swirl.benchmarks.embedded import EMBEDDED, build
    from swirl.benchmarks.official import OFFICIAL, read

    if name in OFFICIAL:
        if path is None:
            raise DataError(f"benchmark {name!r} is read from its official file; give its path")
        loaded = read(name, split, path, drop_easy=drop_easy, on_bad_row=on_bad_row)
        return loaded.questions, loaded.passages
    if name not in EMBEDDED:
        known = f"the embedded ones are {', '.join(EMBEDDED)}, the official ones {', '.join(OFFICIAL)}"
        raise DataError(f"benchmark {name!r} is not known; {known}")
    if path is not None:
        raise DataError(f"benchmark {name!r} is generated, so it has no file to read; leave out path {str(path)!r}")
    built = build(name, split, count, worlds, changed, seed)
    return built.questions, built.passages
