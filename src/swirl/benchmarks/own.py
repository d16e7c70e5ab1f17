"""A user's own task: questions as JSON lines, a corpus as JSON lines or text files; docs/benchmarks.md shows both.

Ids and the names of files become composed letters (NFC), and `support` is compared so: some systems write an accent in
a file's name as a character of its own, where an editor does not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.official import Loaded, annotated, check_rest
from swirl.benchmarks.rows import (
    NOTHING,
    BadRow,
    Fields,
    Pair,
    Row,
    Skipped,
    any_text,
    composed,
    items,
    missing,
    parse_rows,
    some_text,
    text,
    texts,
)
from swirl.core.errors import DataError
from swirl.core.grading import grade
from swirl.core.types import ActionKind, Passage, Question
from swirl.tools.actions import parse

PASSAGE_CHARACTERS = 1000
"""Maximum number of characters of a passage that is cut from a text file."""
FILE_BYTES = 20_000_000
"""Maximum number of bytes of a text file; a larger one is refused."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The passages of a user's own task."""

    passages: list[Passage]
    """Each title and text once, in order of first appearance."""
    known: Mapping[str, tuple[str, ...]]
    """Id or title, composed, as the user may write it in `support` -> ids of the passages meant."""
    files: tuple[Path, ...]
    """The files that were read."""
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
    """Questions of an own task: JSON lines (or a JSON list, or Parquet), docs/benchmarks.md says of which fields.

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
        annotations=annotated(parsed.rows, f"{name}/{split}"),
        skipped=parsed.skipped,
        unanswerable=0,
        dropped_easy=0,
        blank_passages=0,
    )


def read_corpus(name: str, path: Path, *, on_bad_row: str = "raise") -> Corpus:
    """The corpus of own task `name`: JSON lines of title, text[, id], or a folder of .txt and .md files.

    A row's passage has the id `<name>/<id in the row>`, or `<name>/<row number from 0>` if the row has none. A text
    file's passages have the ids `<name>/<path in the folder>#<number>`, and the file's name without suffix as title.
    Raises `DataError` as `read` does.
    """
    if path.is_dir():
        return _from_folder(name, path, on_bad_row)
    parsed = parse_rows(lambda row, number: _passage(row, number), [path], on_bad_row)
    if not parsed.rows:
        raise DataError(f"{path} leaves no passage: bad rows skipped: {len(parsed.skipped)}")
    _warn_of_skipped(path, parsed.skipped)
    return _corpus(name, parsed.rows, (path,), parsed.count, parsed.skipped)


def _question(row: Fields, known: Mapping[str, tuple[str, ...]]) -> Row:
    """Parse one row; when left out (or null), `hops` is 0 (not known) and `support` is empty."""
    hops = 0 if missing(row, "hops") else row["hops"]
    if type(hops) is not int or not 0 <= hops <= 1000:
        raise BadRow("hops", hops, "a whole number from 0 to 1000")
    support: list[Pair] = []
    for entry in () if missing(row, "support") else texts(row, "support"):
        if composed(entry) not in known:
            raise BadRow("support", entry, "the id or the title of a passage of the corpus")
        support += [(entry, passage) for passage in known[composed(entry)]]
    identifier, answers = composed(text(row, "id")), texts(row, "answers", least=1)
    steps = () if missing(row, "demonstration") else _demonstration(row, answers)
    return Row(identifier, text(row, "question"), answers, hops, support=tuple(support), steps=steps)


def _demonstration(row: Fields, answers: tuple[str, ...]) -> tuple[str, ...]:
    """The actions that lead to the answer, as the model should write them; the last one, and no other, answers."""
    actions = tuple(some_text(action, "demonstration") for action in items(row, "demonstration", least=1))
    for number, action in enumerate(actions, 1):
        if (parse(action, {}).kind == ActionKind.ANSWER) != (number == len(actions)):
            wanted = "<answer> the answer </answer> in the last action, and in no other"
            raise BadRow("demonstration", action, f"{wanted} (this is action {number} of {len(actions)})")
    if not grade(parse(actions[-1], {}).payload, answers):
        raise BadRow("demonstration", actions[-1], f"one of the answers in the last action: {', '.join(answers)}")
    return actions


def _passage(row: Fields, number: int) -> Passage:
    return Passage(
        id=composed(text(row, "id")) if "id" in row else str(number),
        title=any_text(row.get("title", NOTHING), "title"),
        text=text(row, "text"),
    )


def _from_folder(name: str, folder: Path, on_bad_row: str) -> Corpus:
    """Every .txt and .md file below the folder, hidden ones left out, in the order of their paths."""
    found = (path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    inside = sorted(found, key=lambda path: Path(composed(str(path))))
    files = [path for path in inside if path.suffix.lower() in (".txt", ".md")]
    if not files:
        raise DataError(f"{folder} holds no .txt or .md file; it holds {len(inside)} others")
    if len(files) < len(inside):
        others = len(inside) - len(files)
        warnings.warn(f"{folder}: files that are neither .txt nor .md are left out: {others}", stacklevel=3)
    passages: list[Passage] = []
    skipped: list[Skipped] = []
    places: set[str] = set()
    for file in files:
        place = composed(file.relative_to(folder).as_posix())
        try:
            any_text(place, "name")
            if place in places:
                raise BadRow("name", place, "a name that no other file has, however its accents are written")
            places.add(place)
            pieces = list(split_text(_text_of(file)))
            title = composed(file.stem)
            passages += [Passage(f"{place}#{number}", title, piece) for number, piece in enumerate(pieces)]
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
    """Passages of at most `limit` characters, each of as many whole paragraphs (separated by blank lines) as fit.

    A paragraph longer than `limit` is cut between words, and a word longer than `limit` is cut anywhere.
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
    """Pieces of at most `limit` characters, each cut at the last blank within the limit, if there is one."""
    pieces, start = [], 0
    while len(paragraph) - start > limit:
        blank = max(paragraph.rfind(blank, start + 1, start + limit + 1) for blank in " \n\t")
        end = blank if blank > start else start + limit
        pieces.append(paragraph[start:end].strip())
        start = end
    pieces.append(paragraph[start:].strip())
    return [piece for piece in pieces if piece]


def _corpus(name: str, rows: Sequence[Passage], files: tuple[Path, ...], count: int, skipped: list[Skipped]) -> Corpus:
    """The corpus with each passage once; in `support`, a text that is both an id and a title means the id."""
    first: dict[Pair, Passage] = {}
    by_id: dict[str, tuple[str, ...]] = {}
    by_title: dict[str, dict[str, None]] = {}
    for row in rows:
        pair = (row.title, row.text)
        kept = first.setdefault(pair, Passage(f"{name}/{row.id}", *pair))
        by_id[row.id] = (kept.id,)
        by_title.setdefault(composed(row.title), {})[kept.id] = None
    known = {**{title: tuple(ids) for title, ids in by_title.items()}, **by_id}
    return Corpus(list(first.values()), known, files, count, skipped)


def _warn_of_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    if skipped:
        first = f"the first is {skipped[0].place}, {skipped[0].reason}"
        warnings.warn(f"{path}: bad rows skipped: {len(skipped)}; {first}", stacklevel=3)
