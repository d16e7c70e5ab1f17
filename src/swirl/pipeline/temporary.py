"""The temporary copy of a project in which `dvc exp run --temp` or DVC's queue runs; DVC deletes it at the end."""

from __future__ import annotations

import os
from pathlib import Path

from swirl.core.layout import Layout

SHARED = (".swirl/tracking", ".swirl/answers")
"""What the copy must not take with it: records on their way to MLflow, and answers that were paid for."""


def original(layout: Layout) -> Layout | None:
    """The project that DVC made `layout` from; None if `layout` is no temporary copy.

    DVC makes copies below `.dvc/tmp/exps` of the project, and names the project to each stage in DVC_ROOT.
    """
    named = os.environ.get("DVC_ROOT")
    if not named or not layout.root.resolve().is_relative_to(Path(named).resolve() / ".dvc/tmp/exps"):
        return None
    return Layout(Path(named).resolve())


def keep_in_original(layout: Layout) -> None:
    """In a temporary copy, let the records for MLflow and the judges' answers lie in the project."""
    project = original(layout)
    if project is None:
        return
    for name in SHARED:
        own, kept = layout.root / name, project.root / name
        kept.mkdir(parents=True, exist_ok=True)
        own.parent.mkdir(exist_ok=True)
        if not own.exists():
            own.symlink_to(kept, target_is_directory=True)
