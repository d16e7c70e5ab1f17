"""Reads the five benchmarks from local copies of their official files; docs/benchmarks.md shows their formats.

Deviation from the papers: the corpus of a search benchmark is the union of its questions' own passages, not all of
Wikipedia, so finding a passage is easier.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks import beerqa, cofca, gsm8k, hotpotqa, musique
from swirl.benchmarks.rows import Format, Pair, Parsed, Row, Skipped, composed, parse_rows
from swirl.core.errors import DataError
from swirl.core.suggestions import meant
from swirl.core.types import Annotation, Passage, Question

OFFICIAL: Mapping[str, Format] = {
    "gsm8k": gsm8k.FORMAT,
    "hotpotqa": hotpotqa.FORMAT,
    "musique": musique.FORMAT,
    "cofca": cofca.FORMAT,
    "beerqa": beerqa.FORMAT,
}
"""The benchmarks that have official files."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The content of one file, which may come in parts."""

    rows: int
    """Number of all rows, including those left out."""
    questions: list[Question]
    passages: list[Passage]
    """The corpus: every passage once, in order of first appearance, dropped easy questions' passages included."""
    support: dict[str, list[str]]
    """Question id -> ids of its supporting passages; without the questions whose supporting passages are incomplete."""
    solutions: dict[str, str]
    """Question id -> its written golden solution, where the file has one (GSM8K)."""
    annotations: dict[str, Annotation]
    """Question id -> the way to its answer, where the file has one (MuSiQue, own tasks)."""
    skipped: list[Skipped]
    unanswerable: int
    """Rows left out, with their passages, because no answer exists (MuSiQue)."""
    dropped_easy: int
    """Questions left out because their level is easy (HotPotQA, split `train`)."""
    blank_passages: int
    """Passages left out because they have no text."""


def read(
    name: str,
    split: str,
    path: Path | Sequence[Path],
    *,
    drop_easy: bool = True,
    on_bad_row: str = "raise",
    whole: bool = True,
) -> Loaded:
    """Read an official file of benchmark `name` (or its parts); ids and the expected row count depend on `split`.

    Ids are `<name>/<split>/<official id>` and, of passages, `<name>/<split>/<number>`. `drop_easy` leaves out
    HotPotQA's easy questions where the split is `train`. `on_bad_row` is `raise` or `skip`. `whole` says that the file
    is meant to be all of an official split.

    Warns when a `whole` official split does not have the expected number of rows with an answer, when rows are skipped,
    and when easy questions are to be left out but rows do not say how hard they are: those stay.
    Raises `DataError`: for a bad row, naming file, row, field, value and what is expected; for a file that cannot be
    read at all or that leaves no question; and for arguments that are not known.
    """
    form = _format(name, split, on_bad_row)
    paths = [path] if isinstance(path, Path) else list(path)
    parsed = parse_rows(form.parse, paths, on_bad_row, form.wrapper)
    where = " and ".join(str(part) for part in paths)
    if whole:
        _check_count(form.counts.get(split), parsed, where, f"{name} {split}")
    unsaid = sum(row.easy is None for row in parsed.rows) if drop_easy and split == "train" else 0
    if unsaid:
        warnings.warn(f"{where}: rows without a level: {unsaid}; they stay, although some may be easy", stacklevel=2)
    dropped = {row.id for row in parsed.rows if row.easy and drop_easy and split == "train"}
    kept = [row for row in parsed.rows if row.id not in dropped]
    check_rest(where, parsed, kept, len(dropped))
    prefix = f"{name}/{split}"
    ids = _corpus(parsed.rows, prefix)
    return Loaded(
        rows=parsed.count,
        questions=[
            Question(f"{prefix}/{row.id}", name, split, row.text, row.answers, row.hops, form.tools, form.task)
            for row in kept
        ],
        passages=[Passage(number, title, text) for (title, text), number in ids.items()],
        support={
            f"{prefix}/{row.id}": [ids[pair] for pair in dict.fromkeys(row.support)]
            for row in kept
            if row.support and all(pair in ids for pair in row.support)
        },
        solutions={f"{prefix}/{row.id}": row.solution for row in kept if row.solution},
        annotations=annotated(kept, prefix),
        skipped=parsed.skipped,
        unanswerable=parsed.unanswerable,
        dropped_easy=len(dropped),
        blank_passages=sum(not text for row in parsed.rows for _, text in row.context),
    )


