"""Models that a run skips: their folder holds the reason, so that every stage still has its output."""

from __future__ import annotations

from pathlib import Path

from swirl.core.records import load_json, save_json

_NAME = "absent.json"


def mark_skipped(folder: Path, why: str) -> None:
    """Write into a model's folder that there is no model, and why."""
    save_json({"why": why}, folder / _NAME)


def why_skipped(folder: Path) -> str | None:
    """Why there is no model in this folder; None when there should be one."""
    path = folder / _NAME
    return str(load_json(path)["why"]) if path.exists() else None
