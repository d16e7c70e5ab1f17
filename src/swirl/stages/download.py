"""download: the benchmarks' questions and the passages to search in."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swirl.benchmarks import official, own
from swirl.benchmarks.annotations import Solution, solve
from swirl.benchmarks.drawing import Drawn, Key, Wish, draw
from swirl.benchmarks.embedded.miniatures import EMBEDDED, build
from swirl.benchmarks.hub import HUB, Fetcher
from swirl.benchmarks.official import OFFICIAL, Loaded
from swirl.benchmarks.rows import Skipped
from swirl.config.data import Benchmark
from swirl.config.params import Params
from swirl.core.checksums import Checksum, checksum
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import save, save_json
from swirl.core.splits import counts, files_of
from swirl.core.types import Annotation, Conversation, Derivation, Passage, Question, Support, WrittenSolution
from swirl.wiring.logged_questions import ReadLogs, experiments_of, read_logs, seed_of, wanted_of
from swirl.wiring.questions import with_tools

SHOWN_ROWS = 20
"""How many bad rows of a file sources.json lists."""
SHOWN_IDS = 10
"""How many missing evaluation ids the warning lists; sources.json lists all of them."""


@dataclass(slots=True)
class Made:
    """The records and metrics that the stage will write."""

    questions: list[Question] = field(default_factory=list)
    derivations: list[Derivation] = field(default_factory=list)
    memory: list[Derivation] = field(default_factory=list)
    support: list[Support] = field(default_factory=list)
    solutions: list[WrittenSolution] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Files:
    """The files of all benchmarks that are not embedded, read once each."""

    loaded: dict[Key, Loaded] = field(default_factory=dict)
    """(benchmark, file) -> content; a file is named by its key under `files`, or `train` or `evaluation` on the hub."""
    listed: dict[str, tuple[list[Question], list[str]]] = field(default_factory=dict)
    """Benchmark with `eval_ids` -> the questions that it lists, and the ids that no question has."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """Content of sources.json."""

    def note(
        self,
        benchmark: str,
        file: str,
        parts: Sequence[dict[str, Any]],
        rows: int = 0,
        skipped: Sequence[Skipped] = (),
        missing: Sequence[str] = (),
    ) -> None:
        """Add a file to sources.json; `missing` are the ids of an id list that no question has."""
        bad = [{"place": one.place, "reason": one.reason} for one in skipped[:SHOWN_ROWS]]
        counts = {"rows": rows, "skipped": len(skipped), "bad_rows": bad}
        lost = {"missing_ids": list(missing)} if missing else {}
        self.sources.append({"benchmark": benchmark, "file": file, "parts": list(parts), **counts, **lost})


def run(params: Params, layout: Layout) -> None:
    """Write questions, golden labels, the list of source files, and one corpus per benchmark and split.

    Of logs, also their conversations, and what was changed and left out in them.
    """
    settings = params.download
    files = Files()
    fetcher = Fetcher(layout.root / settings.folder / "hub.lock.json", layout.root / ".swirl/hub")
    for name, benchmark in settings.benchmarks.items():
        _check_name(name, benchmark)
        if benchmark.source not in ("embedded", "logs"):
            _read(name, benchmark, files, params, layout, fetcher)
    drawn = _draw(params, files)
    corpora = layout.root / "data/corpus"
    shutil.rmtree(corpora, ignore_errors=True)  # left by other params, when the stage runs without DVC
    corpora.mkdir(parents=True, exist_ok=True)  # an output even if no task searches
    made = Made()
    for name, benchmark in settings.benchmarks.items():
        if benchmark.source == "embedded":
            _make_embedded(name, benchmark, params, layout, made)
        elif benchmark.source != "logs":
            _make_real(name, benchmark, files, drawn, layout, made)
    made.questions = [with_tools(question, params) for question in made.questions]
    _import(params, layout, files, made)
    save(made.questions, Question, layout.questions)
    save(made.derivations, Derivation, layout.derivations)
    save(made.memory, Derivation, layout.memory)
    save(made.support, Support, layout.support)
    save(made.solutions, WrittenSolution, layout.solutions)
    layout.annotations.unlink(missing_ok=True)
    if made.annotations:
        save(made.annotations, Annotation, layout.annotations)
    save_json(files.sources, layout.sources)
    save_json(made.metrics, layout.metrics("download"))


def _import(params: Params, layout: Layout, files: Files, made: Made) -> None:
    """Read the benchmarks that are logs, write their conversations, and add their questions.

    Raises `DataError` for files that cannot be read, for a bad line unless these are skipped, and for a split that no
    conversation is left for.
    """
    settings = params.download
    folder = layout.root / settings.folder
    for path in (layout.conversations, layout.imports):
        path.unlink(missing_ok=True)  # of other params, when the stage runs without DVC
    for experiment, path in experiments_of(settings, folder):
        from swirl.traces.kept_traces import keep_traces

        keep_traces(experiment, path, folder, layout)
    logs = [
        read_logs(name, benchmark, folder)
        for name, benchmark in settings.benchmarks.items()
        if benchmark.source == "logs"
    ]
    if not logs:
        return
    for one in logs:
        _note_logs(one, folder, settings.on_bad_row, files)

    def conversations() -> Iterator[Conversation]:
        for one in logs:
            yield from one.conversations()

    save(conversations(), Conversation, layout.conversations)
    reports = {}
    for one in logs:
        wanted = wanted_of(settings.benchmarks[one.name])
        dealt = one.dealt(wanted, seed_of(one.name, params.shared_seed))
        made.questions += dealt
        report = reports[one.name] = one.report(dealt)
        made.metrics |= {f"{one.name}.{split}.questions": size for split, size in report["splits"].items()}
        named = ("conversations", "groups", "trajectories", "steps", "near_duplicates", "labelled", "in_no_split")
        made.metrics |= {f"{one.name}.{key}": report[key] for key in named}
        made.metrics[f"{one.name}.left_out"] = len(report["left_out"])
        made.metrics[f"{one.name}.changed"] = sum(report["changed"].values())
    save_json(reports, layout.imports)


def _note_logs(read: ReadLogs, folder: Path, on_bad_row: str, files: Files) -> None:
    """Add the files of logs to sources.json. Raises `DataError` for a line that cannot be read, unless these are
    skipped."""
    for path, rows, bad in zip(read.files, read.logs.lines, read.bad_rows(), strict=True):
        if bad and on_bad_row != "skip":
            raise DataError(
                f"{read.name}: {bad[0].place}: {bad[0].reason}"
                + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")
                + "; download.on_bad_row: skip leaves such lines out, and counts them"
            )
        skipped = [Skipped(f"line {one.place.line}", one.reason) for one in bad]
        files.note(read.name, path.as_posix(), [_part(path.as_posix(), checksum(folder / path))], rows, skipped)


def _check_name(name: str, benchmark: Benchmark) -> None:
    known: dict[str, Iterable[str]] = {"embedded": EMBEDDED, "file": OFFICIAL, "hub": HUB}
    if name not in known.get(benchmark.source, (name,)):
        what = {"embedded": "an embedded benchmark", "file": "a benchmark with official files", "hub": "on the hub"}
        raise ParamsError(
            f"download.benchmarks.{name}: not {what[benchmark.source]}; they are {', '.join(known[benchmark.source])}"
        )
    if benchmark.drop_easy is not None and name != "hotpotqa":
        raise ParamsError(f"download.benchmarks.{name}.drop_easy: only hotpotqa says which questions are easy")


def _make_embedded(name: str, benchmark: Benchmark, params: Params, layout: Layout, made: Made) -> None:
    settings = params.download
    for split, count in counts(benchmark).items():
        built = build(name, split, int(count), settings.worlds, settings.changed_facts, params.shared_seed)
        made.questions += built.questions
        made.derivations += built.derivations
        made.memory += built.memory
        if built.passages:
            save(built.passages, Passage, layout.corpus(name, split))
        made.metrics[f"{name}.{split}.questions"] = len(built.questions)
        made.metrics[f"{name}.{split}.passages"] = len(built.passages)


def _file_of(name: str, benchmark: Benchmark, split: str) -> str:
    """Name of the file that the questions of a split come from.

    If a path has several names: `train`, which decides about easy questions and the expected row count, or else the
    first.
    """
    if benchmark.source == "hub":
        return split if split in HUB[name] else "train"
    wanted = files_of(benchmark).get(split) or files_of(benchmark)["train"]
    labels = [label for label, path in files_of(benchmark).items() if path == wanted]
    return "train" if "train" in labels else labels[0]


def _read(name: str, benchmark: Benchmark, files: Files, params: Params, layout: Layout, fetcher: Fetcher) -> None:
    """Read every file that the benchmark's splits need. Raises `DataError` where one cannot be fetched or read."""
    folder = layout.root / params.download.folder
    bad = "skip" if params.download.on_bad_row == "skip" else "raise"
    corpus = None
    if benchmark.corpus is not None:
        corpus = own.read_corpus(name, _given(folder, benchmark.corpus), on_bad_row=bad)
        parts = [_part(path.relative_to(folder).as_posix(), checksum(path)) for path in corpus.files]
        files.note(name, "corpus", parts, corpus.rows, corpus.skipped)
    for file in dict.fromkeys(_file_of(name, benchmark, split) for split in counts(benchmark)):
        if benchmark.source == "hub":
            fetched = [(fetcher.fetch(remote), f"{remote.place}/{remote.name}") for remote in HUB[name][file]]
            paths = [one.path for one, _ in fetched]
            parts = [_part(where, one.checksum, one.commit) for one, where in fetched]
        else:
            paths = [_given(folder, files_of(benchmark)[file])]
            parts = [_part(files_of(benchmark)[file], checksum(paths[0]))]
        if benchmark.source == "own":
            task = benchmark.task or ""
            tools = tuple(params.tasks[task].tools)
            loaded = own.read(name, file, paths[0], corpus, task=task, tools=tools, on_bad_row=bad)
        else:
            loaded = official.read(name, file, paths, drop_easy=benchmark.drop_easy is not False, on_bad_row=bad)
        if "search" in loaded.questions[0].tools and not loaded.passages:
            raise DataError(f"{name}: file {file!r} holds no passage to search in; {paths[0]}")
        files.loaded[name, file] = loaded
        files.note(name, file, parts, loaded.rows, loaded.skipped)
    if benchmark.eval_ids is not None:
        pool = files.loaded[name, _file_of(name, benchmark, "evaluation")].questions
        path = _given(folder, benchmark.eval_ids)
        files.listed[name] = _listed(name, pool, path)
        parts = [_part(benchmark.eval_ids, checksum(path))]
        files.note(name, "eval_ids", parts, missing=files.listed[name][1])


