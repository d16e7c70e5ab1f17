"""Files of JSON lines, or of one JSON document, as pieces that can be found again by offset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swirl.core.errors import DataError

BOM = b"\xef\xbb\xbf"
MAX_DOCUMENT = 256_000_000
"""Bytes of a file that is one JSON document rather than lines; it is read at once."""
_BLANK = BOM + b" \t\r\n"
_SPACE = re.compile(r"[ \t\r\n]*")
_ELEMENTS = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*(?:\][ \t\r\n]*)?")
"""Before the first element of an array, or the whole of an empty one."""
_ELEMENTS_AFTER = re.compile(r"[ \t\r\n]*(?:,|\]|)[ \t\r\n]*")
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"PAR1": "Parquet", b"\x28\xb5": "Zstandard"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A line, or an element of a document: where it begins, in bytes and in lines (from 1), and its bytes."""

    line: int
    offset: int
    data: bytes


def pieces(path: Path) -> Iterator[Piece]:
    """The file's lines that are not blank; they end at a line feed alone, without a byte order mark or carriage return.

    A file that is one JSON document (an array, or an object over several lines) gives its elements or itself. Raises
    `DataError` for a file that cannot be read, is packed, or is a document of more than `MAX_DOCUMENT` bytes.
    """
    try:
        with path.open("rb") as file:
            _refuse_packed(path, file.read(4))
            file.seek(0)
            begun = iter(lambda: file.readline(MAX_DOCUMENT + 1), b"")
            if _begins_document(next((line for line in begun if line.strip(_BLANK)), b"")):
                yield from _elements(path)
                return
            file.seek(0)
            offset = 0
            for number, raw in enumerate(file, 1):
                skipped = len(BOM) if raw.startswith(BOM) else 0
                data = raw[skipped:].rstrip(b"\r\n")
                if data.strip():
                    yield Piece(number, offset + skipped, data)
                offset += len(raw)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _refuse_packed(path: Path, head: bytes) -> None:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise DataError(f"{path} is a {name} file; write it as JSON lines first")


def _begins_document(first: bytes) -> bool:
    """Whether the first line that is not blank begins one document, rather than being a whole line of its own.

    Of a line longer than `MAX_DOCUMENT`, `first` is only the beginning, which is not parsed.
    """
    if len(first) > MAX_DOCUMENT:
        return first.lstrip(_BLANK).startswith(b"[")
    first = first.strip(_BLANK)
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return first[:1] == b"[" or (first[:1] == b"{" and first[-1:] in b"{[,")
    return isinstance(value, list) and not all(isinstance(one, dict) and "role" in one for one in value)


def _elements(path: Path) -> Iterator[Piece]:
    """The elements of a document that is an array, or the document itself."""
    if path.stat().st_size > MAX_DOCUMENT:
        raise DataError(f"{path} is one JSON document of more than {MAX_DOCUMENT:,} bytes; write it as JSON lines")
    data = path.read_bytes()
    at = len(BOM) if data.startswith(BOM) else 0
    try:
        text, decoder, place, line = data[at:].decode(), json.JSONDecoder(), 0, 1
        del data
        between = _ELEMENTS if text.lstrip().startswith("[") else _SPACE
        while (begin := between.match(text, place).end()) < len(text):  # type: ignore[union-attr]
            _, end = decoder.raw_decode(text, begin)
            at, line = at + len(text[place:begin].encode()), line + text.count("\n", place, begin)
            piece = text[begin:end].encode()
            yield Piece(line, at, piece)
            at, line, place = at + len(piece), line + text.count("\n", begin, end), end
            between = _ELEMENTS_AFTER if between is not _SPACE else _SPACE
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} begins as one JSON document, but is none: {error}") from error
