"""reward_model: the generative judge of steps, taught here or pointed to, as `reward_model.source` says."""

from __future__ import annotations

from swirl.layout import Layout
from swirl.params import Params


def run(params: Params, layout: Layout) -> None:
    """Make models/reward: a model with its measured error rates, a pointer to one, or the address of one."""
    from swirl.makers import annotated_judge, embedded_judge, pointed_judge

    makers = {
        "embedded": embedded_judge.make,
        "annotations": annotated_judge.make,
        "pretrained": pointed_judge.pretrained,
        "endpoint": pointed_judge.endpoint,
    }
    makers[params.reward_model.source](params, layout)
