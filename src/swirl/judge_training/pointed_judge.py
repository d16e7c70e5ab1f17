"""A judge that was made elsewhere (`source: pretrained`, `endpoint`), pointed to and never copied; or none at all."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.config.reward_model import EndpointReward, PretrainedReward
from swirl.core.layout import Layout
from swirl.core.records import save, save_json
from swirl.core.types import HeldOutStep
from swirl.models.skipped import mark_skipped
from swirl.pretraining.pointed_base import point, write_empty_reports


def pretrained(params: Params, layout: Layout) -> None:
    """Make models/reward a pointer to a model on the hub, in a folder or in a GGUF file."""
    settings = params.reward_model
    assert isinstance(settings, PretrainedReward)
    point("reward", settings, layout)
    _finish(layout)


def endpoint(params: Params, layout: Layout) -> None:
    """Write into models/reward which server judges."""
    settings = params.reward_model
    assert isinstance(settings, EndpointReward)
    save_json(settings.model_dump(), layout.model("reward") / "judge.json")
    _finish(layout)


def none(params: Params, layout: Layout) -> None:
    """Write into models/reward that there is no reward model: `judge.rewards` are all of the reward."""
    mark_skipped(layout.model("reward"), "reward_model.source is none: judge.rewards are all of the reward")
    _finish(layout)


def _finish(layout: Layout) -> None:
    save([], HeldOutStep, layout.heldout)
    write_empty_reports("reward_model", layout)
