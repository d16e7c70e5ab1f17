"""A request that is answered as an MLflow trace: a span a step, named by its tool, with measured times.

The spans are as those of the pipeline's own traces (`swirl.traces.samples`), so `swirl import` reads both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import mlflow
import mlflow.tracking.fluent
from mlflow.entities import LiveSpan, SpanStatusCode, SpanType
from mlflow.entities.trace_location import MlflowExperimentLocation
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.tracing.provider import is_tracing_enabled

from swirl.core.types import ActionKind
from swirl.serving.agent import Acted, Ended, Event, Observed


def trace_into(experiment: str) -> None:
    """Make this process's traces go to an experiment, if there is one of that name and no other was chosen."""
    with contextlib.suppress(Exception):  # a store that cannot be reached costs traces, not answers
        chosen = mlflow.tracking.fluent._get_experiment_id()
        found = mlflow.get_experiment_by_name(experiment)
        if found is not None and chosen in (None, "0"):
            enabled = is_tracing_enabled()  # not while a model is loaded, and choosing a destination enables it
            mlflow.tracing.set_destination(MlflowExperimentLocation(str(found.experiment_id)))
            if not enabled:
                mlflow.tracing.disable()


def with_trace(
    events: Iterator[Event], question: str, benchmark: str, place: MlflowExperimentLocation
) -> Iterator[Event]:
    """`events`, while a trace of them is made in an experiment. It is sent when the last one has been read."""
    with mlflow.start_span(benchmark, SpanType.AGENT, trace_destination=place) as root:
        root.set_inputs({"messages": [{"role": "user", "content": question}]})
        for event in with_spans(events):
            if isinstance(event, Ended):
                said = event.trajectory.answer or f"({event.unanswered})"
                root.set_outputs({"choices": [{"message": {"role": "assistant", "content": said}}]})
            yield event


def with_spans(events: Iterator[Event]) -> Iterator[Event]:
    """`events`, while each step becomes a span of the trace that is active now; without one, nothing is traced."""
    root, began, open_span = mlflow.get_current_active_span(), time.time_ns(), None
    for event in events:
        if root is not None:
            now = time.time_ns()
            if isinstance(event, Observed) and open_span is not None:
                open_span.set_outputs({"observation": event.text})
                open_span.set_status(SpanStatusCode.ERROR if event.error else SpanStatusCode.OK)
            if open_span is not None:
                open_span.end(end_time_ns=now if isinstance(event, Observed) else began)
                open_span = None
            if isinstance(event, Acted):
                open_span = _started(root, event, began)
            if isinstance(event, Ended):
                _conclude(root, event)
            began = now
        yield event


def _started(root: LiveSpan, step: Acted, began: int) -> LiveSpan:
    """The span of a step, from the state that the model read on; an answer is complete at once."""
    span = mlflow.start_span_no_context(
        step.tool or step.kind,
        SpanType.TOOL if step.tool else SpanType.LLM,
        parent_span=root,
        inputs={"action": step.text, **({"tool": step.tool, "call": step.payload} if step.tool else {})},
        start_time_ns=began,
    )
    span.set_attributes({"step": step.index + 1, "kind": step.kind})
    if step.kind == ActionKind.ANSWER:
        span.set_outputs({"answer": step.payload})
    return span


def _conclude(root: LiveSpan, ended: Ended) -> None:
    """Give the trace its tags, and its tokens where MLflow looks for them."""
    made, read, drawn = ended.trajectory, ended.input_tokens, ended.output_tokens
    usage = {"input_tokens": read, "output_tokens": drawn, "total_tokens": read + drawn}
    root.set_attributes({SpanAttributeKey.CHAT_USAGE: usage, "model": made.model})
    mlflow.update_current_trace(
        tags={"benchmark": made.benchmark, "stop": str(made.stop), "model": made.model, "stage": "serving"}
    )
