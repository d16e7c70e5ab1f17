"""`source: pretrained` and `source: endpoint`: a base that was made elsewhere, pointed to and never copied."""

from __future__ import annotations

from swirl.config.base_model import EndpointBase, Pretrained, Weights
from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.core.records import save_json, save_series
from swirl.models.pointers import write_locked_pointer
from swirl.models.skipped import mark_skipped
from swirl.wiring.servers import write_server


def pretrained(params: Params, layout: Layout) -> None:
    """Make models/base a pointer to a model on the hub, in a folder or in a GGUF file."""
    settings = params.base_model
    assert isinstance(settings, Pretrained)
    point("base", settings, layout)
    _finish_base(layout)


def endpoint(params: Params, layout: Layout) -> None:
    """Write into models/base which server has the model, and the model's tokenizer."""
    settings = params.base_model
    assert isinstance(settings, EndpointBase)
    write_server(layout.model("base"), settings, layout.root, params.actions.format == "native")
    _finish_base(layout)


def point(name: str, settings: Weights, layout: Layout) -> None:
    """Make models/`name` a pointer to a model on the hub, in a folder or in a GGUF file."""
    trusted = isinstance(settings, Pretrained) and settings.trust_remote_code
    write_locked_pointer(layout.model(name), settings.model, settings.revision, trusted, layout.root, layout.hub_lock)


def _finish_base(layout: Layout) -> None:
    mark_skipped(layout.model("ceiling"), "the base was not made here, so there is no sound model before its flaws")
    write_empty_reports("base_model", layout)


def write_empty_reports(stage: str, layout: Layout) -> None:
    """Write the reports of a stage that trained no model: no steps, no metrics."""
    save_series([], layout.series(stage))
    save_json({}, layout.metrics(stage))
