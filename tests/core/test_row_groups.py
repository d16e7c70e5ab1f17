"""Tables by row group: written from columns as from records, read in any order, and never many at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from swirl.core import parquet
from swirl.core.errors import DataError
from swirl.core.records import load, save
from swirl.core.row_groups import KEPT, RowGroups, save_tables, tables
from swirl.core.types import Passage

PASSAGES = [Passage(f"p{n}", "t" * (n % 3), "x" * n) for n in range(45)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """45 passages in row groups of 10."""
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 10)
    save(PASSAGES, Passage, tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


@pytest.mark.parametrize("sizes", [[45], [1] * 45, [7, 0, 23, 15], [9, 11, 10, 15]])
def test_tables_of_any_lengths_give_the_bytes_of_the_records(sizes: list[int], path: Path, tmp_path: Path) -> None:
    whole = pa.concat_tables(tables(Passage, path))
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    parts = [whole.slice(end - size, size) for end, size in zip(ends, sizes, strict=True)]
    save_tables(iter(parts), Passage, tmp_path / "q.parquet")
    assert (tmp_path / "q.parquet").read_bytes() == path.read_bytes()
    save_tables(iter([]), Passage, tmp_path / "none.parquet")
    assert load(Passage, tmp_path / "none.parquet") == []


def test_a_row_is_found_in_its_group(path: Path) -> None:
    groups = RowGroups(Passage, path, lambda table: table["id"].to_pylist())
    assert [groups.place(row) for row in (0, 9, 10, 44)] == [(0, 0), (0, 9), (1, 0), (4, 4)]
    for row in (44, 3, 17, 20, 39):
        number, place = groups.place(row)
        assert groups[number][place] == f"p{row}"


def test_the_groups_asked_for_last_are_kept_and_no_others(path: Path) -> None:
    made: list[str] = []

    def build(table: pa.Table) -> str:
        made.append(table["id"][0].as_py())
        return made[-1]

    groups = RowGroups(Passage, path, build, ["id"])
    assert KEPT == 4
    assert [groups[number] for number in (0, 1, 2, 3, 0, 4)] == ["p0", "p10", "p20", "p30", "p0", "p40"]
    assert made == ["p0", "p10", "p20", "p30", "p40"]
    assert [groups[number] for number in (0, 2, 3, 4)] == ["p0", "p20", "p30", "p40"]
    assert len(made) == 5
    assert groups[1] == "p10" and made[5:] == ["p10"]  # the one asked for longest ago had to go


def test_a_file_that_is_no_table_of_these_records_is_named(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    for read in (lambda: RowGroups(Passage, path, len), lambda: next(tables(Passage, path))):
        with pytest.raises(DataError, match=r"p\.parquet is damaged: its checksum is that of other bytes"):
            read()


def test_rows_that_cannot_be_made_leave_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Passage]:
        yield from PASSAGES
        raise RuntimeError("the judge is gone")

    with pytest.raises(RuntimeError, match="the judge is gone"):
        save(failing(), Passage, tmp_path / "new/p.parquet")
    assert list((tmp_path / "new").iterdir()) == []
