"""Two runs side by side: the settings that differ, and the models' accuracy on the questions that both asked."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.config.presets import differences
from swirl.config.yaml_text import read as read_yaml
from swirl.core import records
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.seeds import derive
from swirl.core.suggestions import meant
from swirl.core.types import Prediction, Question
from swirl.evaluation.statistics import bootstrap, by_question, paired_p
from swirl.pipeline.progress import if_slow
from swirl.reporting.paper import paper_order
from swirl.reporting.provenance import git, stale
from swirl.reporting.results import MODELS
from swirl.reporting.state_tables import require_answers

NEEDED = ("params.yaml", "data/questions", "data/predictions")
"""What there is to compare of a commit; with the rest of what is fetched, whether the answers are of the settings."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is compared of one run."""

    name: str
    settings: Mapping[str, Any]
    right: Mapping[tuple[str, str], Mapping[str, float]]
    """By benchmark and model, with tools: the share of each question's samples that are right.

    Questions go by id and text, because other seeds make other questions under the same id.
    """
    stale: tuple[str, ...] = ()
    """Why its answers are not of its settings, if they are not."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model of each run on one benchmark."""

    benchmark: str
    models: tuple[str, str]
    accuracy: tuple[float, float]
    """Of each run, over all the questions that it asked."""
    shared: int
    """The number of questions that both asked."""
    difference: float | None
    """Accuracy of the second less that of the first over the shared questions; None without any."""
    low: float | None
    high: float | None
    """95% interval of the paired bootstrap over the shared questions."""
    p: float | None
    """Of `paired_p` on the shared questions: with one sample a question, the exact McNemar test."""


def read(run: str, root: Path, models: Sequence[str] = MODELS) -> Run:
    """A run in a project's folder, or as the project `root` knows it: as a git revision, or a DVC experiment's name.

    Of the latter two DVC has to have the outputs. Raises `ParamsError` for what is none of these, or is the name of
    several experiments, and `DataError` where the run's evaluation is not there.
    """
    if (Path(run) / "params.yaml").is_file():
        return _read(run, Layout(Path(run)), models)
    commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{run}^{{commit}}")
    commit = commit or _experiment(run, root)
    with tempfile.TemporaryDirectory() as folder:
        _fetch(commit, run, root, Path(folder))
        return _read(run, Layout(Path(folder)), models)


def _experiment(name: str, root: Path) -> str:
    """The commit of the DVC experiment of that name, as DVC keeps it in git: refs/exps/ab/cdef.../NAME.

    All are listed and compared here, because git would take the name for a pattern. Raises `ParamsError`.
    """
    listed = git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/*/*/*") or ""
    commits = {ref: commit for commit, ref in map(str.split, listed.splitlines())}
    names = {ref: ref.split("/", 4)[4] for ref in commits}
    found = [ref for ref in commits if names[ref] == name]
    if not found:
        raise ParamsError(
            f"{name} is neither a project's folder (with a params.yaml) nor a git revision or DVC experiment of this "
            f"one{meant(name, names.values())}"
        )
    if len(found) > 1:
        raise ParamsError(f"{len(found)} DVC experiments are called {name}; give one of {', '.join(found)}")
    return commits[found[0]]


def _fetch(commit: str, run: str, root: Path, folder: Path) -> None:
    """Put settings, questions and predictions of a commit into `folder`, from git and DVC's cache."""
    from dvc.api import DVCFileSystem
    from dvc_data.index import DataIndexDirError

    files = DVCFileSystem(str(root), rev=commit)
    for path in (*NEEDED, "dvc.lock", "reports/results.json"):
        try:
            with if_slow(f"fetching {path} of {run} ..."):
                files.get(path, str(folder / path), recursive=path.startswith("data/"))
        except (FileNotFoundError, DataIndexDirError):  # the latter: the list of a folder's files is not in the cache
            if path not in NEEDED:
                continue
            raise DataError(
                f"{run} ({commit[:10]}): {path} is neither in git nor in DVC's cache here; `dvc pull` fetches it from "
                f"a remote, `git checkout {commit[:10]}` and `dvc repro` make it again; or name a folder in which it "
                "ran"
            ) from None


def _read(name: str, layout: Layout, models: Sequence[str]) -> Run:
    rows = [
        row
        for model in models
        if layout.predictions(model).exists()
        for row in records.load(Prediction, layout.predictions(model))
        if row.with_tools
    ]
    if not rows:
        require_answers(layout, name)
        raise DataError(f"{name} has no evaluation of {', '.join(models)}; run `dvc repro` there")
    texts = {question.id: question.text for question in records.load(Question, layout.questions)}
    if lost := [row.question_id for row in rows if row.question_id not in texts]:
        raise DataError(
            f"{name}: no question {lost[0]!r} in {layout.questions}, and an answer to it in data/predictions; the "
            "questions were made anew since: run `dvc repro` there"
        )
    cells: dict[tuple[str, str], list[Prediction]] = {}
    for row in rows:
        cells.setdefault((row.benchmark, row.model), []).append(row)
    right = {
        cell: {f"{one} {texts[one]}": share for one, share in by_question(made).items()} for cell, made in cells.items()
    }
    return Run(name, read_yaml(layout.root / "params.yaml"), right, stale(layout))


def compare(first: Run, second: Run, models: tuple[str, str] | None = None) -> list[Row]:
    """The rows of every benchmark and model that both runs evaluated, in the order of the report.

    With `models`, the first run's first model against the second run's second.
    """
    rows = []
    pairs = [models] if models else [(model, model) for model in MODELS]
    benchmarks = {benchmark for benchmark, _ in first.right} & {benchmark for benchmark, _ in second.right}
    for benchmark in sorted(benchmarks, key=paper_order):
        for pair in pairs:
            ours, theirs = first.right.get((benchmark, pair[0])), second.right.get((benchmark, pair[1]))
            if ours and theirs:
                rows.append(_row(benchmark, pair, ours, theirs))
    if not rows:
        raise DataError(f"{first.name} and {second.name} have evaluated no model on the same benchmark")
    return rows


def _row(benchmark: str, models: tuple[str, str], ours: Mapping[str, float], theirs: Mapping[str, float]) -> Row:
    accuracy = (sum(ours.values()) / len(ours), sum(theirs.values()) / len(theirs))
    shared = [one for one in ours if one in theirs]
    if not shared:
        return Row(benchmark, models, accuracy, 0, None, None, None, None)
    more = [theirs[one] - ours[one] for one in shared]
    low, high = bootstrap(more, derive(0, "compare", benchmark, *models))
    p = paired_p({i: ours[i] for i in shared}, {i: theirs[i] for i in shared})
    return Row(benchmark, models, accuracy, len(shared), sum(more) / len(more), low, high, p)


def changed(first: Run, second: Run) -> list[tuple[str, Any, Any]]:
    """(dotted key, the first run's value, the second's) wherever the settings differ."""
    return list(differences(first.settings, second.settings))