def load(
    name: str, split: str, path: Path, *, drop_easy: bool = True, on_bad_row: str = "raise"
) -> tuple[list[Question], list[Passage]]:
    """The questions of one official file, and the passages to search in; the arguments and errors are those of `read`.

    `read` returns more: the supporting passages, and what was left out and why.
    """
    loaded = read(name, split, path, drop_easy=drop_easy, on_bad_row=on_bad_row)
    return loaded.questions, loaded.passages


def annotated(rows: Sequence[Row], prefix: str) -> dict[str, Annotation]:
    """The rows' ways to their answers, by question id (`prefix`/official id)."""
    ids = {f"{prefix}/{row.id}": row for row in rows if row.steps}
    return {name: Annotation(name, row.steps, row.results) for name, row in ids.items()}


def check_rest(where: str, parsed: Parsed[Row], kept: Sequence[Row], easy: int = 0) -> None:
    """Warn about skipped rows. Raises `DataError` when no question is left."""
    skipped = parsed.skipped
    if not kept:
        raise DataError(
            f"{where} leaves no question: bad rows skipped: {len(skipped)}, unanswerable: {parsed.unanswerable}, "
            f"easy: {easy}"
        )
    if skipped:
        first = f"the first is {skipped[0].place}, {skipped[0].reason}"
        warnings.warn(f"{where}: bad rows skipped: {len(skipped)}; {first}", stacklevel=3)


def select(questions: Sequence[Question], path: Path) -> tuple[list[Question], list[str]]:
    """(the questions that a file of official ids lists, in its order; the listed ids that no question has).

    The file is text with one id per line; blank lines are skipped, and accents compare equal however they are written.
    Raises `DataError` for a file that cannot be
    read, holds no id or holds one twice, and for questions that share an official id.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start}: {error.reason}; expected one id per line") from None
    wanted: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        listed = composed(line.strip())
        if listed in wanted:
            raise DataError(f"{path}, line {number}: id {listed!r} stands in line {wanted[listed]} too")
        if listed:
            wanted[listed] = number
    if not wanted:
        raise DataError(f"{path} holds no id; expected one per line")
    known: dict[str, Question] = {}
    for question in questions:
        official = composed(question.id.removeprefix(f"{question.benchmark}/{question.split}/"))
        if known.setdefault(official, question) is not question:
            raise DataError(f"id {official!r} is that of two questions: {known[official].id} and {question.id}")
    return [known[name] for name in wanted if name in known], [name for name in wanted if name not in known]


def _format(name: str, split: str, on_bad_row: str) -> Format:
    """The benchmark's format. Raises `DataError` for arguments that make no sense."""
    if name not in OFFICIAL:
        known = ", ".join(OFFICIAL)
        raise DataError(f"benchmark {name!r} has no official files; those with are {known}{meant(name, OFFICIAL)}")
    if not split or "/" in split:
        raise DataError(f"split {split!r}: expected a name without '/', because it becomes part of the ids")
    if on_bad_row not in ("raise", "skip"):
        raise DataError(f"on_bad_row {on_bad_row!r}: expected 'raise' or 'skip'")
    return OFFICIAL[name]


def _corpus(rows: Sequence[Row], prefix: str) -> dict[Pair, str]:
    """The id of every passage with text, in order of first appearance."""
    ids: dict[Pair, str] = {}
    for row in rows:
        for pair in row.context:
            if pair[1]:
                ids.setdefault(pair, f"{prefix}/{len(ids)}")
    return ids


def _check_count(expected: int | None, parsed: Parsed[Row], where: str, what: str) -> None:
    """Warn when the number of rows with an answer is not as expected; a bad row counts as one with an answer."""
    count = parsed.count - parsed.unanswerable
    if expected is not None and count != expected:
        rows = "rows with an answer" if parsed.unanswerable else "rows"
        warnings.warn(f"{where} has {count:,} {rows}; the official file of {what} has {expected:,}", stacklevel=3)
