"""Notes on finished work that cannot be read stop no stage, and nothing is deleted on their word."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.core.journal import claim, finish, finished
from swirl.core.layout import Layout
from swirl.pipeline.finished_work import settle


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project in which `judge` has ended."""
    finish(claim(tmp_path / ".swirl/journals/judge", "mark"))
    (tmp_path / ".swirl/finished").mkdir()
    return Layout(tmp_path)


@pytest.mark.parametrize(("text", "renamed"), [("", True), ("[]", True), ('{"size": null}', True), ("{}", False)])
def test_a_note_that_says_nothing_is_set_aside_and_the_work_stays(
    text: str, renamed: bool, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    work, notes = layout.root / ".swirl/journals/judge", layout.root / ".swirl/finished"
    (notes / "judge.json").write_text(text)
    for _ in range(2):
        settle("filter", ["data/steps"], layout)
    assert [one.name for one in finished(work)] == ["mark.finished"]
    said = capsys.readouterr().out
    assert said.count("\n") == renamed
    assert [one.name for one in notes.iterdir()] == ["torn-judge.json" if renamed else "judge.json"]
    settle("judge", ["data/verdicts"], layout)
    assert "what it had worked out is used again" in capsys.readouterr().out
    assert [one.name for one in work.iterdir()] == ["mark"]


def test_started_by_hand_the_stage_is_made_anew_whatever_the_note_says(layout: Layout) -> None:
    (layout.root / ".swirl/finished/judge.json").write_text("")
    (layout.root / "data/verdicts").mkdir(parents=True)
    settle("judge", ["data/verdicts"], layout)
    assert not (layout.root / ".swirl/journals/judge").exists()


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("home/config", "shared"),
        (".dvc/config", "shared"),
        (".dvc/config", "../shared"),
        (".dvc/config.local", "/nowhere"),
    ],
)
def test_taken_is_what_dvc_has_in_its_cache_wherever_that_is(
    file: str, place: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(layout.root / "home"))
    (layout.root / file).parent.mkdir()
    (layout.root / file).write_text(f"[cache]\n    dir = {place}\n")
    (layout.root / ".swirl/finished/judge.json").write_text('{"data/verdicts": "0a1b.dir"}')
    lock = "stages: {judge: {cmd: x, outs: [{path: data/verdicts, md5: 0a1b.dir}]}}\n"
    (layout.root / "dvc.lock").write_text(lock)
    cached = (layout.root / file).parent / place / "files/md5/0a/1b.dir"
    if place != "/nowhere":
        cached.parent.mkdir(parents=True)
        cached.touch()
    settle("filter", ["data/steps"], layout)
    assert (layout.root / ".swirl/journals/judge").exists() == (place == "/nowhere")


def test_settings_that_dvc_cannot_read_keep_the_work(layout: Layout) -> None:
    (layout.root / ".dvc").mkdir()
    (layout.root / ".dvc/config").write_bytes(b"[cache\xff")
    (layout.root / ".swirl/finished/judge.json").write_text('{"data/verdicts": "0a1b.dir"}')
    lock = "stages: {judge: {cmd: x, outs: [{path: data/verdicts, md5: 0a1b.dir}]}}\n"
    (layout.root / "dvc.lock").write_text(lock)
    settle("filter", ["data/steps"], layout)
    assert [one.name for one in finished(layout.root / ".swirl/journals/judge")] == ["mark.finished"]
