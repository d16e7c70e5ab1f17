"""Journals: finished blocks are read, unfinished ones made again, foreign ones thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swirl.core.errors import DataError
from swirl.core.journal import Journal, fingerprint
from swirl.core.types import Passage

ONE = [Passage("p0", "Oslo", "A town."), Passage("p1", "", "A fjord.")]
OTHER = [Passage("p9", "Lima", "Another town.")]


def never() -> list[Passage]:
    raise AssertionError("a committed block was made again")


def test_a_block_is_made_once_and_then_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    assert not journal.holds(0)
    assert journal.block(0, Passage, lambda: ONE) == ONE
    assert journal.holds(0) and not journal.holds(1)
    assert journal.block(0, Passage, never) == ONE
    again = Journal(tmp_path / "journal", "a")
    assert again.block(0, Passage, never) == ONE
    assert again.block(1, Passage, lambda: OTHER) == OTHER


def test_another_fingerprint_throws_the_blocks_away(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", "a").block(0, Passage, lambda: ONE)
    assert Journal(tmp_path / "journal", "b").block(0, Passage, lambda: OTHER) == OTHER
    assert Journal(tmp_path / "journal", "a").block(0, Passage, lambda: ONE) == ONE


def test_blocks_without_a_fingerprint_are_thrown_away(tmp_path: Path) -> None:
    Journal(tmp_path / "journal", "a").block(0, Passage, lambda: ONE)
    (tmp_path / "journal/fingerprint").unlink()
    assert Journal(tmp_path / "journal", "a").block(0, Passage, lambda: OTHER) == OTHER


def test_a_block_that_failed_halfway_is_made_again(tmp_path: Path) -> None:
    def halfway() -> Iterator[Passage]:
        yield ONE[0]
        raise RuntimeError("killed")

    journal = Journal(tmp_path / "journal", "a")
    with pytest.raises(RuntimeError, match="killed"):
        journal.block(0, Passage, halfway)
    assert journal.block(0, Passage, lambda: ONE) == ONE


def test_a_partial_file_left_by_a_kill_is_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    partial = tmp_path / "journal/block-000000.parquet.partial"
    partial.write_bytes(b"PAR1 half a blo")
    assert journal.block(0, Passage, lambda: ONE) == ONE
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == ["block-000000.parquet", "fingerprint"]


def test_a_broken_block_is_refused_by_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    (tmp_path / "journal/block-000000.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"block-000000.parquet is not a readable Parquet file"):
        journal.block(0, Passage, never)


def test_dropped_blocks_are_made_again_and_the_others_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    for number in range(3):
        journal.block(number, Passage, lambda: ONE)
    journal.drop(iter([0, 2, 7]))
    assert [journal.holds(number) for number in range(3)] == [False, True, False]


def test_clear_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "a")
    journal.block(0, Passage, lambda: ONE)
    journal.clear()
    assert not (tmp_path / "journal").exists()


def test_the_fingerprint_follows_settings_and_bytes(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    folder.mkdir()
    file.write_text("a")
    (folder / "inside").write_text("b")
    before = fingerprint([{"seed": 0}], [file, folder])
    assert fingerprint([{"seed": 0}], [file, folder]) == before
    seen = {before, fingerprint([{"seed": 1}], [file, folder]), fingerprint([{"seed": 0}], [folder, file])}
    (folder / "inside").write_text("c")
    seen.add(fingerprint([{"seed": 0}], [file, folder]))
    (folder / "inside").rename(folder / "renamed")
    seen.add(fingerprint([{"seed": 0}], [file, folder]))
    assert len(seen) == 5


def test_a_kill_while_a_journal_is_opened_leaves_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark that is there is not written again; one that is not appears as a whole, or not at all."""
    Journal(tmp_path / "journal", "a").block(0, Passage, lambda: ONE)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        assert Journal(tmp_path / "journal", "a").holds(0)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Journal(tmp_path / "other", "a")
    assert not (tmp_path / "other/fingerprint").exists()
    assert Journal(tmp_path / "other", "a").block(0, Passage, lambda: ONE) == ONE
