"""Trajectories as MLflow traces.

The pipeline does not time single steps, so a trace has no duration, and its spans take no time: a trace starts when
its stage did, and its steps follow one another by a nanosecond, which keeps their order.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from swirl.core.types import OUTCOME, ActionKind, Step, Stop, Verdict
from swirl.reporting.format import words
from swirl.reporting.tool_names import tool_name
from swirl.traces.samples import Sample

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, Trace

SHOWN = 1000
"""Characters of a question or answer in the list of traces."""

BY_CODE = ("match", "evaluation")
"""Judges that are code rather than a model: they only compare answers."""


def trace_of(sample: Sample, stage: str, run_id: str, experiment: str, started: float) -> Trace:
    """A trajectory as a trace of a run: a root span, below it a span a step; verdicts are MLflow's assessments, too.

    Its ids are new each time: what is sent twice has to come from a store.
    """
    from mlflow.entities import Trace, TraceData, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    made, question, clock = sample.trajectory, sample.question, int(started * 1e9)
    golden = list(question.answers) if question else []
    asked = question.text if question else made.question_id
    answer = made.answer if made.stop is Stop.ANSWERED else f"(no answer: {words(made.stop)})"
    outcome = Verdict(made.id, OUTCOME, sample.correct, None, "", "evaluation")
    verdicts = {OUTCOME: outcome, **sample.verdicts}
    tags = {
        "benchmark": made.benchmark,
        "stop": str(made.stop),
        "correct": sample.outcome,
        "model": made.model,
        "stage": stage,
        "trajectory": made.id,
        "sample": sample.part,
    }
    info = TraceInfo(
        trace_id=f"tr-{uuid.uuid4().hex}",
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=clock // 1_000_000,
        execution_duration=None,  # MLflow's pages would show 0 as a time
        state=TraceState.ERROR if made.error else TraceState.OK,
        request_preview=asked[:SHOWN],
        response_preview=answer[:SHOWN],
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        tags={TraceTagKey.TRACE_NAME: made.benchmark, **tags},
        assessments=_assessments(golden, verdicts),
    )
    chat = {
        "spanInputs": {"messages": [{"role": "user", "content": asked}]},
        "spanOutputs": {"choices": [{"message": {"role": "assistant", "content": answer}}]},
    }
    facts = {"accepted": golden, **tags, **sample.labels, **_verdict(verdicts[OUTCOME])}
    spans = [_span(info.trace_id, OUTCOME, made.benchmark, clock, made.error, {"spanType": "AGENT", **chat}, facts)]
    read = len(made.prompt_ids)
    for step in made.steps:
        read, drawn = len(step.rewritten_ids) or read, len(step.token_ids)
        usage = {"input_tokens": read, "output_tokens": drawn, "total_tokens": read + drawn}
        facts = {"step": step.index + 1, "kind": str(step.action.kind), **_verdict(verdicts.get(step.index))}
        shown = {**_shown(step), "chat.tokenUsage": usage}
        failed = f"{step.action.kind} action" if step.action.faulty else ""
        failed = failed or ("the tool answered with an error" if step.tool_error else "")
        spans.append(_span(info.trace_id, step.index, tool_name(step.action.kind), clock, failed, shown, facts))
        read += drawn + len(step.observation_ids)
    return Trace(info, TraceData(spans))


def _shown(step: Step) -> dict[str, Any]:
    """What MLflow shows of a step: the whole action, the tool calls in it, the observations."""
    kind = step.action.kind
    calls = kind not in (ActionKind.ANSWER, ActionKind.THINK) and not step.action.faulty
    inputs = {"action": step.action.text}
    if calls:
        inputs["tool"] = ", ".join(tool_name(action.kind) for action in step.actions)
        inputs["call"] = "\n".join(action.payload for action in step.actions)
    outputs = {"observation": step.observation} if step.observation else {"answer": step.action.payload}
    return {"spanType": "TOOL" if calls else "LLM", "spanInputs": inputs, "spanOutputs": outputs}


def _span(
    trace_id: str, step: int, name: str, clock: int, failed: str, shown: Mapping[str, Any], facts: Mapping[str, Any]
) -> Span:
    """The span of a step (`OUTCOME`: of the whole), named by its tool, or by what it does without one.

    `failed` says why; `shown` are MLflow's own attributes, `facts` further ones.
    """
    from mlflow.entities import Span

    own = {f"mlflow.{key}": value for key, value in {"traceRequestId": trace_id, **shown}.items()}
    starts = clock + step - OUTCOME
    return Span.from_dict(
        {
            "trace_id": trace_id,
            "span_id": _span_id(step),
            "parent_span_id": None if step == OUTCOME else _span_id(OUTCOME),
            "name": name,
            "start_time_unix_nano": starts,
            "end_time_unix_nano": starts,
            "status": {"code": "STATUS_CODE_ERROR" if failed else "STATUS_CODE_OK", "message": failed},
            "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in {**own, **facts}.items()},
        }
    )


def _span_id(step: int) -> str:
    """Sixteen hexadecimal digits, which need to differ within a trace alone."""
    return f"{step - OUTCOME + 1:016x}"


def _verdict(verdict: Verdict | None) -> dict[str, Any]:
    names = ("good", "score", "rationale", "judge") if verdict else ()
    return {f"verdict.{name}": getattr(verdict, name) for name in names}


def _assessments(golden: list[str], verdicts: Mapping[int, Verdict]) -> list[Assessment]:
    """The golden answers as what was expected; the verdicts on the answer (`correct`) and on steps (`good`)."""
    from mlflow.entities import AssessmentSource, Expectation, Feedback

    found: list[Assessment] = []
    if golden:
        source = AssessmentSource("CODE", "golden answers")
        found.append(Expectation("answer", " | ".join(golden), source, span_id=_span_id(OUTCOME)))
    for step, verdict in verdicts.items():
        if verdict.good is not None:
            found.append(
                Feedback(
                    "correct" if step == OUTCOME else "good",
                    verdict.good,
                    source=AssessmentSource("CODE" if verdict.judge in BY_CODE else "LLM_JUDGE", verdict.judge),
                    metadata=None if verdict.score is None else {"score": f"{verdict.score:.4f}"},
                    span_id=_span_id(step),
                    rationale=verdict.rationale or None,
                )
            )
    return found
