"""`swirl browse` on a project that is not finished, and on a folder without trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from swirl.cli.main import app
from swirl.core import records
from swirl.core.checksums import checksum
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import Derivation, Question, Support, Trajectory
from tests.devtools import chromium, needs_chromium
from tests.reporting.test_browser import ASKED, BASE, synthesis
from tests.reporting.test_provenance import commit, git


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A run that has synthesised four trajectories, and nothing more."""
    layout = Layout(tmp_path / "run")
    made = [one.trajectory for one in (*BASE, *synthesis().trajectories)]
    records.save(list(ASKED.values()), Question, layout.questions)
    records.save([], Derivation, layout.derivations)
    records.save([], Support, layout.support)
    records.save(made, Trajectory, layout.trajectories)
    return layout


def test_what_was_synthesised_so_far_can_be_browsed(layout: Layout, tmp_path: Path) -> None:
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


def test_whose_results_these_are_is_written_beside_the_page(layout: Layout) -> None:
    folder = layout.root / ".swirl/browser"
    CliRunner().invoke(app, ["browse", str(layout.root)], catch_exceptions=False)
    assert not (folder / "provenance.js").exists()  # there are no results yet
    for accuracy in (0.5, 0.6):  # an older script is replaced
        records.save_json({"accuracy": accuracy}, layout.results)
        CliRunner().invoke(app, ["browse", str(layout.root)], catch_exceptions=False)
        digest = checksum(layout.results).sha256
        assert f'"results":"{digest}","whose":"provenance.js"' in (folder / "index.js").read_text(encoding="ascii")
        said = (folder / "provenance.js").read_text(encoding="utf-8")
        assert digest in said and "These are your own results, not committed ones. They are stale: dvc.lock" in said
    assert not (folder.parent / "provenance.js").exists()


@pytest.mark.slow
@needs_chromium
def test_the_page_says_whose_results_these_are(layout: Layout, tmp_path: Path) -> None:
    records.save_json({"accuracy": 0.5}, layout.results)
    git(layout, "init", "-q")
    commit(layout)
    CliRunner().invoke(app, ["browse", str(layout.root), "--to", str(tmp_path / "there")], catch_exceptions=False)
    with chromium(tmp_path / "profile") as page:
        page.open(tmp_path / "there/index.html")
        page.wait("document.getElementById('provenance').textContent")
        shown = page.run("document.getElementById('provenance').innerText")
        assert page.problems() == []
    assert " ".join(shown.split()) == (
        "These are the committed results. They are stale: dvc.lock does not record them. `dvc repro` makes them anew. "
        f"commit {git(layout, 'rev-parse', '--short', 'HEAD')} committed 2026-03-04 04:06 UTC"
    )


def test_what_is_no_browser_is_not_replaced(layout: Layout, tmp_path: Path) -> None:
    def browse(to: str) -> object:
        return CliRunner().invoke(app, ["browse", str(layout.root), "--to", str(tmp_path / to)], catch_exceptions=False)

    mine = tmp_path / "out.partial/mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(DataError, match=r"out\.partial holds mine\.txt, which is no part of a trajectory browser"):
        browse("out")
    assert mine.read_text() == "precious"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; the trajectory browser wants a folder"):
        browse("file")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    browse("link")
    assert (tmp_path / "there/index.html").exists() and (tmp_path / "link").is_symlink()


def test_a_folder_without_trajectories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="has no trajectories yet, neither in data/trajectories nor in data/predictions"
    ):
        CliRunner().invoke(app, ["browse", str(tmp_path)], catch_exceptions=False)
