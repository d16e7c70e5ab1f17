"""What becomes of journals and checkpoints when their stage has ended: they stay until DVC has taken its outputs.

A kill after a stage has ended and before DVC has recorded it makes DVC delete the outputs and run the stage again. So a
stage marks its work as finished (`swirl.core.journal.finish`) and deletes nothing. Beside it, a note says what the
outputs were. Whenever a stage starts, the finished work of every stage is looked at again:

- DVC has taken the outputs if dvc.lock lists them with the same hashes and DVC's cache holds them: the work is deleted.
- The stage that starts finds its outputs in place, because it was started without DVC, which would have removed them:
  they are to be made anew, so the work is deleted.
- Otherwise the stage that starts takes its work up again, where source, params and inputs are the same; work of others
  stays as it is, named when the stage starts, as if the stage had not ended.

So each stage has at most the work of its last run to the end, until the next stage starts under DVC.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl.config.yaml_text import read
from swirl.core.errors import DataError
from swirl.core.journal import TORN, delete_finished, finished, revive, set_aside
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.pipeline.dvc_file import dvc_hash


def settle(stage_id: str, outs: Sequence[str], layout: Layout) -> None:
    """Delete finished work whose outputs stand; if those of `stage_id`, which starts now, do not, make it unfinished.

    `outs` are the paths of the stage's outputs, relative to the root.
    """
    notes = {path.stem: path for path in _notes(layout).glob("*.json") if not path.name.startswith(TORN)}
    recorded = _recorded(layout.root) if notes else {}
    for name, path in notes.items():
        outputs = _read(path)
        by_hand = name == stage_id and all((layout.root / out).exists() for out in outs)
        if by_hand or _taken(outputs, recorded.get(name, {}), layout.root):
            for folder in _folders(name, layout):
                delete_finished(folder)
            path.unlink(missing_ok=True)
    if any(finished(folder) for folder in _folders(stage_id, layout)):
        print(
            f"DVC has not taken the outputs that {stage_id} made last: what it had worked out is used again, if "
            f"source, params and inputs are still the same"
        )
        take_up(stage_id, layout)


def take_up(stage_id: str, layout: Layout) -> None:
    """Make the finished work of this stage unfinished."""
    for folder in _folders(stage_id, layout):
        revive(folder)
    _note(stage_id, layout).unlink(missing_ok=True)


def note(stage_id: str, outs: Sequence[str], layout: Layout) -> None:
    """Note what the outputs of this stage are, which has just ended; without finished work there is nothing to note."""
    if any(finished(folder) for folder in _folders(stage_id, layout)):
        outputs = {out: dvc_hash(layout.root / out) for out in outs if (layout.root / out).exists()}
        save_json(outputs, _note(stage_id, layout))


def _read(path: Path) -> dict[str, str]:
    """The outputs of a note; none, of which nothing follows, if it cannot be read: it is renamed and named then."""
    fault = "it does not say what the outputs were"
    try:
        found = load_json(path)
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
    except DataError as error:
        fault = str(error)
    with contextlib.suppress(FileNotFoundError):  # another stage that starts now may have taken it away
        set_aside(path, fault)
    return {}


def _taken(outputs: Mapping[str, str], recorded: Mapping[str, str], root: Path) -> bool:
    """Whether there are outputs (path -> hash), all are in dvc.lock and, those that are folders, in DVC's cache."""
    cache = _cache(root)
    if not outputs:
        return False
    return outputs.items() <= recorded.items() and all(
        (cache / value[:2] / value[2:]).exists() for value in outputs.values() if value.endswith(".dir")
    )


def _recorded(root: Path) -> dict[str, dict[str, str]]:
    """Stage id -> path -> hash of its outputs in dvc.lock."""
    path = root / "dvc.lock"
    stages: dict[str, Any] = (read(path) or {}).get("stages") or {} if path.exists() else {}
    return {
        name.replace("@", "-"): {out["path"]: str(out.get("md5", "")) for out in entry.get("outs") or []}
        for name, entry in stages.items()
    }


def _cache(root: Path) -> Path:
    """The folder of DVC's cache that holds objects by the MD5 of their content, as DVC's settings say."""
    from dvc.config import Config, ConfigError

    folder = root / ".dvc"
    try:
        place = Config(str(folder), validate=False)["cache"].get("dir")
    except (ConfigError, OSError):
        place = None  # DVC refuses such a file itself
    return Path(place or folder / "cache") / "files/md5"


def _folders(stage_id: str, layout: Layout) -> Iterator[Path]:
    """The folders of a stage's journals and checkpoints: `judge`, or `evaluate-base` and `evaluate-base-...`."""
    for kind in ("journals", "checkpoints"):
        for pattern in (stage_id, f"{stage_id}-*"):
            yield from sorted((layout.root / ".swirl" / kind).glob(f"{pattern}/"))


def _notes(layout: Layout) -> Path:
    return layout.root / ".swirl/finished"


def _note(stage_id: str, layout: Layout) -> Path:
    return _notes(layout) / f"{stage_id}.json"
