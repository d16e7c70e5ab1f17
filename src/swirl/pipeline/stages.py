"""The table of the pipeline's stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of dvc.yaml: `swirl stage NAME` runs `swirl.stages.NAME`."""

    items: tuple[str, ...] = ()
    """The items that a matrix stage runs for, one at a time; empty for a stage that runs once."""
    uses_torch: bool = False
    """Whether it uses torch, so that thread and allocator settings matter."""


STAGES = {
    "download": Stage(),
    "check_questions": Stage(),
    "index": Stage(),
    "base_model": Stage(uses_torch=True),
    "reward_model": Stage(uses_torch=True),
    "synthesize": Stage(uses_torch=True),
    "check_trajectories": Stage(),
    "judge": Stage(uses_torch=True),
    "filter": Stage(),
    "check_steps": Stage(),
    "train": Stage(items=("sft", "swirl"), uses_torch=True),
    "evaluate": Stage(items=("ceiling", "base", "sft", "swirl"), uses_torch=True),
    "report": Stage(),
}
"""Every stage, in the order of a full run."""
