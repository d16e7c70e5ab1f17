"""Journals: finished blocks are read, unfinished ones made again, those of other work kept apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from swirl.core.errors import DataError
from swirl.core.journal import Journal, delete_finished, fingerprint, revive
from swirl.core.records import save
from swirl.core.types import Passage

ONE = [Passage("p0", "Oslo", "A town."), Passage("p1", "", "A fjord.")]
OTHER = [Passage("p9", "Lima", "Another town.")]


def never() -> list[Passage]:
    raise AssertionError("a committed block was made again")


def block(journal: Journal, number: int, make: Callable[[], Iterable[Passage]]) -> list[Passage]:
    if not journal.holds(number, Passage):
        journal.commit(number, Passage, make())
    return journal.records(number, Passage)


def test_a_block_is_made_once_and_then_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    assert not journal.holds(0, Passage)
    assert block(journal, 0, lambda: ONE) == ONE
    assert journal.records(0, Passage) == ONE and not journal.holds(1, Passage)
    assert block(journal, 0, never) == ONE
    again = Journal(tmp_path / "journal", "a")
    assert block(again, 0, never) == ONE
    assert block(again, 1, lambda: OTHER) == OTHER


def test_committed_blocks_become_one_file_without_a_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    journal.commit(0, Passage, ONE)
    journal.commit(1, Passage, OTHER)
    assert journal.columns(0, Passage, ["title"]).to_pylist() == [{"title": "Oslo"}, {"title": ""}]
    assert journal.columns(1, Passage, ["id"]).to_pylist() == [{"id": "p9"}]
    journal.collect(2, Passage, tmp_path / "all.parquet")
    save([*ONE, *OTHER], Passage, tmp_path / "expected.parquet")
    assert (tmp_path / "all.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_the_blocks_of_another_fingerprint_stay_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block(Journal(tmp_path / "journal", "a"), 0, lambda: ONE)
    assert capsys.readouterr().out == ""
    changed = Journal(tmp_path / "journal", "b")
    assert block(changed, 0, lambda: OTHER) == OTHER
    named = "unfinished work of other source, params or inputs is kept; delete it if it is of no use: "
    assert capsys.readouterr().out == f"{named}{tmp_path / 'journal/a'}\n"
    changed.finish()
    assert block(Journal(tmp_path / "journal", "a"), 0, never) == ONE  # its own fingerprint again


def test_a_block_that_failed_halfway_is_made_again(tmp_path: Path) -> None:
    def halfway() -> Iterator[Passage]:
        yield ONE[0]
        raise RuntimeError("killed")

    journal = Journal(tmp_path / "journal", "a")
    with pytest.raises(RuntimeError, match="killed"):
        block(journal, 0, halfway)
    assert block(journal, 0, lambda: ONE) == ONE


def test_a_partial_file_left_by_a_kill_is_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    partial = tmp_path / "journal/a/block-000000.parquet.partial"
    partial.write_bytes(b"PAR1 half a blo")
    assert block(journal, 0, lambda: ONE) == ONE
    assert sorted(path.name for path in (tmp_path / "journal/a").iterdir()) == ["block-000000.parquet"]


@pytest.mark.parametrize("left", [0, 1, 100, 400], ids=str)
def test_a_torn_block_is_set_aside_named_and_made_again(
    left: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal, folder = Journal(tmp_path / "journal", "a"), tmp_path / "journal/a"
    block(journal, 0, lambda: ONE)
    block(journal, 1, lambda: OTHER)
    torn = folder / "block-000000.parquet"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:left])
    assert left < len(whole)
    assert not journal.holds(0, Passage)
    aside = folder / "torn-block-000000.parquet"
    said = capsys.readouterr().out
    assert said.startswith(f"this cannot be read and is made again; it is kept as {aside}, ") and said.count("\n") == 1
    assert aside.read_bytes() == whole[:left]
    again = Journal(tmp_path / "journal", "a")
    assert block(again, 0, lambda: ONE) == ONE
    assert block(again, 0, never) == ONE and block(again, 1, never) == OTHER
    assert torn.read_bytes() == whole


def test_dropped_blocks_are_made_again_and_the_others_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    for number in range(3):
        block(journal, number, lambda: ONE)
    journal.drop(iter([0, 2, 7]))
    assert [journal.holds(number, Passage) for number in range(3)] == [False, True, False]


def test_finished_work_is_deleted_by_the_next_that_starts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    block(journal, 0, lambda: ONE)
    journal.finish()
    assert (tmp_path / "journal/a.finished/block-000000.parquet").exists()
    again = Journal(tmp_path / "journal", "a")
    assert not again.holds(0, Passage)
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["a"]


def test_finished_work_that_is_revived_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    block(journal, 0, lambda: ONE)
    journal.finish()
    revive(tmp_path / "journal")
    assert block(Journal(tmp_path / "journal", "a"), 0, never) == ONE


def test_deleting_finished_work_leaves_the_unfinished(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "journal", "a"), Journal(tmp_path / "journal", "b")
    block(other, 0, lambda: OTHER)
    journal.finish()
    delete_finished(tmp_path / "journal")
    assert block(other, 0, never) == OTHER
    other.finish()
    delete_finished(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()


def test_the_fingerprint_follows_source_settings_and_bytes(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    folder.mkdir()
    file.write_text("a")
    (folder / "inside").write_text("b")
    before = fingerprint("source", [{"seed": 0}], [file, folder])
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/tool.pyc").write_bytes(b"made by an import")
    (folder / ".inside.swp").write_bytes(b"an editor has it open")
    assert fingerprint("source", [{"seed": 0}], [file, folder]) == before
    seen = {before, fingerprint("source", [{"seed": 1}], [file, folder])}
    seen |= {
        fingerprint("changed", [{"seed": 0}], [file, folder]),
        fingerprint("source", [{"seed": 0}], [folder, file]),
    }
    (folder / "inside").write_text("c")
    seen.add(fingerprint("source", [{"seed": 0}], [file, folder]))
    (folder / "inside").rename(folder / "renamed")
    seen.add(fingerprint("source", [{"seed": 0}], [file, folder]))
    assert len(seen) == 6


def test_where_a_file_ends_and_another_begins_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Paths `a/b` and `c` differ from `a` and `b/c`, and contents `ab` and `c` from `a` and `bc`."""
    for name, files in {"one": {"a/b": "x", "c": "y"}, "two": {"a": "x", "b/c": "y"}}.items():
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    one, two = tmp_path / "one", tmp_path / "two"
    assert fingerprint("", [], [one / "a", one / "c"]) != fingerprint("", [], [two / "a", two / "b"])
    (tmp_path / "p").write_text("ab")
    (tmp_path / "q").write_text("c")
    before = fingerprint("", [], [tmp_path / "p", tmp_path / "q"])
    (tmp_path / "p").write_text("a")
    (tmp_path / "q").write_text("bc")
    assert fingerprint("", [], [tmp_path / "p", tmp_path / "q"]) != before
    assert fingerprint("ab", ["c"], []) != fingerprint("a", ["bc"], [])


def test_an_input_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none cannot be read: No such file"):
        fingerprint("", [], [tmp_path / "none"])
