"""Converts a trace from the plain values of `swirl.traces.samples.trace_of` to MLflow's own types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Expectation, Feedback, TraceInfo
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
        execution_duration=0,  # the pipeline does not time trajectories
        state=TraceState.ERROR if trace["failed"] else TraceState.OK,
        request_preview=trace["question"][:SHOWN],
        response_preview=trace["answer"][:SHOWN],
        trace_metadata={
            TraceMetadataKey.SOURCE_RUN: run_id,
            TraceMetadataKey.INPUTS: json.dumps(_asked(trace["question"][:SHOWN])),
            TraceMetadataKey.OUTPUTS: json.dumps(_said(trace["answer"][:SHOWN])),
            TraceMetadataKey.TOKEN_USAGE: json.dumps(_usage([span["tokens"] for span in trace["spans"]])),
        },
        tags={TraceTagKey.TRACE_NAME: trace["name"], **trace["tags"]},
        assessments=_assessments(trace),
    )


def trace_spans(trace: Mapping[str, Any]) -> list[Span]:
    """A root span for the trajectory and, below it, one span per step."""
    from mlflow.entities.span import Span

    root = {
        "name": trace["name"],
        "type": "AGENT",
        "start": trace["start"],
        "failed": trace["failed"],
        "inputs": _asked(trace["question"]),
        "outputs": _said(trace["answer"]),
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
    if "tokens" in span:
        attributes["mlflow.chat.tokenUsage"] = _usage([span["tokens"]])
    return {
        "trace_id": f"tr-{trace['id']}",
        "span_id": _span_id(trace, number),
        "parent_span_id": None if number < 0 else _span_id(trace, -1),
        "name": span["name"],
        "start_time_unix_nano": span["start"],
        "end_time_unix_nano": span["start"],
        "status": {"code": "STATUS_CODE_ERROR" if span["failed"] else "STATUS_CODE_OK", "message": span["failed"]},
        "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
        "events": [],
    }


def _asked(question: str) -> dict[str, Any]:
    """The question as MLflow shows a chat's."""
    return {"messages": [{"role": "user", "content": question}]}


def _said(answer: str) -> dict[str, Any]:
    """The answer as MLflow shows a chat's."""
    return {"choices": [{"message": {"role": "assistant", "content": answer}}]}


def _usage(tokens: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Tokens read and drawn, summed over steps: each step reads its whole state."""
    read, drawn = (sum(column) for column in zip(*tokens, strict=True)) if tokens else (0, 0)
    return {"input_tokens": read, "output_tokens": drawn, "total_tokens": read + drawn}


def _assessments(trace: Mapping[str, Any]) -> list[Assessment]:
    """The golden answers as an expectation; feedback `correct` on the answer and `good` on each judged step."""
    found: list[Assessment | None] = [_expectation(trace)]
    found += [_one_feedback(trace, "correct", trace["outcome"], -1)]
    found += [_one_feedback(trace, "good", span["verdict"], number) for number, span in enumerate(trace["spans"])]
    return [one for one in found if one is not None]


def _expectation(trace: Mapping[str, Any]) -> Expectation | None:
    from mlflow.entities import AssessmentSource, Expectation

    if not trace["accepted"]:
        return None
    when = trace["start"] // 1_000_000
    made = Expectation(
        name="answer",
        value=" | ".join(trace["accepted"]),
        source=AssessmentSource("CODE", "golden answers"),
        trace_id=f"tr-{trace['id']}",
        span_id=_span_id(trace, -1),
        create_time_ms=when,
        last_update_time_ms=when,
    )
    made.assessment_id = f"e-{_span_id(trace, -1)}{trace['id'][:16]}"
    return made


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
        create_time_ms=trace["start"] // 1_000_000,
        last_update_time_ms=trace["start"] // 1_000_000,
        rationale=verdict["rationale"] or None,
    )
    made.assessment_id = f"a-{_span_id(trace, number)}{trace['id'][:16]}"  # the same whenever it is sent again
    return made


def _span_id(trace: Mapping[str, Any], number: int) -> str:
    """Sixteen hexadecimal digits for the step at position `number`; -1: the root span."""
    return hashlib.sha256(f"{trace['id']}/{number}".encode()).hexdigest()[:16]
