"""A user's own task: questions as JSON lines, a corpus as JSON lines or text files; docs/benchmarks.md shows both."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.official import Loaded, check_rest
from swirl.benchmarks.rows import NOTHING, BadRow, Fields, Pair, Row, Skipped, any_text, parse_rows, text, texts
from swirl.core.errors import DataError
from swirl.core.types import Passage, Question

PASSAGE_CHARACTERS = 1000
"""A text file is cut into passages of at most so many characters."""
FILE_BYTES = 20_000_000
"""A text file that is larger is refused."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The passages of one own task."""

    passages: list[Passage]
    """Each title and text once, in order of first appearance."""
    known: Mapping[str, tuple[str, ...]]
    """What `support` may say, an id or a title as the user wrote it -> the ids of these passages."""
    files: tuple[Path, ...]
    """What was read."""
    rows: int
    skipped: list[Skipped]


def read(
    name: str,
    split: str,
    path: Path,
    corpus: Corpus | None,
    *,
    task: str,
    tools: tuple[str, ...],
    on_bad_row: str = "raise",
) -> Loaded:
    """Questions of an own task: JSON lines (or a JSON list, or Parquet) of id, question, answers[, hops][, support].

    Warns when rows are skipped. Raises `DataError` for a bad row, naming file, row, field, value and what is expected;
    for a file that cannot be read at all or that leaves no question.
    """
    known = corpus.known if corpus else {}
    parsed = parse_rows(lambda row, number: _question(row, known), [path], on_bad_row)
    check_rest(str(path), parsed, parsed.rows)
    return Loaded(
        rows=parsed.count,
        questions=[
            Question(f"{name}/{split}/{row.id}", name, split, row.text, row.answers, row.hops, tools, task)
            for row in parsed.rows
        ],
        passages=corpus.passages if corpus else [],
        support={
            f"{name}/{split}/{row.id}": list(dict.fromkeys(known_id for _, known_id in row.support))
            for row in parsed.rows
            if row.support
        },
        solutions={},
        skipped=parsed.skipped,
        unanswerable=0,
        dropped_easy=0,
        blank_passages=0,
    )


def read_corpus(name: str, path: Path, *, on_bad_row: str = "raise") -> Corpus:
    """The corpus of own task `name`: JSON lines of title, text[, id], or a folder of .txt and .md files.

    A passage's id is `<name>/<its own id>`, which is the row's number from 0 where the row has none; of a text file
    `<name>/<path in the folder>#<number>`, its title the file's name without suffix. Raises `DataError` as `read` does.
    """
    if path.is_dir():
        return _from_folder(name, path, on_bad_row)
    parsed = parse_rows(lambda row, number: _passage(row, number), [path], on_bad_row)
    if not parsed.rows:
        raise DataError(f"{path} leaves no passage: bad rows skipped: {len(parsed.skipped)}")
    _warn_of_skipped(path, parsed.skipped)
    return _corpus(name, parsed.rows, (path,), parsed.count, parsed.skipped)


def _question(row: Fields, known: Mapping[str, tuple[str, ...]]) -> Row:
    """`hops` is 0 (not known) when left out, `support` empty."""
    hops = row.get("hops", 0)
    if type(hops) is not int or not 0 <= hops <= 1000:
        raise BadRow("hops", hops, "a whole number from 0 to 1000")
    support: list[Pair] = []
    for entry in texts(row, "support") if "support" in row else ():
        if entry not in known:
            raise BadRow("support", entry, "the id or the title of a passage of the corpus")
        support += [(entry, passage) for passage in known[entry]]
    return Row(text(row, "id"), text(row, "question"), texts(row, "answers", least=1), hops, support=tuple(support))


def _passage(row: Fields, number: int) -> Passage:
    return Passage(
        id=text(row, "id") if "id" in row else str(number),
        title=any_text(row.get("title", NOTHING), "title"),
        text=text(row, "text"),
    )


def _from_folder(name: str, folder: Path, on_bad_row: str) -> Corpus:
    """Every .txt and .md file below the folder, hidden ones left out, in the order of their paths."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    files = [path for path in inside if path.suffix.lower() in (".txt", ".md")]
    if not files:
        raise DataError(f"{folder} holds no .txt or .md file; it holds {len(inside)} others")
    if len(files) < len(inside):
        others = len(inside) - len(files)
        warnings.warn(f"{folder}: files that are neither .txt nor .md are left out: {others}", stacklevel=3)
    passages: list[Passage] = []
    skipped: list[Skipped] = []
    for file in files:
        place = file.relative_to(folder).as_posix()
        try:
            any_text(place, "name")
            pieces = list(split_text(_text_of(file)))
            passages += [Passage(f"{place}#{number}", file.stem, piece) for number, piece in enumerate(pieces)]
            if not pieces:
                raise BadRow("", "", "a text file that is not blank")
        except BadRow as bad:
            if on_bad_row == "raise":
                raise DataError(f"{str(file).encode(errors='replace').decode()}, {bad}") from None
            skipped.append(Skipped(place.encode(errors="replace").decode(), str(bad)))
    if not passages:
        raise DataError(f"{folder} leaves no passage: bad files skipped: {len(skipped)}")
    _warn_of_skipped(folder, skipped)
    return _corpus(name, passages, tuple(files), len(files), skipped)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _text_of(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES:
            raise BadRow("", size, f"a text file of at most {FILE_BYTES} bytes")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadRow("", error.object[error.start :][:20], f"UTF-8 from byte {error.start} on") from None


def split_text(content: str, limit: int = PASSAGE_CHARACTERS) -> Iterator[str]:
    """Passages of at most `limit` characters: whole paragraphs (blank lines are between them), as many as fit.

    A paragraph that is longer is cut between words, and a word that is longer anywhere.
    """
    waiting = ""
    for paragraph in re.split(r"\n[^\S\n]*\n", content.replace("\r\n", "\n")):
        whole = paragraph.strip()
        if waiting and len(waiting) + 2 + len(whole) > limit:
            yield waiting
            waiting = ""
        waiting = f"{waiting}\n\n{whole}" if waiting and whole else waiting or whole
        if len(waiting) > limit:
            *full, waiting = _cut(waiting, limit)
            yield from full
    if waiting:
        yield waiting


def _cut(paragraph: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, cut at the last blank that allows it."""
    pieces, start = [], 0
    while len(paragraph) - start > limit:
        blank = max(paragraph.rfind(blank, start + 1, start + limit + 1) for blank in " \n\t")
        end = blank if blank > start else start + limit
        pieces.append(paragraph[start:end].strip())
        start = end
    pieces.append(paragraph[start:].strip())
    return [piece for piece in pieces if piece]


def _corpus(name: str, rows: Sequence[Passage], files: tuple[Path, ...], count: int, skipped: list[Skipped]) -> Corpus:
    """The passages once each; ids win over titles in what `support` may say."""
    first: dict[Pair, Passage] = {}
    by_id: dict[str, tuple[str, ...]] = {}
    by_title: dict[str, dict[str, None]] = {}
    for row in rows:
        pair = (row.title, row.text)
        kept = first.setdefault(pair, Passage(f"{name}/{row.id}", *pair))
        by_id[row.id] = (kept.id,)
        by_title.setdefault(row.title, {})[kept.id] = None
    known = {**{title: tuple(ids) for title, ids in by_title.items()}, **by_id}
    return Corpus(list(first.values()), known, files, count, skipped)


def _warn_of_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    if skipped:
        first = f"the first is {skipped[0].place}, {skipped[0].reason}"
        warnings.warn(f"{path}: bad rows skipped: {len(skipped)}; {first}", stacklevel=3)
