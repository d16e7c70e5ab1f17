"""The flights that memory made smaller, of this process and of the workers that made its blocks in others."""

from __future__ import annotations

from collections.abc import Mapping

from swirl.core.flights import smaller_flights

_elsewhere: dict[str, float] = {}


def add_smaller(found: Mapping[str, float]) -> None:
    """Add what `smaller_flights` says in a worker."""
    _elsewhere.update(_together(_elsewhere, found))


def all_smaller_flights() -> dict[str, float]:
    """As `swirl.core.flights.smaller_flights`, of all these processes together: of several sizes the smallest."""
    return _together(smaller_flights(), _elsewhere)


def _together(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    both = {**one, **other}
    for name in one.keys() & other.keys():
        both[name] = (min if name.endswith(".used") else max)(one[name], other[name])
    return both
