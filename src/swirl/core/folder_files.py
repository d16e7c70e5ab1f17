"""The files in a folder that a stage depends on, as DVC sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from swirl.core.errors import DataError

SIDE_FILES = ("*.swp", "*.swo", ".#*", "#*#", "*~", ".DS_Store", ".nfs*")
"""What editors and systems put beside a file; `.dvcignore` names the same, so that they change nothing."""


def files_inside(folder: Path) -> Iterator[Path]:
    """Every file below `folder`, in no order, without those of `__pycache__` and side files; none without a folder.

    `folder` itself and files in it may be links, and folders to others in it. Raises `DataError` for a link to a
    folder elsewhere, because DVC does not look into it: a change in it would run nothing again.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not _is_side_file(name)]
        linked = (path for name in folders if (path := Path(place) / name).is_symlink())
        if elsewhere := [path for path in linked if not path.resolve().is_relative_to(root)]:
            raise DataError(
                f"{elsewhere[0]} is a link to a folder, and DVC does not look into it, so that changes in it would go "
                f"unnoticed: link the files in it one by one, or make {folder} as a whole the link"
            )
        names = (name for name in files if not _is_side_file(name))
        yield from (path for name in names if (path := Path(place) / name).is_file())


def _is_side_file(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in SIDE_FILES)
