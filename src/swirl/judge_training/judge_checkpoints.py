"""Where training of a reward model goes on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.journal import fingerprint
from swirl.core.layout import Layout
from swirl.pipeline.source import digest
from swirl.wiring.prompts import user_input_folders


def open_checkpoints(params: Params, layout: Layout, further: Sequence[Path] = ()) -> Checkpoints:
    """The checkpoints of the reward model's training, valid for its source, params and inputs only.

    `further` are inputs beside questions, the base, prompts and tools.
    """
    parts = (params.prompts, params.tools, params.rollout, params.actions, params.base_model)
    sections = [params.seed, dict(params.tasks), params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in (*parts, params.reward_model)]
    inputs = [layout.questions.parent, layout.model("base"), layout.root / params.prompts.judge]
    inputs += user_input_folders(params, layout)
    mark = fingerprint(digest("reward_model"), sections, [*inputs, *further])
    return Checkpoints(layout.root / ".swirl/checkpoints/reward_model", mark)
