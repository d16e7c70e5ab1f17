"""What a stage depends on is compared at its end with what it was at its start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swirl.config.params import load
from swirl.core.errors import DataError, SwirlError
from swirl.pipeline.dvc_file import DvcStage
from swirl.pipeline.steady import SMALL, Steady

STAGE = DvcStage("judge", ("seed", "judge.threshold", "runtime"), ("prompts", "data/a.bin", "missing.txt"), ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy("params.yaml", tmp_path)
    for name, text in {"prompts/search.txt": b"Judge.", "data/a.bin": b"x" * (SMALL + 1)}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(text)
    return tmp_path


def steady(root: Path) -> Steady:
    return Steady(STAGE, root, load(root / "params.yaml").model_dump())


def write(name: str, text: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")

    return edit


def later(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        os.utime(root / name, ns=(0, (root / name).stat().st_mtime_ns + 2 * 10**9))  # no file system is coarser

    return edit


def put(old: str, new: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        before = (root / "params.yaml").read_text(encoding="utf-8")
        assert before.count(old) == 1
        (root / "params.yaml").write_text(before.replace(old, new), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        lambda root: None,
        later("prompts/search.txt"),  # saved again as it was
        write("prompts/__pycache__/a.pyc", "made by an import"),
        write("prompts/.search.txt.swp", "an editor has it open"),
        put("kl_coefficient: 0.2", "kl_coefficient: 0.3"),  # of another stage
        write("data/b.bin", "no dependency"),
    ],
    ids=["nothing", "saved again", "pyc", "side file", "another stage's params", "another file"],
)
def test_what_is_still_the_same_passes(edit: Callable[[Path], None], root: Path) -> None:
    one = steady(root)
    edit(root)
    one.check()


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (put("threshold: 0.5", "threshold: 0.25"), "judge.threshold in params.yaml"),
        (put("threads: 1\n  workers: 2", "threads: 1\n  workers: 1"), "runtime in params.yaml"),
        (put("threshold: 0.5", "threshold: often"), "params.yaml (.*threshold"),
        (write("prompts/search.txt", "judge!"), "prompts/search.txt"),
        (write("prompts/new.txt", ""), "prompts/new.txt"),
        (write("missing.txt", "there now"), "missing.txt"),
        (lambda root: (root / "prompts/search.txt").unlink(), "prompts/search.txt"),
        (later("data/a.bin"), "data/a.bin"),  # too large to be read for this
    ],
    ids=["param", "section", "broken params", "content", "new", "made", "deleted", "large"],
)
def test_what_has_changed_is_named(edit: Callable[[Path], None], named: str, root: Path) -> None:
    one = steady(root)
    edit(root)
    pattern = named.replace("(", r"\(")
    with pytest.raises(SwirlError, match=f"(?s)while judge ran, something that it depends on was changed: {pattern}"):
        one.check()


def test_what_download_writes_beside_the_files_that_it_reads_is_no_change(root: Path) -> None:
    """Locks, new or with another entry, and the traces that a server gave; a file of logs is one."""
    stage = DvcStage("download", (), ("data",), ())
    write("data/hub.lock.json", "{}")(root)
    watched = Steady(stage, root, {})
    for name in ("hub.lock.json", "mlflow.lock.json", "mlflow/my-agent.jsonl"):
        write(f"data/{name}", '{"a": 1}')(root)
    watched.check()
    write("data/requests.jsonl", "{}")(root)
    with pytest.raises(SwirlError, match="was changed: data/requests.jsonl. What it has written"):
        watched.check()


def test_a_link_to_a_folder_which_dvc_does_not_see_is_refused(root: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "elsewhere/more.txt").write_text("more")
    (root / "prompts/linked.txt").symlink_to(root / "elsewhere/more.txt")
    (root / "prompts").rename(root / "behind")
    (root / "prompts").symlink_to(root / "behind")
    steady(root).check()  # a linked file, and a linked dependency
    (root / "prompts/more").symlink_to(root / "elsewhere")
    with pytest.raises(DataError, match="prompts/more is a link to a folder.*link the files"):
        steady(root)
