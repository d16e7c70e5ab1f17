"""`source: pretrained` and `source: endpoint`: a judge that somebody else made, pointed to and never copied."""

from __future__ import annotations

from swirl.layout import Layout
from swirl.models.pointer import write_locked_pointer
from swirl.params import EndpointReward, Params, PretrainedReward
from swirl.records import save_json, save_series


def pretrained(params: Params, layout: Layout) -> None:
    """models/reward points to a model of the hub or of a folder."""
    settings = params.reward_model
    assert isinstance(settings, PretrainedReward)
    write_locked_pointer(
        layout.model("reward"),
        settings.model,
        settings.revision,
        settings.trust_remote_code,
        layout.root,
        layout.root / "models/hub.lock.json",
    )
    _finish(layout)


def endpoint(params: Params, layout: Layout) -> None:
    """models/reward says which server judges."""
    settings = params.reward_model
    assert isinstance(settings, EndpointReward)
    save_json(settings.model_dump(), layout.model("reward") / "judge.json")
    _finish(layout)


def _finish(layout: Layout) -> None:
    save_series([], layout.series("reward_model"))
    save_json({}, layout.metrics("reward_model"))
