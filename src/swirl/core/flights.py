"""Flights: how much is worked on at once, made smaller where the memory of the device does not suffice.

What is in flight together decides the last bits of what is computed, so a smaller flight is said when it begins, and
`smaller_flights` tells the record of the run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from swirl.core.errors import DataError, SwirlError
from swirl.core.journal import set_aside
from swirl.core.memory import give_back
from swirl.core.records import load_json, save_json

Result = TypeVar("Result")

SHARE = 0.9
"""The share of the memory which a device has left that is planned with: allocators leave gaps."""
_smaller: list[Flight] = []
_elsewhere: dict[str, float] = {}
"""What other processes of this run have reported of theirs."""


class OutOfMemoryError(SwirlError):
    """The memory of a device does not suffice, even for a flight that was made smaller."""


class Flight:
    """How much is worked on at once: `asked`, or half, a quarter and so on if memory does not allow it."""

    def __init__(
        self,
        name: str,
        asked: int,
        cost: Callable[[int], float] | None = None,
        free: float = float("inf"),
        lower: str = "",
    ) -> None:
        """Plan a flight of `asked`, called `name`, for a device with `free` bytes; `lower` says what to set lower.

        `cost` gives the bytes that a flight of some size takes; without it, the flight is as asked. It is halved until
        it takes no more than `SHARE` of what is free, and printed if it is then smaller.
        """
        self.name, self.asked, self.size, self.halved, self._lower = name, asked, asked, False, lower or name
        self._path: Path | None = None
        self._flying: Counter[int] = Counter()
        self._landed = threading.Condition()
        while cost and self.size > 1 and cost(self.size) > SHARE * free:
            self.size = self.size // 2
        self._note()
        if cost and self.size < asked:
            wanted, taken, has = map(amount, (cost(asked), cost(self.size), free))
            print(
                f"{name}: {self.size} at once, not {asked}, which would take about {wanted}; these take about {taken}, "
                f"and {has} are free. Log-probabilities may differ in their last bits; lower {self._lower} to decide",
                flush=True,
            )

    def run(self, work: Callable[[int], Result]) -> Result:
        """`work(size)`, from any thread; once again with half of the size where the device's memory did not suffice.

        Nothing begins with the half while another thread still works on a whole flight. Raises `OutOfMemoryError` when
        memory does not suffice a second time, or there is nothing to halve.
        """
        while True:
            size = self._begin()
            try:
                return work(size)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                said = str(error).strip().partition("\n")[0]
            finally:
                self._end(size)
            # Not in the handler: the error's traceback holds the tensors that there was no room for more of.
            give_back()
            self._less(size, said)

    def resume(self, path: Path) -> None:
        """Go on as the interrupted work did whose flight is in `path`, if that was smaller; and write it there.

        So the whole of it is made with flights of one size, unless memory runs out on the way. A file that cannot be
        read is renamed, and a printed line names it.
        """
        self._path = path
        if path.exists():
            match _read(path):
                case {"size": int(size), "halved": bool(halved)} if size > 0:
                    self.size, self.halved = min(self.size, size), halved
                case _:
                    set_aside(path, "it does not say how large a flight was")
        self._note()

    def _note(self) -> None:
        if self.size < self.asked:
            _smaller.append(self)
            if self._path:
                save_json({"size": self.size, "halved": self.halved}, self._path)

    def _begin(self) -> int:
        with self._landed:
            self._landed.wait_for(lambda: not any(self._flying[size] for size in self._flying if size > self.size))
            self._flying[self.size] += 1
            return self.size

    def _end(self, size: int) -> None:
        with self._landed:
            self._flying[size] -= 1
            self._landed.notify_all()

    def _less(self, size: int, said: str) -> None:
        with self._landed:
            if size > self.size:  # another thread has halved it meanwhile
                return
            if self.halved or size == 1:
                again = "again, with half of what was planned" if self.halved else "and one alone cannot be halved"
                raise OutOfMemoryError(
                    f"out of memory {again}: {self.name} had {size} at once ({said}); lower {self._lower}"
                )
            self.size, self.halved = size // 2, True
            self._note()
            print(f"{self.name}: out of memory with {size} at once ({said}); going on with {self.size}", flush=True)


def _read(path: Path) -> Any:
    try:
        return load_json(path)
    except DataError:
        return None


def amount(value: float) -> str:
    """Bytes in a unit for people."""
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.0f} MB" if value >= 1e6 else "< 1 MB"


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left, as Python, torch on a GPU or torch on the CPU say it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate memory" in str(error))
    )


def smaller_flights() -> dict[str, float]:
    """Of this run's flights that are smaller than asked: the smallest size, what was asked, 1 if memory ran out.

    Those of other processes count, of which `report_smaller` was told.
    """
    found = dict(_elsewhere)
    for one in _smaller:
        mine = {"used": one.size, "asked": one.asked, "out_of_memory": float(one.halved)}
        _add(found, {f"{one.name}.{key}": value for key, value in mine.items()})
    return found


def report_smaller(found: Mapping[str, float]) -> None:
    """Add what `smaller_flights` has returned in another process of this run."""
    _add(_elsewhere, found)


def _add(found: dict[str, float], further: Mapping[str, float]) -> None:
    for key, value in further.items():
        found[key] = (min if key.endswith(".used") else max)(value, found.get(key, value))
