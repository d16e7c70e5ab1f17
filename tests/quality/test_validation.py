"""How gates read files, check expectations and report, whatever a particular gate expects."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from swirl.core.errors import GateError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save
from swirl.core.types import Action, Observation, Step, Stop, SubTrajectory, Trajectory
from swirl.quality import expect, tables
from swirl.quality.questions import leakage_key
from swirl.quality.validation import Report, Table, examine, publish, validate

FRAME = pd.DataFrame({"row": [0, 1, 2], "id": ["a", "b", "c"], "score": [0.5, None, 0.75]})


def ask(*expectations: expect.Expectation) -> Table:
    return Table("numbers", FRAME, ("row", "id"), expectations)


def test_a_result_names_expectation_column_count_and_rows() -> None:
    (result,) = validate(ask(expect.between("score", 0.6, None, "scores are high")))
    assert (result.name, result.column) == ("expect_column_values_to_be_between", "score")
    assert (result.success, result.violations, result.of) == (False, 1, 2)
    assert result.rows == ({"row": 0, "id": "a", "value": 0.5},)
    assert result.sentence() == (
        "expect_column_values_to_be_between on numbers.score: 1 of 2 rows violate that scores are high: "
        "row 0, id a, value 0.5"
    )


def test_results_come_in_the_order_of_the_expectations() -> None:
    results = validate(ask(expect.unique(["id"], "1"), expect.at_least(1, "2"), *expect.present(["row"])))
    assert [result.meaning for result in results] == ["1", "2", "row is never null"]


def test_a_rate_passes_at_its_limit_and_reports_its_violations() -> None:
    at, over = validate(ask(expect.mostly_present("score", 1 / 3, "at"), expect.mostly_present("score", 0.3, "over")))
    assert (at.success, at.violations, at.of) == (True, 1, 3)
    assert (over.success, over.violations, over.of) == (False, 1, 3)


def test_an_expectation_that_cannot_be_evaluated_stops_the_gate() -> None:
    with pytest.raises(GateError, match="expect_column_values_to_be_null on numbers.nothing could not be evaluated"):
        validate(ask(expect.no_problem("nothing", "")))


def test_nothing_is_derived_from_tables_with_nulls() -> None:
    def derive() -> tuple[list[Table], dict[str, float]]:
        raise AssertionError("called in spite of a null")

    report = examine("steps", [ask(*expect.present(["score"]))], derive)
    assert (report.success, report.statistics, report.rows) == (False, {}, {"numbers": 3})


def test_validation_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    validate(ask(expect.at_least(1, "")))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_gate_takes_the_old_report_away_and_says_where_its_own_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    passed = Report("steps", {"numbers": 3}, tuple(validate(ask(expect.at_least(3, "there are 3")))), {"rate": 0.5})
    publish(passed, layout)
    assert load_json(layout.quality("steps")) == {
        "gate": "steps",
        "success": True,
        "rows": {"numbers": 3},
        "statistics": {"rate": 0.5},
        "expectations": [
            {
                "table": "numbers",
                "name": "expect_table_row_count_to_be_between",
                "column": "",
                "success": True,
                "violations": 0,
                "of": 1,
                "observed": 3,
                "rows": [],
                "meaning": "there are 3",
            }
        ],
    }
    failed = replace(passed, results=tuple(validate(ask(expect.at_least(4, "there are 4")))))
    with pytest.raises(GateError, match="the steps gate stops the pipeline, 1 expectation") as caught:
        publish(failed, layout)
    report = tmp_path / ".swirl/quality/steps.failed.json"
    assert str(report) in str(caught.value)
    assert load_json(report)["success"] is False
    assert not layout.quality("steps").exists()
    publish(passed, layout)
    assert not report.exists()


def test_a_list_that_holds_a_null_reads_as_null(tmp_path: Path) -> None:
    rows = [
        SubTrajectory("t-0", "q", "b", 0, (1, 2), (3,), None),
        SubTrajectory("t-1", "q", "b", 0, (1, None), (), 0.5),  # type: ignore[arg-type]
    ]
    save(rows, SubTrajectory, tmp_path / "steps.parquet")
    frame = tables.read(SubTrajectory, tmp_path / "steps.parquet")
    assert frame["row"].tolist() == [0, 1]
    assert frame["state_ids"][0].tolist() == [1, 2]
    assert frame["state_ids"][1] is None
    assert frame["action_ids"][1].tolist() == []
    assert frame["score"].isna().tolist() == [True, False]


def test_steps_know_their_trajectory(tmp_path: Path) -> None:
    seen = (Observation("a", False, "search", "b"), Observation("c", True, "calculate", "d"))

    def step(index: int) -> Step:
        return Step(index, Action("search", f"text {index}", ""), seen[: 2 * index], (index,), (-1.0,), ())

    def attempt(identifier: str, steps: tuple[Step, ...]) -> Trajectory:
        return Trajectory(identifier, "q", "b", 0, "m", 0, (1,), steps, Stop.STEP_LIMIT, "")

    save([attempt("a", ()), attempt("b", (step(0), step(1)))], Trajectory, tmp_path / "t.parquet")
    [(trajectories, steps, observations)] = tables.read_trajectories(tmp_path / "t.parquet")
    assert trajectories["steps"].tolist() == [0, 2]
    assert steps["row"].tolist() == [1, 1]
    assert steps["trajectory_id"].tolist() == ["b", "b"]
    assert steps["text"].tolist() == ["text 0", "text 1"]
    assert steps["observations"].tolist() == [0, 2]
    where = {"row": 1, "trajectory_id": "b", "index": 1, "step": 1}
    assert observations.to_dict("records") == [
        {**where, "text": "a", "error": False, "kind": "search", "payload": "b"},
        {**where, "text": "c", "error": True, "kind": "calculate", "payload": "d"},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Who  wrote “Ash”? ", "who wrote ash"),
        ("1.5 + 2", "1 5 + 2"),
        ("15 + 2", "15 + 2"),
        ("ＡＢ straße", "ab strasse"),
        ("Is 3<5?", "is 3 < 5"),
        ("What is 7 - b, or x - (1)?", "what is 7 b or x − 1"),
        ("5 − 3 (in %)", "5 − 3 in"),
        ("2*3, 6 / 2 and 5 % 4", "2 ∗ 3 6 ∕ 2 and 5 ℅ 4"),
        ("*Dune* — or F-16, COVID-19, and/or - yes?", "dune or f 16 covid 19 and or yes"),
        ("a well-known, ``open´´ question", "a well known open question"),
        ("2010–11", "2010 − 11"),
        ("C++ or C#?", "c + + or c ♯"),
        ("किताब", "किताब"),
        ("?!", ""),
    ],
)
def test_leakage_ignores_case_blanks_and_punctuation_but_not_digits_and_symbols(text: str, expected: str) -> None:
    assert leakage_key(text) == expected


def offending(count: int) -> pd.DataFrame:
    """A table whose first `count` rows offend, in a column for each expectation; they are half of it, or 1 of 10."""
    rows = np.arange(max(2 * count, 10))
    bad = rows < count
    return pd.DataFrame(
        {
            "row": rows,
            "id": np.char.add("r", rows.astype(str)),
            "same": np.where(bad, 0, rows),
            "one": 1,
            "text": np.where(bad, " ", "x"),
            "number": bad.astype(float),
            "flag": bad,
            "gap": pd.Series(np.where(bad, None, "x"), dtype=object),
            "problem": pd.Series(np.where(bad, "broken", None), dtype=object),
        }
    )


ON_ROWS: dict[str, tuple[expect.Expectation, Any]] = {
    "present": (expect.present(["gap"])[0], None),
    "unique": (expect.unique(["same"], ""), 0),
    "unique together": (expect.unique(["same", "one"], ""), "0, 1"),
    "one_of": (expect.one_of("text", ["x"], ""), " "),
    "not_blank": (expect.not_blank("text", ""), " "),
    "between": (expect.between("number", 0, 0.5, ""), 1.0),
    "no_problem": (expect.no_problem("problem", ""), "broken"),
}
"""Expectation -> one that no row may violate, and the value that violates it in `offending`."""
WITH_A_LIMIT: dict[str, tuple[Callable[[float], expect.Expectation], Any]] = {
    "mostly_present": (lambda share: expect.mostly_present("gap", share, ""), None),
    "rarely": (lambda share: expect.rarely("flag", share, ""), True),
}
"""Expectation -> how it is made with the share of rows that may violate it, and the value that does."""
COUNTS = pytest.mark.parametrize("count", [0, 1, 200, 201, 100_000])
"""Numbers of offending rows. Great Expectations lists at most 200 of their values, but all of their indices."""


def first_five(count: int, value: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"row": row, "id": f"r{row}", "value": value} for row in range(min(count, 5)))


def test_every_expectation_is_counted_below() -> None:
    made = {name for name, maker in vars(expect).items() if inspect.isfunction(maker) and not name.startswith("_")}
    tried = {*ON_ROWS, *WITH_A_LIMIT, "mean_between", "at_least"} - {"unique together"}
    assert made - {"library", "disable_telemetry"} == tried


@COUNTS
def test_any_number_of_rows_may_offend(count: int) -> None:
    """Two rows at least violate uniqueness, so one alone does not."""
    table = Table("many", offending(count), ("row", "id"), [expectation for expectation, _ in ON_ROWS.values()])
    for (name, (_, value)), result in zip(ON_ROWS.items(), validate(table), strict=True):
        expected = 0 if count == 1 and name.startswith("unique") else count
        assert (result.violations, result.success) == (expected, expected == 0), name
        assert result.rows == first_five(expected, value), name
        if expected > 5:
            assert result.sentence().endswith(f"; and {count - 5} more"), name


@COUNTS
@pytest.mark.parametrize("name", WITH_A_LIMIT)
def test_any_number_of_rows_may_offend_within_a_limit_and_beyond(name: str, count: int) -> None:
    (maker, value), frame = WITH_A_LIMIT[name], offending(count)
    share = count / len(frame)
    limits = [maker(share), maker(max(0.0, share - 0.5 / len(frame)))]
    within, beyond = validate(Table("many", frame, ("row", "id"), limits))
    assert (within.success, beyond.success) == (True, count == 0)
    for result in (within, beyond):
        assert (result.violations, result.of) == (count, len(frame))
        assert result.rows == first_five(count, value)


@COUNTS
def test_aggregates_of_any_number_of_rows(count: int) -> None:
    frame = offending(count)
    rows, mean = len(frame), count / len(frame)
    asked = [
        expect.mean_between("number", 0, mean, "within"),
        expect.mean_between("number", mean + 0.01, 1, "beyond"),
        expect.at_least(rows, "within"),
        expect.at_least(rows + 1, "beyond"),
    ]
    results = validate(Table("many", frame, ("row", "id"), asked))
    assert [(result.success, result.violations) for result in results] == [(True, 0), (False, 1)] * 2
    assert [result.observed for result in results] == [mean, mean, rows, rows]
    assert [result.rows for result in results] == [()] * 4
