"""Saving records to files and loading them, and the errors that broken files raise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from swirl.core import parquet
from swirl.core.errors import DataError
from swirl.core.record_schemas import SCHEMAS
from swirl.core.records import (
    from_dict,
    load,
    load_json,
    read_table,
    save,
    save_json,
    save_series,
    stream,
    to_dict,
)
from swirl.core.types import (
    Action,
    Annotation,
    Conversation,
    Derivation,
    Draw,
    HeldOutStep,
    JudgeRole,
    Observation,
    Passage,
    Prediction,
    Question,
    Score,
    StateAction,
    Step,
    Stop,
    SubTrajectory,
    Support,
    Trajectory,
    Verdict,
    WrittenSolution,
)

STEPS = (
    Step(
        0,
        Action("search", "<search_query> é </search_query> <math_exp> 1/0 </math_exp>", "é"),
        (Observation("é -> no", False, "search", "é"), Observation("error: 1/0", True, "calculate", "1/0")),
        (5, 6),
        (-0.5, 0.0),
        (7,),
    ),
    Step(1, Action("malformed", "", ""), (Observation("what?", False),), (), (), ()),
    Step(2, Action("answer", "", "5"), (), (8,), (-1.0,), ()),
)
RECORDS: dict[type, list[Any]] = {
    Question: [
        Question("q", "mini-gsm8k", "train", "How many?", ("5", "five"), 2, ("calculator",)),
        Question("r", "mini-gsm8k", "train", "", (), 0, (), "staff"),
    ],
    Derivation: [Derivation("q", "calculate", ("2 + 3",), ("5",)), Derivation("r", "search", (), ())],
    Annotation: [Annotation("q", ("Who leads #1?",), ("Ada",)), Annotation("r", ("<answer> 5 </answer>",), ())],
    Conversation: [Conversation("q", '{"id": "é"}'), Conversation("r", "")],
    StateAction: [
        StateAction("t", "q", "desk", "base", 0, 1, "<a> {} </a>", "a", None, "my:Judge", JudgeRole.SECOND, None, None),
        StateAction("t", "q", "desk", "swirl", 1, 0, "", "cut", 0.25, "", JudgeRole.NONE, False, True),
    ],
    Passage: [Passage("p", "", "Text with\nlines, “quotes” and 漢字.")],
    Support: [Support("q", ("p", "r")), Support("r", ())],
    WrittenSolution: [WrittenSolution("q", "2 + 3 = <<2+3=5>>5\n#### 5")],
    Trajectory: [
        Trajectory("t", "q", "mini-gsm8k", 1, "base", 2**63 - 1, (1, 2), STEPS, Stop.STEP_LIMIT, ""),
        Trajectory("u", "q", "mini-gsm8k", 0, "base", 0, (), (), Stop.TOOL_FAILED, "the index is gone", True),
    ],
    Verdict: [Verdict("t", -1, None, None, "", "judge"), Verdict("t", 0, False, 0.25, "why", "judge")],
    HeldOutStep: [
        HeldOutStep("search", "search", True, 0.1, -0.5),
        HeldOutStep("calculate", "answer", False, 1.0, -2.0),
    ],
    SubTrajectory: [
        SubTrajectory("t", "q", "mini-gsm8k", 0, (1, 2), (5, 6), None),
        SubTrajectory("t", "q", "mini-gsm8k", 1, (), (), 0.5),
    ],
    Draw: [
        Draw(1, "t", "q", "mini-gsm8k", 0, 0, (5, 6), "say", None, False, 0.0, -1.5),
        Draw(60, "t", "q", "mini-gsm8k", 1, 7, (5,), "", 0.0, True, -0.5, -0.25),
    ],
    Prediction: [
        Prediction("q", "b", "base", True, "5", True, 1.0, 0.1, 0.2, 0.3, None, 0.4, 2, 0, Stop.ANSWERED, "t"),
        Prediction("q", "b", "base", False, "", False, 0.0, 0.0, 0.0, 0.0, 0.5, None, 1, 1, Stop.MALFORMED, "t"),
    ],
}


def test_every_stored_type_is_covered() -> None:
    assert set(RECORDS) == set(SCHEMAS)


@pytest.mark.parametrize("kind", RECORDS)
def test_records_come_back_as_they_were_saved(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "folder/records.parquet"
    save(RECORDS[kind], kind, path)
    assert load(kind, path) == RECORDS[kind]
    assert list(stream(kind, path)) == [RECORDS[kind]]
    save([], kind, path)
    assert load(kind, path) == []
    assert list(stream(kind, path)) == []
    assert read_table(kind, path).schema == SCHEMAS[kind]
    assert [file.name for file in path.parent.iterdir()] == ["records.parquet"]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(RECORDS[Trajectory], Trajectory, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_field_that_a_row_lacks_has_its_default_if_there_is_one() -> None:
    row = to_dict(RECORDS[Trajectory][1])
    del row["retokenised"]
    assert from_dict(Trajectory, row).retokenised is False
    del row["stop"]
    with pytest.raises(TypeError, match="stop"):
        from_dict(Trajectory, row)


def test_a_score_survives_json(tmp_path: Path) -> None:
    score = Score(
        "b", "base", True, 4, 0.5, 0.1, 0.9, None, 0.5, 0.5, 0.5, 0.5, None, 1.0, 2.5, 0.0, "j", JudgeRole.SECOND
    )
    save_json([to_dict(score)], tmp_path / "scores.json")
    assert [from_dict(Score, row) for row in load_json(tmp_path / "scores.json")] == [score]


def test_an_enum_comes_back_as_an_enum(tmp_path: Path) -> None:
    save(RECORDS[Trajectory], Trajectory, tmp_path / "t.parquet")
    assert load(Trajectory, tmp_path / "t.parquet")[0].stop is Stop.STEP_LIMIT


def write(table: pa.Table, path: Path) -> None:
    """A file of any table, sealed as files of records are."""
    parquet.write([table], table.schema, path)


def broken(kind: type, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(kind, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    assert broken(Passage, tmp_path / "p.parquet").endswith("p.parquet does not exist; run `dvc repro` to make it")


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1" + bytes(64) + b"PAR1"])
def test_a_file_that_is_no_parquet(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    assert "is not a readable Parquet file" in broken(Passage, tmp_path / "p.parquet")


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(RECORDS[Trajectory], Trajectory, path)
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "is not a readable Parquet file" in broken(Trajectory, path)


def test_a_missing_column(tmp_path: Path) -> None:
    write(pa.table({"id": ["p"], "title": [""]}), tmp_path / "p.parquet")
    assert broken(Passage, tmp_path / "p.parquet").endswith(
        "p.parquet: column 'text' is missing; a file of Passage has id, title, text"
    )


def test_a_column_of_the_wrong_type(tmp_path: Path) -> None:
    write(pa.table({"id": ["p"], "title": [""], "text": [["a"]]}), tmp_path / "p.parquet")
    assert "expected Passage with" in broken(Passage, tmp_path / "p.parquet")
    row = {**to_dict(RECORDS[Trajectory][1]), "steps": [1]}
    write(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    assert "expected Trajectory with" in broken(Trajectory, tmp_path / "t.parquet")


def test_a_further_column_is_left_out(tmp_path: Path) -> None:
    write(pa.table({"more": [1], "text": ["c"], "id": ["a"], "title": ["b"]}), tmp_path / "p.parquet")
    assert load(Passage, tmp_path / "p.parquet") == [Passage("a", "b", "c")]


def test_an_unknown_stop_names_row_value_and_what_is_allowed(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([to_dict(t) for t in RECORDS[Trajectory]], schema=SCHEMAS[Trajectory])
    table = table.set_column(table.column_names.index("stop"), "stop", pa.array(["answered", "tired"]))
    write(table, tmp_path / "t.parquet")
    assert broken(Trajectory, tmp_path / "t.parquet").endswith(
        "t.parquet, row 1: stop is 'tired'; it is one of answered, step_limit, malformed, context_full, tool_failed"
    )


def test_a_missing_action_names_the_row(tmp_path: Path) -> None:
    rows = [to_dict(RECORDS[Trajectory][0])]
    rows[0]["steps"] = [None]
    write(pa.Table.from_pylist(rows, schema=SCHEMAS[Trajectory]), tmp_path / "t.parquet")
    assert "t.parquet, row 0: " in broken(Trajectory, tmp_path / "t.parquet")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"]).view(pa.string())
    write(pa.table({"id": ["p"], "title": [""], "text": raw}), tmp_path / "p.parquet")
    assert "not UTF-8" in broken(Passage, tmp_path / "p.parquet")
    (tmp_path / "r.json").write_bytes(b'"\xe9"')
    with pytest.raises(DataError, match=r"r.json is not JSON: .*codec can't decode"):
        load_json(tmp_path / "r.json")


def test_json_reports(tmp_path: Path) -> None:
    save_series([{"step": 0, "loss": 1.5}], tmp_path / "series/a.json")
    assert (tmp_path / "series/a.json").read_text() == '[\n  {\n    "loss": 1.5,\n    "step": 0\n  }\n]\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_json({"loss": float("nan")}, tmp_path / "series/b.json")
    with pytest.raises(DataError, match=r"b.json does not exist"):
        load_json(tmp_path / "series/b.json")
    for content in ("{", "[" * 100_000, "1" * 5000):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(DataError, match=r"c.json is not JSON"):
            load_json(tmp_path / "c.json")
