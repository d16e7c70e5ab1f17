"""Traces of what `swirl ask` has a registered model answer, in the project's experiment."""

from __future__ import annotations

import os
from collections.abc import Iterator

from swirl.core.layout import Layout
from swirl.mlflow_store.runs import reason
from swirl.mlflow_store.settings import read_params, read_settings
from swirl.mlflow_store.stores import destination, everywhere, warn
from swirl.serving.agent import Event


def traced(events: Iterator[Event], question: str, benchmark: str, layout: Layout) -> Iterator[Event]:
    """`events`, while a trace of them is made; a store that cannot be reached costs one warning."""
    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # this process may end with the last event
    try:
        store = destination(layout, read_settings(read_params(layout)))
    except Exception as error:
        warn(f"the question is not traced in MLflow: {reason(error)}")
        yield from events
        return
    from mlflow.entities.trace_location import MlflowExperimentLocation

    from swirl.serving.spans import with_trace

    with everywhere(store.client):
        yield from with_trace(events, question, benchmark, MlflowExperimentLocation(store.experiment))
