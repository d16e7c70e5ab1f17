"""Reads benchmark files row by row, and says what is wrong with a row that cannot be read.

A file is JSON lines, one JSON document (a list of rows, or, where a format says so, an object that wraps the list), or
Parquet with the same fields. Its content is never trusted: every field's type is checked, and nothing but JSON and
Parquet is ever decoded.
"""

from __future__ import annotations

import codecs
import json
import reprlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

from swirl.core.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Fields = Mapping[str, object]
"""One row as it stands in the file."""
Pair = tuple[str, str]
"""The title and the text of a passage."""

NOTHING = object()
"""Stands for the value of a field that is missing."""
_JSON_FAILS = (ValueError, RecursionError)
"""What json raises for broken JSON, a number with too many digits, or brackets nested too deeply."""
_EXPECTED = "expected JSON lines, a JSON list of rows, or Parquet"


class BadRow(Exception):
    """One row cannot be read; the message names the field, its value (shortened), and what is expected."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        got = "nothing" if value is NOTHING else reprlib.repr(value)
        super().__init__((f"field {field!r}: " if field else "") + f"expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Row:
    """The content of one row, the same for all benchmarks."""

    id: str
    """The official id."""
    text: str
    answers: tuple[str, ...]
    hops: int
    context: tuple[Pair, ...] = ()
    support: tuple[Pair, ...] | None = ()
    """The passages of the context that the answer rests on; None when one of them is not in the context."""
    easy: bool | None = False
    """None where the benchmark has easy questions and the row does not say whether it is one."""
    solution: str = ""
    """The written golden solution, where the file has one."""
    steps: tuple[str, ...] = ()
    """The way to the answer, where the file has one, see `Annotation`."""
    results: tuple[str, ...] = ()
    """The result of each of the `steps`, if the file says them."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a benchmark's official file is read."""

    parse: Callable[[Fields, int], Row | None]
    """Makes a `Row` of a row and its number (from 0); None for an unanswerable question. Raises `BadRow`."""
    tools: tuple[str, ...]
    """Names of the tools its questions may use."""
    task: str
    """`Question.task` of its questions."""
    counts: Mapping[str, int]
    """Expected rows with an answer, by official split and for `evaluation`; other splits are not checked."""
    wrapper: str = ""
    """Key of the list of rows, if the file is one JSON object; else empty."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A bad row that was left out."""

    place: str
    """`line 3` in a file of JSON lines, `row 3` in any other; both count from 1."""
    reason: str


class Identified(Protocol):
    """A parsed row: anything with an id that is unique among the rows."""

    @property
    def id(self) -> str:
        """The id as it stands in the file."""


Item = TypeVar("Item", bound=Identified)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[Item]):
    """The rows of one file, or of one that comes in parts."""

    rows: list[Item]
    skipped: list[Skipped]
    unanswerable: int

    @property
    def count(self) -> int:
        """Number of all rows, without blank lines."""
        return len(self.rows) + len(self.skipped) + self.unanswerable


def parse_rows(
    parse: Callable[[Fields, int], Item | None], paths: Sequence[Path], on_bad_row: str, wrapper: str = ""
) -> Parsed[Item]:
    """Every row of the files, in order. `parse` gets a row and its number, counted from 0 through all files.

    `on_bad_row` is `raise` or `skip`; a row that repeats an id is bad. Raises `DataError` for a bad row, naming file,
    row, field, value and what is expected, unless it is to be skipped; and for a file that cannot be read at all.
    """
    rows: list[Item] = []
    skipped: list[Skipped] = []
    unanswerable = before = last = 0
    places: dict[str, str] = {}
    for path in paths:
        unit, numbered = open_rows(path, wrapper)
        for number, raw in numbered:
            place = f"{unit} {number + 1}" if len(paths) == 1 else f"{path.name}, {unit} {number + 1}"
            last = before + number + 1
            try:
                row = parse(fields_of(raw), before + number)
                if row is not None and places.setdefault(row.id, place) != place:
                    raise BadRow("id", row.id, f"an id that {places[row.id]} does not have")
            except BadRow as bad:
                if on_bad_row == "raise":
                    raise DataError(f"{path}, {unit} {number + 1}, {bad}") from None
                skipped.append(Skipped(place, str(bad)))
                continue
            if row is None:
                unanswerable += 1
            else:
                rows.append(row)
        before = last
    return Parsed(rows, skipped, unanswerable)


