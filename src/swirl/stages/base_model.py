"""base_model: the policy before tuning, made here or pointed to, as `base_model.source` says."""

from __future__ import annotations

import shutil

from swirl.config.params import Params
from swirl.core.layout import Layout


def run(params: Params, layout: Layout) -> None:
    """Make models/base: a model, a pointer to one, or the address of one; and models/base/ceiling."""
    from swirl.pretraining import annotated_base, cold_start_base, embedded_base, pointed_base

    makers = {
        "embedded": embedded_base.make,
        "annotations": annotated_base.make,
        "cold_start": cold_start_base.make,
        "pretrained": pointed_base.pretrained,
        "endpoint": pointed_base.endpoint,
    }
    shutil.rmtree(layout.model("base"), ignore_errors=True)  # left by another source, when the stage runs without DVC
    makers[params.base_model.source](params, layout)
