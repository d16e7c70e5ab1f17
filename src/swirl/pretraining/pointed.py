"""`source: pretrained` and `source: endpoint`: a base or a judge that somebody else made, pointed to, never copied."""

from __future__ import annotations

from swirl.config.base_model import EndpointBase, Pretrained
from swirl.config.params import Params
from swirl.config.reward_model import EndpointReward, PretrainedReward
from swirl.core.layout import Layout
from swirl.core.records import save_json, save_series
from swirl.models.pointers import write_locked_pointer
from swirl.models.skipped import mark_skipped
from swirl.wiring.servers import write_server


def pretrained_base(params: Params, layout: Layout) -> None:
    """models/base points to a model of the hub or of a folder."""
    settings = params.base_model
    assert isinstance(settings, Pretrained)
    _point("base", settings, layout)
    _finish_base(layout)


def endpoint_base(params: Params, layout: Layout) -> None:
    """models/base says which server has the model, and holds its tokenizer."""
    settings = params.base_model
    assert isinstance(settings, EndpointBase)
    write_server(layout.model("base"), settings, layout.root)
    _finish_base(layout)


def pretrained_judge(params: Params, layout: Layout) -> None:
    """models/reward points to a model of the hub or of a folder."""
    settings = params.reward_model
    assert isinstance(settings, PretrainedReward)
    _point("reward", settings, layout)
    _write_empty_reports("reward_model", layout)


def endpoint_judge(params: Params, layout: Layout) -> None:
    """models/reward says which server judges."""
    settings = params.reward_model
    assert isinstance(settings, EndpointReward)
    save_json(settings.model_dump(), layout.model("reward") / "judge.json")
    _write_empty_reports("reward_model", layout)


def _point(name: str, settings: Pretrained | PretrainedReward, layout: Layout) -> None:
    lock = layout.root / "models/hub.lock.json"
    trusted = settings.trust_remote_code
    write_locked_pointer(layout.model(name), settings.model, settings.revision, trusted, layout.root, lock)


def _finish_base(layout: Layout) -> None:
    mark_skipped(layout.model("ceiling"), "the base was not made here, so there is no sound model before its flaws")
    _write_empty_reports("base_model", layout)


def _write_empty_reports(stage: str, layout: Layout) -> None:
    """The reports of a stage that trained no model: no steps, no metrics."""
    save_series([], layout.series(stage))
    save_json({}, layout.metrics(stage))