def _given(folder: Path, path: str) -> Path:
    """The full path of a file in params.yaml. Raises `DataError` when it does not exist."""
    if not (folder / path).exists():
        raise DataError(f"{folder / path} does not exist; paths are relative to download.folder, which is {folder}")
    return folder / path


def _part(where: str, found: Checksum, commit: str = "") -> dict[str, Any]:
    return {"path": where, "commit": commit, "bytes": found.bytes, "sha256": found.sha256}


def _listed(name: str, pool: Sequence[Question], path: Path) -> tuple[list[Question], list[str]]:
    """The questions that `eval_ids` lists, and the ids that no question has, of which it warns.

    Raises `DataError` when no question has any of the ids.
    """
    chosen, missing = official.select(pool, path)
    shown = ", ".join(missing[:SHOWN_IDS])
    if not chosen:
        raise DataError(f"{name}: no question has any of the {len(missing)} ids of {path}: {shown}")
    if missing:
        warnings.warn(f"{name}: {path} lists ids that no question has: {len(missing)}: {shown}", stacklevel=2)
    return chosen, missing


def _draw(params: Params, files: Files) -> Drawn:
    wishes = []
    for name, benchmark in params.download.benchmarks.items():
        if benchmark.source in ("embedded", "logs"):
            continue
        for split, count in counts(benchmark).items():
            listed = tuple(files.listed[name][0]) if split == "evaluation" and name in files.listed else ()
            file = _file_of(name, benchmark, split)
            wishes.append(Wish(name, split, file, None if count == "all" else count, listed))
    pools = {key: _short(params.download.benchmarks[key[0]], loaded.questions) for key, loaded in files.loaded.items()}
    return draw(wishes, pools, params.shared_seed)


