"""The files in a folder that a stage depends on are those that DVC sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.core.errors import DataError
from swirl.core.folder_files import SIDE_FILES, files_inside
from swirl.pipeline.dvc_file import dvc_hash


def test_side_files_are_no_files_of_a_folder_for_us_and_for_dvc(tmp_path: Path, root: Path) -> None:
    for name in ("a.txt", "sub/b.txt", "#c.txt", "d~.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    hashed = dvc_hash(tmp_path)
    sides = (".a.txt.swp", "a.swo", ".#a.txt", "#a.txt#", "a.txt~", ".DS_Store", ".nfs0001", "__pycache__/a.pyc")
    for name in sides:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = {path.relative_to(tmp_path).as_posix() for path in files_inside(tmp_path)}
    assert found == {"a.txt", "sub/b.txt", "#c.txt", "d~.txt", ".hidden"}
    assert dvc_hash(tmp_path) == hashed
    ignored = (root / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert {pattern.replace("#*#", r"\#*#") for pattern in SIDE_FILES} <= set(ignored)


def test_a_link_to_a_folder_is_refused_and_one_to_a_file_is_followed(tmp_path: Path) -> None:
    inside, other = tmp_path / "inside", tmp_path / "other"
    inside.mkdir()
    other.mkdir()
    (other / "a.txt").write_text("a")
    (inside / "linked.txt").symlink_to(other / "a.txt")
    (tmp_path / "top").symlink_to(inside)
    assert [path.name for path in files_inside(tmp_path / "top")] == ["linked.txt"]
    (inside / "more").symlink_to(other)
    with pytest.raises(DataError, match=r"inside/more is a link to a folder, and DVC does not look into it"):
        list(files_inside(inside))


def test_a_link_to_a_folder_beside_it_inside_hides_nothing(tmp_path: Path) -> None:
    """As a virtual environment has `lib64`."""
    (tmp_path / "venv/lib").mkdir(parents=True)
    (tmp_path / "venv/lib/one.py").write_text("1")
    (tmp_path / "venv/lib64").symlink_to("lib")
    assert list(files_inside(tmp_path)) == [tmp_path / "venv/lib/one.py"]
