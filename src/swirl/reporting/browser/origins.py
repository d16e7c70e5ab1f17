"""Where the browser's trajectories come from: every evaluated model, then the synthesis with what RL drew there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Draw, Prediction
from swirl.reporting.browser.writing import Source
from swirl.reporting.labelled import evaluated, synthesised
from swirl.reporting.results import LABELS

if TYPE_CHECKING:
    from swirl.wiring.oracles import Oracle

SYNTHESIS = "synthesis"
"""The name of the source that training data come from; filters.js knows it too."""


def origins(
    layout: Layout, predictions: Mapping[str, Sequence[Prediction]], oracles: Mapping[str, Oracle]
) -> Iterator[Source]:
    """All that have stored trajectories; `predictions` are by model, `oracles` by question id.

    Raises `DataError` for a file that is broken, not for one that is missing.
    """
    for model, rows in predictions.items():
        if layout.prediction_trajectories(model).exists():
            yield Source(model, LABELS[model], evaluated(layout, model, rows, oracles))
    if layout.trajectories.exists():
        drawn: dict[str, list[Draw]] = {}
        for draw in records.load(Draw, layout.draws("swirl")) if layout.draws("swirl").exists() else ():
            drawn.setdefault(draw.trajectory_id, []).append(draw)
        yield Source(SYNTHESIS, "Training data", synthesised(layout, oracles), drawn)
