"""Official benchmark files read row by row, and what is said of a row that cannot be read.

A file is JSON lines, or one JSON document: a list of rows, or (where a format says so) an object that wraps the list.
Its content is never trusted: every field's type is checked, and nothing but JSON is ever decoded.
"""

from __future__ import annotations

import codecs
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from swirl.errors import DataError

Fields = Mapping[str, object]
"""One row as it stands in the file."""
Pair = tuple[str, str]
"""The title and the text of a passage."""

NOTHING = object()
"""The value of a field that is not there."""
_JSON_FAILS = (ValueError, RecursionError)
"""What json raises: broken JSON, a number without end, brackets too deep."""


class BadRow(Exception):
    """One row cannot be read: which field, what it holds (shortened), and what is expected."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        got = "nothing" if value is NOTHING else reprlib.repr(value)
        super().__init__((f"field {field!r}: " if field else "") + f"expected {expected}, got {got}")


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says, whatever the benchmark."""

    id: str
    """The official id."""
    text: str
    answers: tuple[str, ...]
    hops: int
    context: tuple[Pair, ...] = ()
    support: tuple[Pair, ...] | None = ()
    """The passages of the context that the answer rests on; None when one of them is not in the context."""
    easy: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """How a benchmark's official file is read."""

    parse: Callable[[Fields, int], Row | None]
    """From a row and its number (from 0); None for an unanswerable question. Raises `BadRow`."""
    tool: str
    """The tool its questions may use."""
    counts: Mapping[str, int]
    """Rows of the official files, by official split; a split that is not named here is not checked."""
    wrapper: str = ""
    """Key of the list of rows, in a format whose file is one JSON object."""


def open_rows(path: Path, wrapper: str) -> tuple[str, Iterator[tuple[int, object]]]:
    """("line" or "row", the rows numbered from 0); a line that is no JSON comes as the `BadRow` that says so.

    JSON lines are read one at a time, and blank lines are passed over. Raises `DataError` for a file that is missing,
    empty, or neither kind of JSON.
    """
    try:
        with path.open("rb") as file:
            start = file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not start:
        raise DataError(f"{path} is empty; expected the benchmark's official file")
    if start[:1] not in (b"[", b"{"):
        kind = "looks like an HTML page" if start[:1] == b"<" else "is not JSON"
        raise DataError(f"{path} {kind}: it starts with {start[:30]!r}; expected JSON lines or a JSON list of rows")
    if start[:1] == b"{" and not wrapper:
        return "line", _lines(path)
    return "row", enumerate(_document(path, wrapper))


def _lines(path: Path) -> Iterator[tuple[int, object]]:
    """Every line of a file that is not blank, decoded."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if content.strip():
                yield number, _decode(content)


def _decode(line: bytes) -> object:
    """The value of one line, or the `BadRow` that says why it has none."""
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
    """The value as an object with fields."""
    if isinstance(value, BadRow):
        raise value
    return value if isinstance(value, dict) else _refuse(field, value, "an object with fields")


def text(row: Fields, field: str) -> str:
    """A field that is text and not blank, without the blanks around it."""
    return some_text(row.get(field, NOTHING), field)


def some_text(value: object, field: str) -> str:
    """The same for a value that stands anywhere in a field."""
    return any_text(value, field) or _refuse(field, value, "a text that is not blank")


def any_text(value: object, field: str) -> str:
    """Text that may be blank, without the blanks around it; half a surrogate pair is no text."""
    if not isinstance(value, str):
        _refuse(field, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(field, value, "a text of whole characters")
    return value.strip()


def flag(row: Fields, field: str) -> bool:
    """A field that is true or false."""
    value = row.get(field, NOTHING)
    return value if isinstance(value, bool) else _refuse(field, value, "true or false")


def items(row: Fields, field: str, *, least: int = 0) -> list[object]:
    """A field that is a list of at least that many members."""
    return some_items(row.get(field, NOTHING), field, least=least)


def some_items(value: object, field: str, *, least: int = 0, most: int | None = None) -> list[object]:
    """The same for a value that stands anywhere in a field."""
    if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
        size = f" of {least}" if least == most else f" of at least {least}" if least else ""
        _refuse(field, value, f"a list{size}")
    return value


def texts(row: Fields, field: str, *, least: int = 0) -> tuple[str, ...]:
    """A field that is a list of texts, none blank; a text that comes twice is kept once."""
    return tuple(dict.fromkeys(some_text(value, field) for value in items(row, field, least=least)))


def filled(context: Sequence[Pair], field: str) -> tuple[Pair, ...]:
    """The context, of which at least one passage must have text."""
    if not any(body for _, body in context):
        raise BadRow(field, list(context), "at least one passage with text")
    return tuple(context)


def _refuse(field: str, value: object, expected: str) -> NoReturn:
    raise BadRow(field, value, expected)
