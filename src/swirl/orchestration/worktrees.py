"""A temporary git worktree with other settings, so that the project's own files stay as they are.

It starts as what the user sees: the last commit, all uncommitted changes of tracked files, and the files that stages
read and git does not know. It shares the DVC cache, so what was made before is restored, and what is made stays.
It lies in `.swirl/worktrees/KEY`, the key standing for the overrides. A run that did not finish leaves its `.swirl`
(journals of partial work) in `KEY.kept`, where the next one with the same overrides goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from swirl.config import overrides as laid_over
from swirl.core.errors import DataError, SwirlError


@dataclass(slots=True)
class Worktree:
    """A copy of the project while a run uses it."""

    root: Path
    """The copy's project root."""
    finished: bool = False
    """Whether the run came to its end, so that no partial work is worth keeping."""

    def environment(self) -> dict[str, str]:
        """What its stages run with: their own source, whatever is installed."""
        source, before = self.root / "src", os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(source), before]))} if source.is_dir() else {}

    def save_experiment(self, name: str) -> str:
        """Keep settings and results as a DVC experiment: empty, or why that was not possible."""
        from dvc.repo import Repo

        with Repo(str(self.root)) as repo:  # what git is to hold, and may not know yet
            reports = [out.fs_path for out in repo.index.outs if not out.use_cache and Path(out.fs_path).exists()]
        try:
            if reports:
                _git(self.root, "add", "--", *reports)
        except DataError as error:
            return str(error)
        command = [sys.executable, "-m", "dvc", "exp", "save", "--quiet", "--force", "--name", name]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return ""
        return " ".join(done.stderr.split("\n\n")[0].removeprefix("ERROR: ").split()) or "dvc exp save failed"


@contextlib.contextmanager
def worktree(root: Path, overrides: Mapping[str, Any]) -> Iterator[Worktree]:
    """A copy of the project `root` with `overrides` in its params.yaml, removed at the end.

    Removes what killed runs have left, too. Raises `DataError` where git cannot make a worktree, and `SwirlError`
    while another run has the same overrides.
    """
    prefix = _git(root, "rev-parse", "--show-prefix")
    _git(root, "rev-parse", "--verify", "HEAD")
    base = root / ".swirl/worktrees"
    base.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps(overrides, sort_keys=True, default=str).encode()).hexdigest()[:12]
    with _alone(base):
        _sweep(root, base)
        lock = _lock(base / f"{key}.lock")
    if lock is None:
        raise SwirlError(f"another run has the same overrides ({laid_over.text(overrides)}): wait for it or cancel it")
    folder = base / key
    copy = Worktree(folder / prefix)
    try:
        _git(root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(folder), "HEAD")
        _git(folder, "read-tree", "--reset", "-u", _tree(root))
        _share_cache(root, copy.root)
        laid_over.write(copy.root / "params.yaml", overrides)
        if (base / f"{key}.kept").exists():
            os.replace(base / f"{key}.kept", copy.root / ".swirl")
        _share_tracking(root, copy.root)
        _bring_files(root, copy.root)
        command = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--allow-missing"]
        subprocess.run(command, cwd=copy.root, capture_output=True, check=False)  # what is missing is made again
        yield copy
    finally:
        _remove(root, folder, prefix, copy.finished)
        lock.close()


def sweep(root: Path) -> None:
    """Remove the worktrees whose runs no longer run: the kernel frees the lock of a process that was killed."""
    base = root / ".swirl/worktrees"
    if base.is_dir():
        with _alone(base):
            _sweep(root, base)


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """While one process sweeps, which takes each free lock for a moment, no other takes any."""
    with base.with_suffix(".mutex").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(root: Path, base: Path) -> None:
    for path in sorted(base.glob("*.lock")):
        lock = _lock(path)
        if lock is not None:
            if path.with_suffix("").exists():
                _remove(root, path.with_suffix(""), _git(root, "rev-parse", "--show-prefix"), finished=False)
            lock.close()
    _git(root, "worktree", "prune")


def _remove(root: Path, folder: Path, prefix: str, finished: bool) -> None:
    kept, partial = folder.with_name(f"{folder.name}.kept"), folder / prefix / ".swirl"
    if partial.is_dir() and not finished:  # else what is kept, if anything, is of an earlier run
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(partial, kept)
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")


def _lock(path: Path) -> IO[str] | None:
    """The locked file, to be closed at the end; None while another process has it."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _tree(root: Path) -> str:
    """The git tree of the tracked files as they are on disk; the user's own index is left alone."""
    index = root / _git(root, "rev-parse", "--git-path", "index")
    with tempfile.TemporaryDirectory(prefix="swirl-index-") as folder:
        own = Path(folder) / "index"
        if index.exists():
            shutil.copy2(index, own)
        env = {"GIT_INDEX_FILE": str(own)}
        _git(root, "add", "--update", ":/", env=env)
        return _git(root, "write-tree", env=env)


def _share_cache(root: Path, copy: Path) -> None:
    """Let the copy use the project's DVC cache, and the settings that git does not know."""
    from dvc.repo import Repo

    local = root / ".dvc/config.local"
    if local.exists():
        shutil.copy2(local, copy / ".dvc/config.local")
    with Repo(str(root)) as repo:
        cache = repo.cache.legacy.path  # the folder itself; that of version 3 lies in it
    with Repo(str(copy)) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache


def _share_tracking(root: Path, copy: Path) -> None:
    """Let what waits for MLflow wait in the project, which stays."""
    own, shared = copy / ".swirl/tracking", root / ".swirl/tracking"
    shared.mkdir(parents=True, exist_ok=True)
    own.parent.mkdir(exist_ok=True)
    if not own.is_symlink():
        own.symlink_to(shared.resolve(), target_is_directory=True)


def _bring_files(root: Path, copy: Path) -> None:
    """Copy what stages read and neither git nor DVC knows: official files, say, or a tool not yet added."""
    from dvc.repo import Repo

    with Repo(str(copy)) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs if out.protocol == "local"]
        deps = {Path(dep.fs_path) for dep in repo.index.deps if dep.protocol == "local"}
    for dep in sorted(deps):
        if not dep.is_relative_to(copy) or any(dep.is_relative_to(out) for out in outs):
            continue
        source = root / dep.relative_to(copy)
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        behind = {file.resolve() for file in files if file.is_symlink()}
        inside = {one for one in behind if one.is_relative_to(root)}  # a stage's source
        for file in [*files, *sorted(inside)]:
            target = copy / file.relative_to(root)
            if file.is_file() and not (target.exists() or target.is_symlink()) and "__pycache__" not in file.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target, follow_symlinks=file.resolve() not in inside)


def _git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What git prints. Raises `DataError` with its complaint."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DataError("overrides run in a git worktree, and git is not installed") from None
    if done.returncode:
        raise DataError(
            f"overrides run in a git worktree, so the project must be a git repository with at least one commit: "
            f"git {' '.join(arguments)} in {folder} said: {done.stderr.strip()}"
        )
    return done.stdout.strip()
