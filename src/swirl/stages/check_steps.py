"""Gate: the verdicts are fit to filter by, and the kept steps are token for token those of their trajectories."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.quality import steps as gate
from swirl.quality.validation import publish


def run(params: Params, layout: Layout) -> None:
    """Check the verdicts and the kept steps against the trajectories; write the gate's report.

    Raises `GateError` naming what is violated and where, `DataError` when a file cannot be read.
    """
    limits = params.check_steps
    report = gate.check(
        layout,
        max_null_rate=limits.max_null_rate,
        min_good_share=limits.min_good_share,
        max_good_share=limits.max_good_share,
        min_rows=limits.min_rows,
    )
    publish(report, layout)
