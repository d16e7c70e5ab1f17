"""Where training of a model made here goes on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl.config.params import Params
from swirl.core.checkpoints import Checkpoints
from swirl.core.journal import fingerprint
from swirl.core.layout import Layout
from swirl.pipeline.source import digest
from swirl.wiring.prompts import user_input_folders


def open_checkpoints(
    params: Params, layout: Layout, phases: Sequence[str], further: Sequence[Path] = ()
) -> list[Checkpoints]:
    """The checkpoints of each training phase of `base_model`, valid for its source, params and inputs only.

    `further` are inputs beside questions, prompts and tools.

    A phase that is over keeps its last one until the stage has ended, because what comes between two phases (a model is
    saved and measured) is done again after a kill.
    """
    parts = (params.prompts, params.tools, params.rollout, params.actions, params.base_model)
    sections = [params.shared_seed, dict(params.tasks), params.runtime.of_every_stage()]
    sections += [part.model_dump() for part in parts]
    inputs = [layout.questions.parent, layout.root / params.prompts.judge, *user_input_folders(params, layout)]
    mark = fingerprint(digest("base_model"), sections, [*inputs, *further])
    folder = layout.root / ".swirl/checkpoints"
    return [Checkpoints(folder / f"base_model-{phase.replace(' ', '-')}", mark) for phase in phases]
