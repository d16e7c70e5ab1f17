"""Files of records: a damaged one and one of another format are refused, and large ones are read a group at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from swirl.core import parquet
from swirl.core.errors import DataError
from swirl.core.layout import Layout, stage_of
from swirl.core.record_schemas import SCHEMAS
from swirl.core.records import load, pick, read_table, save, stream, to_dict
from swirl.core.types import (
    Action,
    Observation,
    Passage,
    Step,
    Stop,
    SubTrajectory,
    Trajectory,
    Verdict,
)

ROOT = Path(__file__).parents[2]


def attempt(number: int) -> Trajectory:
    call, ids = Action("search", f"<search_query> who {number} </search_query>", f"who {number}"), (number, 7, 9)
    seen = (Observation("nobody", False, "search", f"who {number}"), Observation("error: no", True, "calculate", "1/0"))
    step = Step(0, call, seen, ids, (-0.5, -0.25, -1.5), (4, 5))
    return Trajectory(f"t/{number}", "q", "b", number, "m", number, ids, (step, step), Stop.STEP_LIMIT, "")


RECORDS: dict[type, list[Any]] = {
    Trajectory: [attempt(number) for number in range(5)],
    Verdict: [Verdict(f"t/{n}", n, n % 2 == 0, n / 8, f"because of {n}", "judge") for n in range(5)],
    SubTrajectory: [SubTrajectory(f"t/{n}", "q", "b", n, tuple(range(n + 3)), (n, 5), 0.5) for n in range(5)],
}


def refused(kind: type, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(kind, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_file_with_a_flipped_bit_is_refused_wherever_the_bit_is(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "data/verdicts/r.parquet"
    save(RECORDS[kind], kind, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert "run `dvc repro judge`" in refused(kind, path), place
    path.write_bytes(whole)
    assert load(kind, path) == RECORDS[kind]


def test_every_way_to_read_refuses_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    save(RECORDS[Verdict], Verdict, path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"PAR1", b"PAR2", 1))
    expected = r"r\.parquet is damaged: its checksum is that of other bytes; run `dvc repro` to make it again"
    for read in (
        lambda: load(Verdict, path),
        lambda: next(stream(Verdict, path)),
        lambda: pick(Verdict, path, "judge", ["judge"]),
        lambda: read_table(Verdict, path, ["judge"]),
    ):
        with pytest.raises(DataError, match=expected):
            read()


def test_a_damaged_block_of_a_journal_can_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / ".swirl/journals/synthesize/f/block-000000.parquet"
    save(RECORDS[Trajectory], Trajectory, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert refused(Trajectory, path).endswith("; delete it, and its rows are made again")


def test_other_readers_of_parquet_find_columns_and_checksums_of_pages(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    save(RECORDS[Trajectory], Trajectory, path)
    assert pd.read_parquet(path)["steps"][1][0]["observations"][1]["text"] == "error: no"
    whole = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size - (chunk.data_page_offset - chunk.dictionary_page_offset)
    path.write_bytes(whole[: end - 1] + bytes([whole[end - 1] ^ 1]) + whole[end:])
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_a_large_file_is_read_a_group_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    passages = [Passage(str(number), "t", "x") for number in range(2500)]
    save(iter(passages), Passage, path)
    groups = list(stream(Passage, path))
    assert [len(group) for group in groups] == [1000, 1000, 500]
    assert [one for group in groups for one in group] == passages == load(Passage, path)
    assert pick(Passage, path, "id", ["2400", "7", "none"]) == [passages[7], passages[2400]]
    assert read_table(Passage, path, ["id"])["id"].to_pylist() == [one.id for one in passages]


def test_a_bad_row_of_a_later_group_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    rows = [to_dict(attempt(number)) for number in range(1200)]
    rows[1100]["stop"] = "tired"
    schema = SCHEMAS[Trajectory]
    parquet.write([pa.Table.from_pylist(rows, schema=schema)], schema, path)
    assert f"{path}, row 1100: stop is 'tired'" in refused(Trajectory, path)
    with pytest.raises(DataError, match="row 1100: stop is 'tired'"):
        pick(Trajectory, path, "id", ["t/3", "t/1100"])


@pytest.mark.parametrize("kind", RECORDS)
def test_a_file_of_an_older_format_is_refused(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "data/steps/steps.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([to_dict(one) for one in RECORDS[kind]], schema=SCHEMAS[kind]), path)
    assert refused(kind, path) == (
        f"{path} is of format 1, and this swirl reads format 2: an older swirl wrote it; "
        "run `dvc repro filter` to make it again"
    )


def test_a_file_of_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data/trajectories/trajectories.parquet"
    with monkeypatch.context() as newer:
        newer.setattr(parquet, "FORMAT", 3)
        save(RECORDS[Trajectory], Trajectory, path)
    assert refused(Trajectory, path) == (
        f"{path} is of format 3, and this swirl reads format 2: a newer swirl wrote it; "
        "update swirl, or run `dvc repro synthesize` to make it again"
    )


def test_the_stage_of_every_folder_of_data_is_the_one_in_dvc_yaml() -> None:
    for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        for out in stage.get("outs", stage.get("do", {}).get("outs", [])):
            if isinstance(out, str) and out.startswith("data/"):
                assert stage_of(ROOT / out.replace("${key}", "base") / "r.parquet") == name, out
    layout = Layout(ROOT)
    assert stage_of(layout.prediction_verdicts("swirl")) == "evaluate"
    assert stage_of(layout.index("mini-musique", "evaluation") / "passages.parquet") == "index"
    assert stage_of(Path("elsewhere/steps/r.parquet")) == ""
