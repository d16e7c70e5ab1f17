"""Downloads from a local server with the hub's API: what is recorded, what is then required, what is refused."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swirl.benchmarks.hub import HUB, Fetcher, Remote
from swirl.benchmarks.official import OFFICIAL
from swirl.core.checksums import Checksum
from swirl.core.errors import DataError
from tests.fake_hub import FakeHub, running
from tests.servers import held_port

COMMIT, OTHER = "a" * 40, "b" * 40
DATA = Remote("someone/questions", "main/train.jsonl")
CONTENT = b'{"question": "How many?", "answer": "#### 2"}\n'
LOCKED = {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running(FakeHub("someone/questions", COMMIT, {DATA.name: CONTENT}, {"dev.json": b"{}"})) as hub:
        yield hub


def fetcher(hub: FakeHub, tmp_path: Path, cache: str = "cache") -> Fetcher:
    lock = tmp_path / "official/hub.lock.json"
    return Fetcher(lock, tmp_path / "pages", endpoint=hub.address, cache=tmp_path / cache)


def lock_of(tmp_path: Path) -> dict[str, object]:
    tree: dict[str, object] = json.loads((tmp_path / "official/hub.lock.json").read_text(encoding="utf-8"))
    return tree


def test_the_first_download_records_commit_and_checksum(hub: FakeHub, tmp_path: Path) -> None:
    fetched = fetcher(hub, tmp_path).fetch(DATA)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.commit, fetched.checksum) == (COMMIT, Checksum(**LOCKED))
    assert lock_of(tmp_path) == {"someone/questions": {"commit": COMMIT, "files": {DATA.name: LOCKED}}}


def test_later_downloads_ask_for_the_recorded_commit(hub: FakeHub, tmp_path: Path) -> None:
    fetcher(hub, tmp_path).fetch(DATA)
    before = (tmp_path / "official/hub.lock.json").read_bytes()
    hub.asked.clear()
    assert fetcher(hub, tmp_path).fetch(DATA).commit == COMMIT
    assert hub.asked == []
    hub.files["main/test.jsonl"] = CONTENT * 2
    assert fetcher(hub, tmp_path, "empty").fetch(DATA).path.read_bytes() == CONTENT
    assert (tmp_path / "official/hub.lock.json").read_bytes() == before
    assert f"/api/datasets/{DATA.place}" not in " ".join(hub.asked)
    fetcher(hub, tmp_path).fetch(Remote(DATA.place, "main/test.jsonl"))
    assert [*lock_of(tmp_path)[DATA.place]["files"]] == ["main/test.jsonl", "main/train.jsonl"]  # type: ignore[index]


def test_another_content_is_refused_and_both_are_named(hub: FakeHub, tmp_path: Path) -> None:
    fetcher(hub, tmp_path).fetch(DATA)
    hub.files[DATA.name] = CONTENT.replace(b"2", b"3")
    changed = hashlib.sha256(hub.files[DATA.name]).hexdigest()
    with pytest.raises(DataError) as caught:
        fetcher(hub, tmp_path, "empty").fetch(DATA)
    assert str(caught.value) == (
        f"someone/questions, main/train.jsonl: {tmp_path}/official/hub.lock.json requires 46 bytes with SHA-256 "
        f"{LOCKED['sha256']}, and what was downloaded has 46 bytes with SHA-256 {changed}; to accept the change, "
        "delete the entry from that file"
    )
    assert lock_of(tmp_path)[DATA.place] == {"commit": COMMIT, "files": {DATA.name: LOCKED}}


def test_a_commit_that_is_gone_is_said(hub: FakeHub, tmp_path: Path) -> None:
    fetcher(hub, tmp_path).fetch(DATA)
    hub.commit = OTHER
    with pytest.raises(DataError, match="main/train.jsonl: the hub does not have the commit that the lock file names"):
        fetcher(hub, tmp_path, "empty").fetch(DATA)


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        (Remote("someone/elsewhere", "a.jsonl"), "the hub has no such dataset, or it is private and HF_TOKEN does not"),
        (Remote("someone/questions", "b.jsonl"), "b.jsonl: the dataset has no such file at this commit"),
    ],
)
def test_what_the_hub_does_not_have_is_said(remote: Remote, message: str, hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        fetcher(hub, tmp_path).fetch(remote)
    assert not (tmp_path / "official").exists()


def test_a_gated_dataset_says_what_opens_it(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_topsecret")
    hub.gated = True
    with pytest.raises(DataError, match="is gated: accept its terms on its page, and set HF_TOKEN") as caught:
        fetcher(hub, tmp_path).fetch(DATA)
    assert "hf_topsecret" not in str(caught.value)


def test_what_is_cached_needs_no_hub(tmp_path: Path) -> None:
    with running(FakeHub("someone/questions", COMMIT, {DATA.name: CONTENT})) as gone:
        fetcher(gone, tmp_path).fetch(DATA)
    assert fetcher(gone, tmp_path).fetch(DATA).path.read_bytes() == CONTENT


@pytest.mark.rare
def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    """Slow because the hub library retries several times."""
    with running(FakeHub("someone/questions", COMMIT, {DATA.name: CONTENT})) as gone:
        fetcher(gone, tmp_path).fetch(DATA)
    message = "the hub cannot be reached.*or download the file elsewhere and use `source: f"
    with held_port() as port:
        gone.address = f"http://127.0.0.1:{port}"
        with pytest.raises(DataError, match=message):
            fetcher(gone, tmp_path, "empty").fetch(DATA)
        (tmp_path / "official/hub.lock.json").unlink()
        with pytest.raises(DataError, match="the hub cannot be reached: ConnectError"):
            fetcher(gone, tmp_path).fetch(DATA)


def test_offline_mode_is_said(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from swirl.benchmarks.hub import Fetcher, Remote\n"
        f"Fetcher(Path('lock'), Path('pages'), cache=Path('cache')).fetch(Remote{(DATA.place, DATA.name)!r})\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "DataError: someone/questions, main/train.jsonl: HF_HUB_OFFLINE is set, and the file is not" in done.stderr


def test_a_plain_page_is_held_to_its_checksum_too(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Remote(f"{hub.address}/pages", "dev.json")
    bars = importlib.import_module("huggingface_hub.utils.tqdm")
    monkeypatch.setattr(bars, "are_progress_bars_disabled", lambda name: False)  # whatever this process has hidden
    first = fetcher(hub, tmp_path).fetch(page)
    assert (first.commit, first.path) == ("", tmp_path / "pages/dev.json")
    assert "dev.json: 100%" in capsys.readouterr().err
    hub.asked.clear()
    assert fetcher(hub, tmp_path).fetch(page) == first
    assert hub.asked == []
    first.path.write_bytes(b"{broken")
    assert fetcher(hub, tmp_path).fetch(page).path.read_bytes() == b"{}"
    hub.pages["dev.json"] = b"[]"
    first.path.unlink()
    with pytest.raises(DataError, match="requires 2 bytes with SHA-256 44136fa.*was downloaded has 2 bytes with SHA-2"):
        fetcher(hub, tmp_path).fetch(page)
    with pytest.raises(DataError, match="gone.json: the server answered 404 Not Found"):
        fetcher(hub, tmp_path).fetch(Remote(page.place, "gone.json"))


def test_a_page_that_is_cut_off_is_not_taken_as_whole(hub: FakeHub, tmp_path: Path) -> None:
    page = Remote(f"{hub.address}/pages", "dev.json")
    hub.pages["dev.json"], hub.sent = b"[1, 2, 3]", 4
    with pytest.raises(DataError, match=r"pages/dev\.json was cut off: 4 of 9 bytes came; start it again, or download"):
        fetcher(hub, tmp_path).fetch(page)
    assert not (tmp_path / "pages/dev.json").exists()
    assert not (tmp_path / "official").exists()
    hub.sent = None
    assert fetcher(hub, tmp_path).fetch(page).path.read_bytes() == b"[1, 2, 3]"


@pytest.mark.parametrize(
    "content",
    [
        b"[1]",
        b"{",
        b"\xff",
        b'{"someone/questions": 1}',
        b'{"someone/questions": {"commit": "main", "files": {}}}',
        b'{"someone/questions": {"commit": "", "files": {"a": {"bytes": 1}}}}',
    ],
)
def test_a_broken_lock_file_is_named(content: bytes, tmp_path: Path) -> None:
    lock = tmp_path / "hub.lock.json"
    lock.write_bytes(content)
    with pytest.raises(DataError, match=r"hub\.lock\.json is no lock file: .*; expected for each dataset its commit"):
        Fetcher(lock, tmp_path)


def test_every_official_benchmark_but_cofca_has_its_files() -> None:
    assert {*HUB, "cofca"} == set(OFFICIAL)
    assert all({*files} == {"train", "evaluation"} for files in HUB.values())
