"""The project that a command is run in."""

from __future__ import annotations

from pathlib import Path

from swirl.core.errors import SwirlError
from swirl.core.layout import Layout


def project_layout() -> Layout:
    """The layout of the project that holds the current folder. Raises `SwirlError` outside of one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return Layout(folder)
    raise SwirlError(f"no dvc.yaml in {here} or above it; run swirl inside the project")
