"""Converts a trace from the plain values of `swirl.tracking.samples.trace_of` to MLflow's own types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Feedback, TraceInfo
    from mlflow.entities.span import Span

SHOWN = 1000
"""Characters of a question or answer in the list of traces."""

BY_CODE = ("match", "evaluation")
"""Judges that are code rather than a model: they only compare answers."""


def trace_info(trace: Mapping[str, Any], experiment: str, run_id: str) -> TraceInfo:
    """What the list of traces shows and searches: tags, the run, and the verdicts as feedback."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    return TraceInfo(
        trace_id=f"tr-{trace['id']}",
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=trace["start"] // 1_000_000,
        execution_duration=(trace["end"] - trace["start"]) // 1_000_000,
        state=TraceState.ERROR if trace["failed"] else TraceState.OK,
        request_preview=trace["question"][:SHOWN],
        response_preview=trace["answer"][:SHOWN],
        trace_metadata={
            TraceMetadataKey.SOURCE_RUN: run_id,
            TraceMetadataKey.INPUTS: json.dumps({"question": trace["question"][:SHOWN]}),
            TraceMetadataKey.OUTPUTS: json.dumps(trace["answer"][:SHOWN]),
        },
        tags={TraceTagKey.TRACE_NAME: trace["name"], **trace["tags"]},
        assessments=_feedback(trace),
    )


def trace_spans(trace: Mapping[str, Any]) -> list[Span]:
    """A root span for the trajectory and, below it, one span per step."""
    from mlflow.entities.span import Span

    root = {
        "name": trace["name"],
        "type": "AGENT",
        "start": trace["start"],
        "end": trace["end"],
        "failed": trace["failed"],
        "inputs": {"question": trace["question"]},
        "outputs": {"answer": trace["answer"]},
        "attributes": {"accepted": trace["accepted"], **trace["tags"], **trace["labels"]},
        "verdict": trace["outcome"],
    }
    rows = [_span(trace, root, -1), *(_span(trace, span, number) for number, span in enumerate(trace["spans"]))]
    return [Span.from_dict(row) for row in rows]


def _span(trace: Mapping[str, Any], span: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A span as `Span.from_dict` reads it; attributes are JSON, as in MLflow's store. `number`: see `_span_id`."""
    verdict = {f"verdict.{key}": value for key, value in (span["verdict"] or {}).items()}
    attributes = {
        "mlflow.traceRequestId": f"tr-{trace['id']}",
        "mlflow.spanType": span["type"],
        "mlflow.spanInputs": span["inputs"],
        "mlflow.spanOutputs": span["outputs"],
        **span["attributes"],
        **verdict,
    }
    return {
        "trace_id": f"tr-{trace['id']}",
        "span_id": _span_id(trace, number),
        "parent_span_id": None if number < 0 else _span_id(trace, -1),
        "name": span["name"],
        "start_time_unix_nano": span["start"],
        "end_time_unix_nano": span["end"],
        "status": {"code": "STATUS_CODE_ERROR" if span["failed"] else "STATUS_CODE_OK", "message": span["failed"]},
        "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
        "events": [],
    }


def _feedback(trace: Mapping[str, Any]) -> list[Assessment]:
    """Feedback `correct` on the answer and `good` on each judged step, with the judge's rationale."""
    found = [_one_feedback(trace, "correct", trace["outcome"], -1)]
    found += [_one_feedback(trace, "good", span["verdict"], number) for number, span in enumerate(trace["spans"])]
    return [one for one in found if one is not None]


def _one_feedback(
    trace: Mapping[str, Any], name: str, verdict: Mapping[str, Any] | None, number: int
) -> Feedback | None:
    from mlflow.entities import AssessmentSource, Feedback

    if verdict is None or verdict["good"] is None:
        return None
    score = verdict.get("score")
    made = Feedback(
        name=name,
        value=verdict["good"],
        source=AssessmentSource("CODE" if verdict["judge"] in BY_CODE else "LLM_JUDGE", verdict["judge"]),
        trace_id=f"tr-{trace['id']}",
        span_id=_span_id(trace, number),
        metadata=None if score is None else {"score": f"{score:.4f}"},
        create_time_ms=trace["end"] // 1_000_000,
        last_update_time_ms=trace["end"] // 1_000_000,
        rationale=verdict["rationale"] or None,
    )
    made.assessment_id = f"a-{_span_id(trace, number)}{trace['id'][:16]}"  # the same whenever it is sent again
    return made


def _span_id(trace: Mapping[str, Any], number: int) -> str:
    """Sixteen hexadecimal digits for the step at position `number`; -1: the root span."""
    return hashlib.sha256(f"{trace['id']}/{number}".encode()).hexdigest()[:16]
