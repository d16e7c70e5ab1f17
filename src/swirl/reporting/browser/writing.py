"""Writes the browser's folder: the pages as they are, an index in columns, and shards of bodies.

The index is loaded first and holds what lists and filters need, a column for each field; what a trajectory says lies in
shards of about `SHARD` characters, loaded when it is opened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from swirl.core.errors import DataError
from swirl.core.types import Draw, Question
from swirl.pipeline.progress import counted
from swirl.reporting.browser.bodies import body, traits
from swirl.reporting.browser.scripts import encoded, script
from swirl.reporting.labelled import Labelled

PAGES = ("index.html", "browser.css", "data.js", "filters.js", "list.js", "detail.js", "browser.js")
"""The files of this package that are copied as they are."""

PROVENANCE = "provenance.js"
"""The script that says whose results these are; data.js knows it too."""

SHARD = 200_000
"""Characters of a shard, about; one trajectory more may be in it."""

EXCERPT = 300
"""Characters of a question in the index, which is all that a search in the page looks at."""


@dataclass(frozen=True, slots=True)
class Source:
    """The trajectories of one origin: an evaluated model, or the synthesis."""

    name: str
    """In permalinks, such as `swirl`."""
    label: str
    trajectories: Iterable[Labelled]
    draws: Mapping[str, list[Draw]] = field(default_factory=dict)
    """What RL drew, by trajectory id."""


def write(
    sources: Iterable[Source],
    questions: Mapping[str, Question],
    folder: Path,
    report: str = "",
    digest: str = "",
    provenance: str = "",
) -> int:
    """Write the browser of these trajectories into `folder`; returns their number.

    `questions` are by id. `report` is the report's page as the browser links to it, none if empty, and `digest` that of
    its `reports/results.json`, if the browser is to show whose results these are. The script that says so is
    `provenance`, written beside the pages, or, if empty, the one that may lie above them, beside the report's page. An
    older browser in the folder goes. Raises `DataError` for a folder that holds something else.
    """
    folder = folder.resolve()
    partial = folder.with_name(folder.name + ".partial")
    for replaced in (folder, partial):
        _require_browser(replaced)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "shards").mkdir(parents=True)
    index = _Index(questions, report, digest, PROVENANCE if provenance else f"../{PROVENANCE}")
    for source in sources:
        index.start(source)
        shards = _Shards(partial / "shards", len(index.sources) - 1)
        for one in counted(source.trajectories, 0, f"the trajectory browser, {source.label}"):
            drawn = source.draws.get(one.trajectory.id, [])
            index.add(one, bool(drawn))
            shards.add(_shown(one, questions, drawn))
        index.sources[-1] |= {"rows": shards.count, "shards": shards.close()}
    (partial / "index.js").write_text(script("swirl.load", encoded(index.columns())), encoding="ascii")
    for name in PAGES:
        (partial / name).write_bytes(files("swirl.reporting.browser").joinpath(name).read_bytes())
    if provenance:
        (partial / PROVENANCE).write_text(provenance, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return len(index.rows["question"])


def _require_browser(folder: Path) -> None:
    """Refuse to replace what is no trajectory browser, or a part of one that was being written."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; the trajectory browser wants a folder")
    known = {*PAGES, PROVENANCE, "index.js", "shards"}
    if others := {path.name for path in folder.iterdir()} - known if folder.exists() else set():
        raise DataError(f"{folder} holds {min(others)}, which is no part of a trajectory browser; name another folder")


def _shown(one: Labelled, questions: Mapping[str, Question], drawn: list[Draw]) -> dict[str, Any]:
    """What is shown of a trajectory; a question that the index holds in full is not repeated."""
    question = questions.get(one.trajectory.question_id)
    shown = body(one, question, drawn)
    if question is None or len(question.text) <= EXCERPT:
        shown.pop("text", None)
    return shown


class _Shards:
    """Bodies of one source, written file by file."""

    def __init__(self, folder: Path, source: int) -> None:
        self.count = 0
        self._folder, self._source = folder, source
        self._firsts: list[int] = []
        self._waiting: list[str] = []

    def add(self, shown: dict[str, Any]) -> None:
        """Take the next trajectory's body."""
        if not self._waiting:
            self._firsts.append(self.count)
        self._waiting.append(encoded(shown))
        self.count += 1
        if sum(map(len, self._waiting)) >= SHARD:
            self._write()

    def close(self) -> list[int]:
        """Write what is left; returns the number of the first trajectory of each shard, within its source."""
        if self._waiting:
            self._write()
        return self._firsts

    def _write(self) -> None:
        number, bodies = len(self._firsts) - 1, f"[{','.join(self._waiting)}]"
        text = script("swirl.shard", str(self._source), str(number), bodies)
        (self._folder / f"{self._source}-{number}.js").write_text(text, encoding="ascii")
        self._waiting = []


class _Index:
    """The columns that the page loads first."""

    def __init__(self, questions: Mapping[str, Question], report: str, digest: str, whose: str) -> None:
        self.sources: list[dict[str, Any]] = []
        self.rows: dict[str, list[int]] = {
            name: [] for name in ("question", "sample", "stop", "outcome", "steps", "traits")
        }
        self._report, self._digest, self._whose = report, digest, whose
        self._known = questions
        self._asked: dict[str, list[Any]] = {name: [] for name in ("id", "text", "benchmark", "hops")}
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in ("question", "benchmark", "stop")}
        self._other_ids: dict[int, str] = {}

    def start(self, source: Source) -> None:
        """The rows that follow are of this source."""
        self.sources.append({"name": source.name, "label": source.label})

    def add(self, one: Labelled, drawn: bool) -> None:
        """Take the next trajectory."""
        trajectory = one.trajectory
        if trajectory.id != f"{trajectory.question_id}/{trajectory.sample}":
            self._other_ids[len(self.rows["question"])] = trajectory.id
        values = {
            "question": self._question(trajectory.question_id, trajectory.benchmark),
            "sample": trajectory.sample,
            "stop": self._number("stop", trajectory.stop.value),
            "outcome": 2 if one.correct is None else int(one.correct),
            "steps": len(trajectory.steps),
            "traits": int(traits(one, drawn)),
        }
        for name, value in values.items():
            self.rows[name].append(value)

    def columns(self) -> dict[str, Any]:
        """The index as plain values."""
        return {
            "report": self._report,
            "results": self._digest,
            "whose": self._whose,
            "sources": self.sources,
            "benchmarks": list(self._numbers["benchmark"]),
            "stops": list(self._numbers["stop"]),
            "questions": self._asked,
            "rows": self.rows,
            "ids": self._other_ids,
        }

    def _question(self, name: str, benchmark: str) -> int:
        known = name in self._numbers["question"]
        number = self._number("question", name)
        if not known:
            question = self._known.get(name)
            self._asked["id"].append(name)
            self._asked["text"].append(question.text[:EXCERPT] if question else "(its text is not stored)")
            self._asked["benchmark"].append(self._number("benchmark", benchmark))
            self._asked["hops"].append(question.hops if question else 0)
        return number

    def _number(self, kind: str, name: str) -> int:
        return self._numbers[kind].setdefault(name, len(self._numbers[kind]))
