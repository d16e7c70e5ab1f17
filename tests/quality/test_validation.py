"""How gates read files, check expectations and report, whatever a particular gate expects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from swirl.core.errors import GateError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save
from swirl.core.types import Action, Step, Stop, SubTrajectory, Trajectory
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
    def step(index: int) -> Step:
        return Step(index, Action("search", f"text {index}", ""), "", (index,), (-1.0,), (), False)

    def attempt(identifier: str, steps: tuple[Step, ...]) -> Trajectory:
        return Trajectory(identifier, "q", "b", 0, "m", 0, (1,), steps, Stop.STEP_LIMIT, "")

    save([attempt("a", ()), attempt("b", (step(0), step(1)))], Trajectory, tmp_path / "t.parquet")
    trajectories, steps = tables.read_trajectories(tmp_path / "t.parquet")
    assert trajectories["steps"].tolist() == [0, 2]
    assert steps["row"].tolist() == [1, 1]
    assert steps["trajectory_id"].tolist() == ["b", "b"]
    assert steps["text"].tolist() == ["text 0", "text 1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Who  wrote “Ash”? ", "who wrote ash"),
        ("1.5 + 2", "1 5 2"),
        ("15 + 2", "15 2"),
        ("ＡＢ straße", "ab strasse"),
    ],
)
def test_leakage_ignores_case_blanks_and_punctuation_but_not_digits(text: str, expected: str) -> None:
    assert leakage_key(text) == expected
