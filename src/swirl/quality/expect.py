"""The expectations that the gates are made of, each with a sentence that says what it means.

A check that Great Expectations does not offer is done in a helper column, which is null where the row is fine and
otherwise says what is wrong with it; `no_problem` expects the column to be null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swirl.pipeline.environment import disable_telemetry

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation as Expectation


def library() -> Any:
    """Great Expectations, imported with its usage statistics switched off (it reads the setting on import)."""
    disable_telemetry()
    import great_expectations

    return great_expectations


def present(columns: Sequence[str]) -> list[Expectation]:
    """No cell of these columns is null, or a list that contains a null."""
    expected = library().expectations.ExpectColumnValuesToNotBeNull
    return [expected(column=column, meta=_meaning(f"{column} is never null")) for column in columns]


def mostly_present(column: str, max_rate: float, meaning: str) -> Expectation:
    """At most `max_rate` (0 to 1) of the cells are null."""
    expected = library().expectations.ExpectColumnValuesToNotBeNull
    return expected(column=column, mostly=_share_left(max_rate), meta=_meaning(meaning))  # type: ignore[no-any-return]


def unique(columns: Sequence[str], meaning: str) -> Expectation:
    """No two rows agree in all of these columns."""
    expectations, meta = library().expectations, _meaning(meaning)
    if len(columns) == 1:
        return expectations.ExpectColumnValuesToBeUnique(column=columns[0], meta=meta)  # type: ignore[no-any-return]
    return expectations.ExpectCompoundColumnsToBeUnique(column_list=list(columns), meta=meta)  # type: ignore[no-any-return]


def one_of(column: str, values: Sequence[str], meaning: str) -> Expectation:
    """Every value is one of these."""
    expected = library().expectations.ExpectColumnValuesToBeInSet
    return expected(column=column, value_set=list(values), meta=_meaning(meaning))  # type: ignore[no-any-return]


def not_blank(column: str, meaning: str) -> Expectation:
    """Every string holds more than white space."""
    expected = library().expectations.ExpectColumnValuesToMatchRegex
    return expected(column=column, regex=r"\S", meta=_meaning(meaning))  # type: ignore[no-any-return]


def between(column: str, low: float | None, high: float | None, meaning: str) -> Expectation:
    """Every number that is not null lies in [low, high]; None is no bound."""
    expected = library().expectations.ExpectColumnValuesToBeBetween
    return expected(column=column, min_value=low, max_value=high, meta=_meaning(meaning))  # type: ignore[no-any-return]


def mean_between(column: str, low: float, high: float, meaning: str) -> Expectation:
    """The mean of the numbers that are not null lies in [low, high]."""
    expected = library().expectations.ExpectColumnMeanToBeBetween
    return expected(column=column, min_value=low, max_value=high, meta=_meaning(meaning))  # type: ignore[no-any-return]


def at_least(rows: int, meaning: str) -> Expectation:
    """The table has at least `rows` rows."""
    expected = library().expectations.ExpectTableRowCountToBeBetween
    return expected(min_value=rows, meta=_meaning(meaning))  # type: ignore[no-any-return]


def rarely(column: str, max_rate: float, meaning: str) -> Expectation:
    """At most `max_rate` (0 to 1) of the booleans that are not null are true."""
    expected = library().expectations.ExpectColumnValuesToBeInSet
    meta = _meaning(meaning)
    return expected(column=column, value_set=[False], mostly=_share_left(max_rate), meta=meta)  # type: ignore[no-any-return]


def no_problem(column: str, meaning: str) -> Expectation:
    """The helper column is null everywhere, so no row has this problem."""
    return library().expectations.ExpectColumnValuesToBeNull(column=column, meta=_meaning(meaning))  # type: ignore[no-any-return]


def _meaning(sentence: str) -> dict[str, str]:
    return {"meaning": sentence}


def _share_left(rate: float) -> float:
    """1 - rate, minus a tiny tolerance so that rounding does not fail a rate that is exactly at its limit."""
    return max(0.0, 1 - rate - 1e-12)
