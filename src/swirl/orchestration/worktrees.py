"""A temporary git worktree with other settings, so that the project's own files stay as they are.

It starts from what the user sees: the last commit, all uncommitted changes of tracked files, and untracked files that
stages read. It shares the project's DVC cache, so earlier outputs are restored from it and new ones stay in it, and the
judges' answers. Its folder is `.swirl/worktrees/KEY`, where KEY is a hash of the overrides. A run that did not finish
leaves its `.swirl` (journals of partial work) in `KEY.kept`, from which the next run with the same overrides resumes.
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
from swirl.core.folder_files import files_inside
from swirl.pipeline.temporary import SHARED


@dataclass(slots=True)
class Worktree:
    """The copy of the project that a run uses."""

    root: Path
    """The copy's project root."""
    finished: bool = False
    """Whether the run came to its end, so that there is no partial work to keep."""

    def environment(self) -> dict[str, str]:
        """The environment variables with which its stages import the copy's source, whatever is installed."""
        source, before = self.root / "src", os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(source), before]))} if source.is_dir() else {}

    def save_experiment(self, name: str) -> str:
        """Save settings and results as a DVC experiment; return why that was not possible, or the empty string."""
        from dvc.repo import Repo

        with Repo(str(self.root)) as repo:  # outputs that git is to track, and may not track yet
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

    What killed runs have left is removed, too. Raises `DataError` where git cannot make a worktree, and `SwirlError`
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
        _share_kept(root, copy.root)
        _bring_files(root, copy.root)
        _bring_weights(root, copy.root)
        command = [sys.executable, "-m", "dvc", "checkout", "--quiet", "--allow-missing"]
        subprocess.run(command, cwd=copy.root, capture_output=True, check=False)  # what is missing is made again
        yield copy
    finally:
        _remove(root, folder, prefix, copy.finished)
        lock.close()


def sweep(root: Path) -> None:
    """Remove the worktrees of runs that were killed, whose locks the kernel has freed."""
    base = root / ".swirl/worktrees"
    if base.is_dir():
        with _alone(base):
            _sweep(root, base)


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Let one process at a time take locks, because a sweep takes each free lock for a moment."""
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
    if partial.is_dir() and not finished:  # otherwise keep what an earlier run may have left
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(partial, kept)
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")


def _lock(path: Path) -> IO[str] | None:
    """The locked file, which is unlocked by closing it; None while another process has the lock."""
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
    """Let the copy use the project's DVC cache, and its local DVC settings, which git does not track."""
    from dvc.repo import Repo

    local = root / ".dvc/config.local"
    if local.exists():
        shutil.copy2(local, copy / ".dvc/config.local")
    with Repo(str(root)) as repo:
        cache = repo.cache.legacy.path  # the cache's top folder, which contains that of DVC 3
    with Repo(str(copy)) as repo, repo.config.edit("local") as config:
        config["cache"]["dir"] = cache


def _share_kept(root: Path, copy: Path) -> None:
    """Keep what is not to end with the copy in the project: records that wait for MLflow, and the judges' answers."""
    for name in SHARED:
        own, shared = copy / name, root / name
        shared.mkdir(parents=True, exist_ok=True)
        own.parent.mkdir(exist_ok=True)
        if own.is_symlink():
            continue
        if own.is_dir():  # answers that an older version has left in `KEY.kept`
            shutil.copytree(own, shared, copy_function=os.replace, dirs_exist_ok=True)
            shutil.rmtree(own)
        own.symlink_to(shared.resolve(), target_is_directory=True)


def _bring_files(root: Path, copy: Path) -> None:
    """Copy dependencies of stages that neither git nor DVC tracks, such as official files or a new tool.

    Raises `DataError` for a link to a folder in one, which DVC does not see.
    """
    from dvc.repo import Repo

    with Repo(str(copy)) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs if out.protocol == "local"]
        deps = {Path(dep.fs_path) for dep in repo.index.deps if dep.protocol == "local"}
    for dep in sorted(deps):
        if not dep.is_relative_to(copy) or any(dep.is_relative_to(out) for out in outs):
            continue
        source = root / dep.relative_to(copy)
        files = sorted(files_inside(source)) if source.is_dir() else [source]
        behind = {file.resolve() for file in files if file.is_symlink()}
        # Links to other files of the project, such as a stage's source, stay links; their targets are copied, too.
        inside = {one for one in behind if one.is_relative_to(root)}
        for file in [*files, *sorted(inside)]:
            target = copy / file.relative_to(root)
            if file.is_file() and not (target.exists() or target.is_symlink()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target, follow_symlinks=file.resolve() not in inside)


def _bring_weights(root: Path, copy: Path) -> None:
    """Link, or else copy, the files of data/weights into the copy, where pointers to models look for them."""

    def bring(file: str, target: str) -> None:
        if Path(target).exists():
            return
        try:
            os.link(os.path.realpath(file), target)
        except OSError:  # another file system
            shutil.copyfile(file, target)

    weights = root / "data/weights"
    if weights.is_dir():
        shutil.copytree(
            weights, copy / "data/weights", copy_function=bring, dirs_exist_ok=True, ignore_dangling_symlinks=True
        )


def _git(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """The output of a git command. Raises `DataError` with git's error message."""
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
