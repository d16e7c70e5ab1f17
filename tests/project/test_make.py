"""The Makefile: in a folder with a blank in its path, without a git repository, and where a port is taken."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swirl.bench.overhead import copy_project
from swirl.config import presets

ROOT = Path(__file__).resolve().parents[2]
TOOL = '#!/bin/bash\nprintf "%s|" "${0##*/}" "$@" >> "$ASKED"\necho >> "$ASKED"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder `a b` with the Makefile and an environment whose tools note what they are asked."""
    folder = tmp_path / "a b"
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-compute.txt"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("dvc", "swirl", "pytest", "ruff", "mypy", "lint-imports", "mlflow"):
        (folder / ".venv/bin" / name).write_text(TOOL)
        (folder / ".venv/bin" / name).chmod(0o755)
    (folder / ".venv/bin/python").write_text(f'#!/bin/bash\n[ "$1" != -c ] || exec {sys.executable} "$@"\n{TOOL[12:]}')
    (folder / ".venv/bin/python").chmod(0o755)
    (folder / ".venv/.installed").touch()
    for name in (".git", "src", "flows", "tests"):
        (folder / name).mkdir()
    return folder


def make(folder: Path, *words: str) -> tuple[int, str, list[str]]:
    """Exit status, output and what the tools were asked."""
    asked = folder.parent / "asked"
    given = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "TORCH",
        "PREFECT_PORT",
        "MLFLOW_PORT",
        "PYTHON",
        "VENV",
    )  # by `make test TORCH=...`, for example
    outer = {name: value for name, value in os.environ.items() if name not in given}
    done = subprocess.run(
        ["make", *words],
        cwd=folder,
        env={**outer, "ASKED": str(asked)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, asked.read_text().splitlines() if asked.exists() else []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


TARGETS = {
    "demo": ["dvc|repro|", "swirl|report|--text|"],
    "test": ["pytest|-q|-n|2|--dist|loadfile|--no-loadscope-reorder|-m|not slow and not rare|"],
    "test-slow": ["pytest|-q|-n|2|--dist|loadfile|--no-loadscope-reorder|-m|rare|"],
    "lint": ["ruff|check|.|", "ruff|format|--check|.|", "mypy|", "lint-imports|"],
    "smoke": ["python|-m|tests.smoke|"],
    "smoke-prefect": ["python|-m|tests.smoke|--schedule|"],
    "weights": ["python|.ci/weights.py|"],
    "prefect": ["python|flows/server.py|up|--port|4200|"],
    "prefect-demo": ["python|flows/server.py|demo|--port|4200|"],
    "clean": [],
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_in_a_folder_with_a_blank(target: str, project: Path) -> None:
    status, said, asked = make(project, target)
    assert (status, asked) == (0, TARGETS[target]), said


def test_mlflow_gets_the_whole_path_and_the_port(project: Path) -> None:
    port = free_port()
    status, said, asked = make(project, "mlflow", f"MLFLOW_PORT={port}")
    store = f"sqlite:///{project}/mlflow.db"
    assert (status, asked) == (0, [f"mlflow|ui|--host|127.0.0.1|--port|{port}|--backend-store-uri|{store}|"]), said


def test_a_taken_port_is_named_and_how_to_choose_another(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, said, asked = make(project, "mlflow", f"MLFLOW_PORT={port}")
    assert (status, asked) == (2, [])
    assert said.startswith(f"port {port} is taken; choose another: make mlflow MLFLOW_PORT={port + 1}\n")


def test_clean_keeps_what_was_paid_for_and_refuses_beside_a_stage(project: Path) -> None:
    kept = ["answers", "hub", "locks", "tracking", "worktrees"]
    for name in (*kept, "journals", "checkpoints", "finished", "timings"):
        (project / ".swirl" / name).mkdir(parents=True)
    (project / ".swirl/worktrees/a.kept").mkdir()
    with (project / ".swirl/locks/judge").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said, _ = make(project, "clean")
        assert status == 2
        assert said.startswith("stage judge is running; wait for it or stop it\n")
        assert (project / ".swirl/journals").exists()
    status, said, _ = make(project, "clean")
    assert status == 0, said
    assert sorted(path.name for path in (project / ".swirl").iterdir()) == kept
    assert (project / ".swirl/worktrees/a.kept").exists()


@pytest.mark.parametrize("target", ["demo", "test", "check", "smoke", "prefect"])
def test_without_a_git_repository_it_says_so_before_it_installs(target: str, project: Path) -> None:
    shutil.rmtree(project / ".git")
    shutil.rmtree(project / ".venv")
    status, said, _ = make(project, target)
    assert status == 2
    assert said.startswith("this folder is no git repository, which DVC needs; say: git init && git add -A && git comm")
    assert not (project / ".venv").exists()


@pytest.mark.rare
def test_dvc_runs_stages_in_a_folder_with_a_blank(tmp_path: Path) -> None:
    copy = tmp_path / "a b"
    copy_project(ROOT, copy)
    presets.write(copy, presets.tree(copy, "smoke"), "smoke")
    environment = {
        **os.environ,
        "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy / "src"),
    }
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    done = subprocess.run(
        ["dvc", "repro", "index"],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "reports/metrics/index.json").exists()
    assert [path.name for path in tmp_path.iterdir() if "%20" in path.name] == []


@pytest.mark.rare
def test_every_stage_runs_in_a_folder_with_a_blank(tmp_path: Path) -> None:
    """`make smoke`, whose copy of the project then lies below `a b`."""
    (tmp_path / "a b").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path / "a b")},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
