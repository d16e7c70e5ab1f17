"""What a killed DVC leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.orchestration.dvc_lock import remove_torn


@pytest.mark.parametrize(("text", "stays"), [("", False), ('{"read": {', False), ('{"read": {}}', True)])
def test_a_torn_list_of_locks_is_removed_and_no_other(text: str, stays: bool, tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    remove_torn(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    remove_torn(tmp_path)
    assert path.exists() == stays
