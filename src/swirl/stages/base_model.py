"""base_model: the policy before tuning, made here or pointed to, as `base_model.source` says."""

from __future__ import annotations

from swirl.layout import Layout
from swirl.params import Params


def run(params: Params, layout: Layout) -> None:
    """Make models/base: a model, or a pointer to one."""
    from swirl.makers import embedded_base

    {"embedded": embedded_base.make}[params.base_model.source](params, layout)
