"""Traces of what `swirl ask` has a registered model answer, in the project's experiment."""

from __future__ import annotations

import os
from collections.abc import Iterator

from swirl.core.layout import Layout
from swirl.serving.agent import Event
from swirl.tracking import _params, _reason, _warn
from swirl.tracking.mlflow_runs import Store
from swirl.tracking.model_registry import everywhere


def traced(events: Iterator[Event], question: str, benchmark: str, layout: Layout) -> Iterator[Event]:
    """`events`, while a trace of them is made; a store that cannot be reached costs one warning."""
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # this process may end with the last event
    try:
        store = Store(layout, _params(layout))
    except Exception as error:
        _warn(f"the question is not traced in MLflow: {_reason(error)}")
        yield from events
        return
    from mlflow.entities.trace_location import MlflowExperimentLocation

    from swirl.serving.spans import with_trace

    with everywhere(store.client):
        yield from with_trace(events, question, benchmark, MlflowExperimentLocation(store.experiment))
