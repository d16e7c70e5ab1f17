"""`swirl browse` on a project that is not finished, and on a folder without trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from swirl.cli.main import app
from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import Derivation, Question, Support, Trajectory
from tests.reporting.test_browser import ASKED, BASE, synthesis


def test_what_was_synthesised_so_far_can_be_browsed(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "run")
    made = [one.trajectory for one in (*BASE, *synthesis().trajectories)]
    records.save(list(ASKED.values()), Question, layout.questions)
    records.save([], Derivation, layout.derivations)
    records.save([], Support, layout.support)
    records.save(made, Trajectory, layout.trajectories)
    done = CliRunner().invoke(app, ["browse", str(layout.root)])
    page = layout.root / ".swirl/browser/index.html"
    assert done.output.replace("\n", "") == f"4 trajectories: {page}"
    assert page.exists() and (page.parent / "shards/0-0.js").exists()
    assert "../index.html" not in (page.parent / "index.js").read_text(encoding="ascii")  # there is no report yet
    layout.page.parent.mkdir()
    layout.page.touch()
    for _ in range(2):  # an older browser is replaced
        CliRunner().invoke(
            app, ["browse", str(layout.root), "--to", str(tmp_path / "elsewhere")], catch_exceptions=False
        )
    assert '"report":"../run/reports/index.html"' in (tmp_path / "elsewhere/index.js").read_text(encoding="ascii")
    with pytest.raises(DataError, match="run holds .swirl, which is no part of a trajectory browser; name another"):
        CliRunner().invoke(app, ["browse", str(layout.root), "--to", str(layout.root)], catch_exceptions=False)
    assert layout.questions.exists()


def test_a_folder_without_trajectories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="has no trajectories yet, neither in data/trajectories nor in data/predictions"
    ):
        CliRunner().invoke(app, ["browse", str(tmp_path)], catch_exceptions=False)
