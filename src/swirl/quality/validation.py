"""Runs a gate's expectations over its tables, writes the report, and stops the pipeline when one is violated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import pandas as pd

from swirl.core.errors import GateError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.core.types import OUTCOME
from swirl.quality import expect

SHOWN_ROWS = 5
"""Offending rows that a report names for each expectation, at most."""

SHOWN_CHARACTERS = 120
"""Characters of an offending value that a report shows."""


@dataclass(frozen=True, slots=True)
class Table:
    """One frame and its expectations; `key` are the columns that identify a row to the reader of a report."""

    name: str
    frame: pd.DataFrame
    key: tuple[str, ...]
    expectations: Sequence[expect.Expectation]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one expectation."""

    table: str
    name: str
    """Great Expectations' name of it, such as `expect_column_values_to_be_unique`."""
    column: str
    success: bool
    violations: int
    """Number of rows that violate it (a limit on a rate tolerates some); 0 or 1 for an aggregate."""
    of: int
    """Number of rows that it was checked on, without nulls; 1 for an aggregate."""
    observed: float | None
    """The value of an aggregate (a mean, a row count); None for an expectation on rows."""
    rows: tuple[dict[str, Any], ...]
    """Up to `SHOWN_ROWS` offending rows: the table's key columns and `value`."""
    meaning: str

    def sentence(self) -> str:
        """The violation as one sentence."""
        what = f"{self.name} on {self.table}.{self.column}" if self.column else f"{self.name} on {self.table}"
        if not self.rows:
            return f"{what}: observed {self.observed}, but {self.meaning}"
        columns = self.column.split(", ")
        repeated = len(columns) > 1 and set(columns) <= self.rows[0].keys()  # the key says it already
        named = [[pair for pair in row.items() if not (repeated and pair[0] == "value")] for row in self.rows]
        shown = "; ".join(", ".join(_told(self.table, *pair) for pair in row) for row in named)
        more = f"; and {self.violations - len(self.rows)} more" if self.violations > len(self.rows) else ""
        return f"{what}: {self.violations} of {self.of} rows violate that {self.meaning}: {shown}{more}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one gate found; the same for the same data, whenever and wherever it runs."""

    gate: str
    rows: dict[str, int]
    results: tuple[Result, ...]
    statistics: dict[str, float]
    """Counts, rates and shares; empty when a table of `complete` failed (see `examine`)."""

    @property
    def success(self) -> bool:
        """Whether every expectation is met, so that the pipeline may continue."""
        return all(result.success for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "gate": self.gate,
            "success": self.success,
            "rows": self.rows,
            "expectations": [asdict(result) for result in self.results],
            "statistics": self.statistics,
        }

    def message(self) -> str:
        """A heading and one line for each violated expectation."""
        violated = [result for result in self.results if not result.success]
        lines = [f"the {self.gate} gate stops the pipeline, {len(violated)} expectation(s) violated:"]
        return "\n".join(lines + [f"- {result.sentence()}" for result in violated])


def examine(gate: str, complete: Sequence[Table], derive: Callable[[], tuple[list[Table], dict[str, float]]]) -> Report:
    """Validate the tables of `complete`, which expect no nulls, and then, if all succeed, those of `derive`.

    `derive` computes helper columns and statistics, and so may rely on what `complete` expects.
    """
    rows = {table.name: len(table.frame) for table in complete}
    results = [result for table in complete for result in validate(table)]
    if not all(result.success for result in results):
        return Report(gate, rows, tuple(results), {})
    tables, statistics = derive()
    results += [result for table in tables for result in validate(table)]
    return Report(gate, rows, tuple(results), statistics)


def validate(table: Table) -> list[Result]:
    """Evaluate all expectations of one table, in order. Writes nothing to the project and sends nothing anywhere."""
    batch = _frames().get_batch({"dataframe": table.frame})
    suite = expect.library().ExpectationSuite(name=table.name, expectations=list(table.expectations))
    return [_result(table, answer) for answer in batch.validate(suite, result_format="COMPLETE").results]


@cache
def _frames() -> Any:
    """A batch definition that accepts any frame, in one context that is in memory as long as the process lives."""
    gx = expect.library()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return (
        context.data_sources.add_pandas("pandas")
        .add_dataframe_asset("frame")
        .add_batch_definition_whole_dataframe("whole")
    )


def publish(report: Report, layout: Layout) -> None:
    """Write the report of a gate that passed. Raises `GateError` for one that did not.

    The report of a failure goes to `.swirl/quality`, never to the path that later stages depend on: a gate that
    failed leaves nothing at that path, not even an earlier run's report.
    """
    passed = layout.quality(report.gate)
    failed = layout.root / f".swirl/quality/{report.gate}.failed.json"
    if report.success:
        save_json(report.to_json(), passed)
        failed.unlink(missing_ok=True)
        return
    save_json(report.to_json(), failed)
    passed.unlink(missing_ok=True)
    raise GateError(f"{report.message()}\nNothing was changed; the whole report is {failed}")


def _result(table: Table, answer: Any) -> Result:
    config, found = answer.expectation_config, answer.result
    columns = [config.kwargs["column"]] if "column" in config.kwargs else list(config.kwargs.get("column_list", ()))
    column = ", ".join(columns)
    if not found:
        raise GateError(f"{config.type} on {table.name}.{column} could not be evaluated: {answer.exception_info}")
    aggregate = "observed_value" in found
    indices = list(found.get("unexpected_index_list", ()))[:SHOWN_ROWS]
    return Result(
        table=table.name,
        name=config.type,
        column=column,
        success=bool(answer.success),
        violations=int(not answer.success) if aggregate else found["unexpected_count"],
        of=1 if aggregate else found["element_count"] - found.get("missing_count", 0),
        observed=_plain(found["observed_value"]) if aggregate else None,
        rows=tuple(_row(table, index, columns) for index in indices),
        meaning=config.meta["meaning"],
    )


def _row(table: Table, index: int, columns: Sequence[str]) -> dict[str, Any]:
    """One row of a report. The value is read from the frame, because Great Expectations' list of values may be cut."""
    named = {key: _plain(table.frame.at[index, key]) for key in table.key}
    values = [_plain(table.frame.at[index, column]) for column in columns]
    return named | {"value": values[0] if len(values) == 1 else ", ".join(str(value) for value in values)}


def _told(table: str, key: str, value: Any) -> str:
    """A cell of an offending row in a sentence: steps are counted from 1 there, and from 0 in the files.

    A verdict may be on the outcome; a step of another table that is below 0 is shown as it stands there.
    """
    if key not in ("step", "index") or value is None:
        return f"{key} {value}"
    if table == "verdicts" and value == OUTCOME:
        return "the outcome"
    return f"step {int(value) + 1}" if value >= 0 else f"{key} {value}"


def _plain(value: Any) -> Any:
    """A cell as a JSON value: numpy scalars unwrapped, NaN as None, long text cut."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