def open_rows(path: Path, wrapper: str) -> tuple[str, Iterator[tuple[int, object]]]:
    """("line" or "row", the rows with their numbers from 0); for a line that is not JSON the row is a `BadRow`.

    JSON lines are read one at a time, and blank lines are skipped; Parquet is read a thousand rows at a time. Raises
    `DataError` for a file that is missing, empty, or in another format; for broken Parquet only while it is read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not start:
        raise DataError(f"{path} is empty; {_EXPECTED}")
    if start.startswith(b"PAR1"):
        return "row", enumerate(_parquet(path))
    if start[:1] not in (b"[", b"{"):
        kind = "looks like an HTML page" if start[:1] == b"<" else "is not JSON"
        raise DataError(f"{path} {kind}: it starts with {start[:30]!r}; {_EXPECTED}")
    if start[:1] == b"{" and not wrapper:
        return "line", _lines(path)
    return "row", enumerate(_document(path, wrapper))


def _parquet(path: Path) -> Iterator[object]:
    """Every row of a Parquet file as plain values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=1000, row_groups=[group]):
                    yield from _values(batch, f"{path}, row group {group + 1}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def _values(batch: pa.RecordBatch, place: str) -> list[object]:
    """Rows as plain values; Parquet can hold dates, time zones and names of fields that Python cannot."""
    import pyarrow as pa

    try:
        return list(batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise DataError(f"{place} holds a value that cannot be read: {error}") from None


def _lines(path: Path) -> Iterator[tuple[int, object]]:
    """Number and decoded value of every line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if content.strip():
                yield number, _decode(content)


def _decode(line: bytes) -> object:
    """The value of one line, or a `BadRow` that says why it cannot be decoded."""
    try:
        return json.loads(line.decode())
    except _JSON_FAILS as error:
        return BadRow("", line, f"one JSON object in UTF-8 ({_why(error)})")


def _document(path: Path, wrapper: str) -> list[object]:
    """The rows of a file that is one JSON document."""
    try:
        value = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8).decode())
    except _JSON_FAILS as error:
        raise DataError(f"{path} is not one JSON document in UTF-8: {_why(error)}") from None
    if wrapper and isinstance(value, dict):
        value = value.get(wrapper, NOTHING)
    if not isinstance(value, list):
        got = "nothing" if value is NOTHING else reprlib.repr(value)
        raise DataError(f"{path}, field {wrapper!r}: expected a list of rows, got {got}")
    return value


def _why(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start}: {error.reason}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def fields_of(value: object, field: str = "") -> Fields:
    """The value as an object with fields. Raises `BadRow` for anything else."""
    if isinstance(value, BadRow):
        raise value
    return value if isinstance(value, dict) else _refuse(field, value, "an object with fields")


def text(row: Fields, field: str) -> str:
    """A field that is text and not blank, without the blanks around it."""
    return some_text(row.get(field, NOTHING), field)


def some_text(value: object, field: str) -> str:
    """As `text`, for a value anywhere inside a field."""
    return any_text(value, field) or _refuse(field, value, "a text that is not blank")


def any_text(value: object, field: str) -> str:
    """Text that may be blank, without the blanks around it; half a surrogate pair is refused."""
    if not isinstance(value, str):
        _refuse(field, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(field, value, "a text of whole characters")
    return value.strip()


def composed(text: str) -> str:
    """The text with composed letters (NFC), so that texts that Unicode calls equivalent are equal."""
    return unicodedata.normalize("NFC", text)


def missing(row: Fields, field: str) -> bool:
    """Whether the row does not have the field, or has null there, as Parquet must."""
    return row.get(field) is None


def flag(row: Fields, field: str) -> bool:
    """A field that is true or false."""
    value = row.get(field, NOTHING)
    return value if isinstance(value, bool) else _refuse(field, value, "true or false")


def items(row: Fields, field: str, *, least: int = 0) -> list[object]:
    """A field that is a list of at least `least` members."""
    return some_items(row.get(field, NOTHING), field, least=least)


def some_items(value: object, field: str, *, least: int = 0, most: int | None = None) -> list[object]:
    """As `items`, for a value anywhere inside a field, with at most `most` members."""
    if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
        size = f" of {least}" if least == most else f" of at least {least}" if least else ""
        _refuse(field, value, f"a list{size}")
    return value


def texts(row: Fields, field: str, *, least: int = 0) -> tuple[str, ...]:
    """A field that is a list of texts, none blank; a text that comes twice is kept once."""
    return tuple(dict.fromkeys(some_text(value, field) for value in items(row, field, least=least)))


def filled(context: Sequence[Pair], field: str) -> tuple[Pair, ...]:
    """The context, if at least one passage has text. Raises `BadRow` otherwise."""
    if not any(body for _, body in context):
        raise BadRow(field, list(context), "at least one passage with text")
    return tuple(context)


def _refuse(field: str, value: object, expected: str) -> NoReturn:
    raise BadRow(field, value, expected)
