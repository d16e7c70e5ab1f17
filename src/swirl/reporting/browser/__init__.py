"""The trajectory browser: static pages that are opened from disk, and the scripts with the data that they load."""

from __future__ import annotations

from pathlib import Path

from swirl.core.layout import Layout


def place(layout: Layout) -> Path:
    """The folder of the browser that stage `report` writes."""
    return layout.page.parent / "browser"
