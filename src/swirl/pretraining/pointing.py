"""What a base and a judge that somebody else made have in common."""

from __future__ import annotations

from swirl.core.layout import Layout
from swirl.core.records import save_json, save_series
from swirl.models.pointers import write_locked_pointer
from swirl.params import Pretrained, PretrainedReward


def point(name: str, settings: Pretrained | PretrainedReward, layout: Layout) -> None:
    """models/`name` points to a model of the hub or of a folder."""
    write_locked_pointer(
        layout.model(name),
        settings.model,
        settings.revision,
        settings.trust_remote_code,
        layout.root,
        layout.root / "models/hub.lock.json",
    )


def nothing_was_trained(stage: str, layout: Layout) -> None:
    """Write the reports of a stage that made no model: no steps, no metrics."""
    save_series([], layout.series(stage))
    save_json({}, layout.metrics(stage))
