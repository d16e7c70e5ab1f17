"""Whether what a stage depends on is still what it was when the stage started.

DVC hashes a stage's dependencies when the stage has ended. If one was edited in between, dvc.lock would say that the
outputs were made with the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.config.params import load
from swirl.core.checksums import checksum
from swirl.core.errors import ParamsError, SwirlError
from swirl.core.folder_files import files_inside
from swirl.pipeline.dvc_file import DvcStage

SMALL = 2**20
"""Bytes up to which files are compared by content, so that saving one again is no change; others by size and time."""
WRITTEN = re.compile(r"/(?:(?:hub|mlflow)\.lock\.json|mlflow/[^/]+\.jsonl)$")
"""What `download` itself writes into the folder that it reads: what it fetched, and what it wrote down of it."""
_MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was: size in bytes, time of modification in nanoseconds, and if it is small its SHA-256."""

    size: int
    modified: int
    content: str

    def same(self, other: _Seen | None) -> bool:
        """Whether the two are the same content, as far as is known."""
        if other is None or self.size != other.size:
            return False
        return self.modified == other.modified or (self.content == other.content != "")


class Steady:
    """What a stage depends on, as dvc.yaml lists it, at the time when this is made."""

    def __init__(self, stage: DvcStage, root: Path, params: Mapping[str, Any]) -> None:
        """`params` are the nested values that the stage runs with.

        Raises `DataError` for a dependency that DVC does not see; see `swirl.core.folder_files.files_inside`.
        """
        self._stage = stage
        self._root = root
        self._params = _chosen(params, stage.params)
        self._files = _files(stage, root)

    def check(self) -> None:
        """Raise `SwirlError`, naming all that has changed since, if anything has."""
        if changed := [*self._changed_params(), *self._changed_files()]:
            shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise SwirlError(
                f"while {self._stage.name} ran, something that it depends on was changed: {shown}. What it has written "
                f"was made with what was there before, so it must not be recorded: start it again. What it had worked "
                f"out is kept, for the case that you change it back"
            )

    def _changed_params(self) -> Iterator[str]:
        if not self._params:
            return
        try:
            now = _chosen(load(self._root / "params.yaml").model_dump(), self._stage.params)
        except ParamsError as error:
            yield f"params.yaml ({error})"
            return
        for key, value in self._params.items():
            if now[key] != value:
                yield f"{key} in params.yaml"

    def _changed_files(self) -> Iterator[str]:
        now = _files(self._stage, self._root, self._files)
        yield from sorted(name for name in now.keys() - self._files.keys() if not WRITTEN.search(name))
        changed = (name for name, file in self._files.items() if not file.same(now.get(name)))
        yield from (name for name in changed if not WRITTEN.search(name))


def _chosen(params: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Key such as `train.swirl` -> its value in nested params."""
    found: dict[str, Any] = {}
    for key in keys:
        value: Any = params
        for part in key.split("."):
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
        found[key] = value
    return found


def _files(stage: DvcStage, root: Path, before: Mapping[str, _Seen] | None = None) -> dict[str, _Seen]:
    """Path relative to the root -> file, of all files of the stage's dependencies.

    A file of the size and time that it has in `before` is not read again.
    """
    found: dict[str, _Seen] = {}
    for dep in (root / name for name in stage.deps):
        for path in [dep] if dep.is_file() else files_inside(dep):
            name = path.relative_to(root).as_posix()
            status, known = path.stat(), (before or {}).get(name)
            if known and (known.size, known.modified) == (status.st_size, status.st_mtime_ns):
                found[name] = known
            else:
                content = checksum(path).sha256 if status.st_size <= SMALL else ""
                found[name] = _Seen(status.st_size, status.st_mtime_ns, content)
    return found
