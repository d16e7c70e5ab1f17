"""Log files as exchanges, read once from front to back and then again, piece by piece, where they are needed."""

from __future__ import annotations

import os
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from swirl.agent_logs import lines, log_shapes
from swirl.agent_logs.conversation import LoggedTool, Place
from swirl.agent_logs.exchanges import Exchange, LineFault, LineLeftOut
from swirl.core.nesting import TooDeep, loads

KEPT = 4
"""How many pieces stay read: a turn and the one after it are mostly in two."""


class LogFiles:
    """Pieces of files by their number. A piece takes 24 bytes; its text is read when it is asked for."""

    def __init__(self, files: Sequence[Path], tools: Sequence[LoggedTool] = (), names: Sequence[str] = ()) -> None:
        """`tools` are used where a request names none; `names` are what files are called, by default paths."""
        self._files, self._tools = list(files), tuple(tools)
        self._names = list(names) or [str(file) for file in files]
        self._file, self._line = array("i"), array("q")
        self._offset, self._size = array("q"), array("q")
        self._kept: OrderedDict[int, list[Exchange]] = OrderedDict()
        self._open: tuple[int, BinaryIO] | None = None

    def place(self, piece: int, turn: int = 0) -> Place:
        """Where a piece stands."""
        return Place(self._names[self._file[piece]], self._line[piece], turn)

    @property
    def counts(self) -> list[int]:
        """How many pieces of each file were read."""
        found = Counter(self._file)
        return [found[number] for number in range(len(self._files))]

    @property
    def size(self) -> int:
        """Bytes of all files that are there."""
        return sum(file.stat().st_size for file in self._files if file.is_file())

    def read_all(
        self, left_out: Callable[[int, LineFault], None], read: Callable[[int], None] = lambda size: None
    ) -> Iterator[tuple[int, list[Exchange]]]:
        """Every piece, by its number, with its exchanges; a piece without any is reported to `left_out`.

        `read` is told of each piece's bytes.
        Raises `DataError` for a file that cannot be read.
        """
        for number, file in enumerate(self._files):
            for piece in lines.pieces(file):
                at = len(self._file)
                for column, value in (
                    (self._file, number),
                    (self._line, piece.line),
                    (self._offset, piece.offset),
                    (self._size, len(piece.data)),
                ):
                    column.append(value)
                read(len(piece.data))
                try:
                    exchanges = _exchanges(piece.data, self._tools)
                except LineLeftOut as found:
                    left_out(at, found.reason)
                    continue
                yield at, exchanges

    def exchange(self, piece: int, number: int) -> Exchange:
        """One exchange of a piece that was read before."""
        if piece not in self._kept:
            self._kept[piece] = _exchanges(self._bytes(piece), self._tools)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(piece)
        return self._kept[piece][number]

    def _bytes(self, piece: int) -> bytes:
        number = self._file[piece]
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, self._files[number].open("rb"))
        return os.pread(self._open[1].fileno(), self._size[piece], self._offset[piece])

    def close(self) -> None:
        """Close the file that is open."""
        if self._open:
            self._open[1].close()
            self._open = None


def _exchanges(data: bytes, tools: Sequence[LoggedTool]) -> list[Exchange]:
    """The exchanges of a line. Raises `LineLeftOut` when it holds none."""
    try:
        value = loads(data.decode())
    except UnicodeDecodeError:
        raise LineLeftOut(LineFault.NO_TEXT) from None
    except TooDeep:
        raise LineLeftOut(LineFault.DEEP) from None
    except ValueError:
        raise LineLeftOut(LineFault.NO_JSON) from None
    try:
        return log_shapes.read(value, tools)
    except TooDeep:
        raise LineLeftOut(LineFault.DEEP) from None
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError):
        raise LineLeftOut(LineFault.TYPES) from None
