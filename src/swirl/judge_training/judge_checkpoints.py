"""Where training of a reward model goes on after a kill."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.journal import fingerprint
from swirl.core.layout import Layout
from swirl.pipeline.source import digest
from swirl.wiring.prompts import user_input_folders


def open_checkpoints(params: Params, layout: Layout) -> Checkpoints:
    """The checkpoints of the reward model's training, valid for its source, params and inputs only."""
    parts = (params.runtime, params.prompts, params.tools, params.rollout, params.base_model, params.reward_model)
    sections = [params.seed, dict(params.tasks), *(part.model_dump() for part in parts)]
    inputs = [layout.questions.parent, layout.model("base"), layout.root / params.prompts.judge]
    inputs += user_input_folders(params, layout)
    mark = fingerprint(digest("reward_model"), sections, inputs)
    return Checkpoints(layout.root / ".swirl/checkpoints/reward_model", mark)
