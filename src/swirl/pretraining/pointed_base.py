"""`source: pretrained` and `source: endpoint`: a base that somebody else made, pointed to and never copied."""

from __future__ import annotations

from swirl.core.layout import Layout
from swirl.models.skipped import mark_skipped
from swirl.params import EndpointBase, Params, Pretrained
from swirl.pretraining.pointing import nothing_was_trained, point
from swirl.servers import write_server


def pretrained(params: Params, layout: Layout) -> None:
    """models/base points to a model of the hub or of a folder."""
    settings = params.base_model
    assert isinstance(settings, Pretrained)
    point("base", settings, layout)
    _finish(layout)


def endpoint(params: Params, layout: Layout) -> None:
    """models/base says which server has the model, and holds its tokenizer."""
    settings = params.base_model
    assert isinstance(settings, EndpointBase)
    write_server(layout.model("base"), settings, layout.root)
    _finish(layout)


def _finish(layout: Layout) -> None:
    mark_skipped(layout.model("ceiling"), "the base was not made here, so there is no sound model before its flaws")
    nothing_was_trained("base_model", layout)
