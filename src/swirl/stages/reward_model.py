"""reward_model: the generative judge of steps, taught here or pointed to, as `reward_model.source` says."""

from __future__ import annotations

import shutil

from swirl.config.params import Params
from swirl.core.layout import Layout


def run(params: Params, layout: Layout) -> None:
    """Make models/reward: a model with its scores of held-out steps, a pointer or an address, or why there is none."""
    from swirl.judge_training import annotated_judge, embedded_judge, fine_tuned_judge, pointed_judge

    makers = {
        "embedded": embedded_judge.make,
        "annotations": annotated_judge.make,
        "fine_tuned": fine_tuned_judge.make,
        "pretrained": pointed_judge.pretrained,
        "endpoint": pointed_judge.endpoint,
        "none": pointed_judge.none,
    }
    shutil.rmtree(layout.model("reward"), ignore_errors=True)  # left by another source, when the stage runs without DVC
    makers[params.reward_model.source](params, layout)