def _short(benchmark: Benchmark, questions: Sequence[Question]) -> list[Question]:
    """The questions with 1 to `max_hops` hops; all questions if there is no such limit."""
    most = benchmark.max_hops
    return [question for question in questions if most is None or 1 <= question.hops <= most]


def _make_real(name: str, benchmark: Benchmark, files: Files, drawn: Drawn, layout: Layout, made: Made) -> None:
    stored: dict[int, Path] = {}
    for split in counts(benchmark):
        file = _file_of(name, benchmark, split)
        loaded = files.loaded[name, file]
        for question in drawn.questions[name, split]:
            identifier = f"{name}/{split}/{question.id.removeprefix(f'{name}/{file}/')}"
            hops = question.hops
            if question.id in loaded.solutions:
                written = loaded.solutions[question.id]
                made.solutions.append(WrittenSolution(identifier, written))
                solved = solve(question.text, written)
                if isinstance(solved, Solution):
                    made.derivations.append(solved.derivation(identifier))
                    hops = len(made.derivations[-1].calls)
            made.questions.append(replace(question, id=identifier, split=split, hops=hops))
            if split == "pretrain" and question.id in loaded.annotations:
                made.annotations.append(replace(loaded.annotations[question.id], question_id=identifier))
            if question.id in loaded.support:
                made.support.append(Support(identifier, tuple(loaded.support[question.id])))
        if loaded.passages:
            path = layout.corpus(name, split)
            _store(loaded.passages, path, stored.setdefault(id(loaded.passages), path))
        made.metrics[f"{name}.{split}.questions"] = len(drawn.questions[name, split])
        made.metrics[f"{name}.{split}.passages"] = len(loaded.passages)
    read = [loaded for (owner, _), loaded in files.loaded.items() if owner == name]
    noted = [source for source in files.sources if source["benchmark"] == name]
    made.metrics |= {
        f"{name}.rows": sum(source["rows"] for source in noted),
        f"{name}.skipped": sum(source["skipped"] for source in noted),
        f"{name}.unanswerable": sum(loaded.unanswerable for loaded in read),
        f"{name}.dropped_easy": sum(loaded.dropped_easy for loaded in read),
        f"{name}.blank_passages": sum(loaded.blank_passages for loaded in read),
        f"{name}.more_hops": sum(len(one.questions) - len(_short(benchmark, one.questions)) for one in read),
        f"{name}.repeated": drawn.repeated[name],
    }
    if name in files.listed:
        made.metrics[f"{name}.missing_ids"] = len(files.listed[name][1])


def _store(passages: Sequence[Passage], path: Path, first: Path) -> None:
    """Save a corpus at `path`, or, if the same one is already at `first`, make `path` another hard link to it."""
    if path == first:
        save(passages, Passage, path)
        return
    path.unlink(missing_ok=True)
    try:
        os.link(first, path)
    except OSError:  # a file system without hard links
        shutil.copyfile(first, path)
