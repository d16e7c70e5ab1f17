"""Trajectories as MLflow traces.

The pipeline does not time single steps, so a trace and its spans take no time: a trace starts when its stage did, and
its steps follow one another by a nanosecond, which keeps their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swirl.core.types import OUTCOME, ActionKind, Step, Stop, Verdict
from swirl.traces.samples import Sample

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, Trace

SHOWN = 1000
"""Characters of a question or answer in the list of traces."""

BY_CODE = ("match", "evaluation")
"""Judges that are code rather than a model: they only compare answers."""


def trace_of(sample: Sample, stage: str, run_id: str, experiment: str, started: float) -> Trace:
    """A trajectory as a trace of a run: a root span, below it a span a step; verdicts are MLflow's assessments, too.

    Its ids depend on run and trajectory alone, so that a trace which is sent again is the same.
    """
    from mlflow.entities import Trace, TraceData, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    made, question, clock = sample.trajectory, sample.question, int(started * 1e9)
    golden = list(question.answers) if question else []
    trace_id = f"tr-{_digest(run_id, made.id)[:32]}"
    asked = question.text if question else made.question_id
    answer = made.answer if made.stop is Stop.ANSWERED else f"(no answer: {made.stop})"
    outcome = sample.verdicts.get(OUTCOME) or Verdict(made.id, OUTCOME, sample.correct, None, "", "evaluation")
    tags = {
        "benchmark": made.benchmark,
        "stop": str(made.stop),
        "correct": sample.outcome,
        "model": made.model,
        "stage": stage,
        "trajectory": made.id,
        "sample": sample.part,
    }
    facts = {"accepted": golden, **tags, **sample.labels, **_verdict(outcome)}
    spans = [_span(trace_id, -1, made.benchmark, "AGENT", clock, made.error, _asked(asked), _said(answer), facts)]
    assessments = _golden(trace_id, golden, clock) + _feedback(trace_id, -1, "correct", outcome, clock)
    usage, read = list[tuple[int, int]](), len(made.prompt_ids)
    for number, step in enumerate(made.steps):
        verdict, read = sample.verdicts.get(step.index), len(step.rewritten_ids) or read
        usage.append((read, len(step.token_ids)))
        spans.append(_step(trace_id, number, step, clock, {**_verdict(verdict), **_tokens(usage[-1:])}))
        assessments += _feedback(trace_id, number, "good", verdict, clock)
        read += len(step.token_ids) + len(step.observation_ids)
    info = TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=clock // 1_000_000,
        execution_duration=0,
        state=TraceState.ERROR if made.error else TraceState.OK,
        request_preview=asked[:SHOWN],
        response_preview=answer[:SHOWN],
        trace_metadata={
            TraceMetadataKey.SOURCE_RUN: run_id,
            TraceMetadataKey.INPUTS: json.dumps(_asked(asked[:SHOWN])),
            TraceMetadataKey.OUTPUTS: json.dumps(_said(answer[:SHOWN])),
            TraceMetadataKey.TOKEN_USAGE: json.dumps(*_tokens(usage).values()),
        },
        tags={TraceTagKey.TRACE_NAME: made.benchmark, **tags},
        assessments=assessments,
    )
    return Trace(info, TraceData(spans))


def _step(trace_id: str, number: int, step: Step, clock: int, facts: Mapping[str, Any]) -> Span:
    """One step as a span: the whole action, the tool calls in it, the observations.

    It has the name of what the action does, so that a tool's calls are one row of MLflow's page about tools.
    """
    kind = step.action.kind
    calls = kind not in (ActionKind.ANSWER, ActionKind.THINK) and not step.action.faulty
    inputs = {"action": step.action.text}
    if calls:
        inputs["tool"] = ", ".join(action.kind for action in step.actions)
        inputs["call"] = "\n".join(action.payload for action in step.actions)
    outputs = {"observation": step.observation} if step.observation else {"answer": step.action.payload}
    failed = f"{kind} action" if step.action.faulty else "the tool answered with an error" if step.tool_error else ""
    given = {"step": step.index + 1, "kind": str(kind), **facts}
    type_, starts = "TOOL" if calls else "LLM", clock + number + 1
    return _span(trace_id, number, str(kind), type_, starts, failed, inputs, outputs, given)


def _span(
    trace_id: str,
    number: int,
    name: str,
    kind: str,
    clock: int,
    failed: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Span:
    """A span that takes no time. `number`: see `_span_id`; `failed`: why; `facts`: further attributes."""
    from mlflow.entities import Span

    own = {"traceRequestId": trace_id, "spanType": kind, "spanInputs": inputs, "spanOutputs": outputs}
    attributes = {**{f"mlflow.{key}": value for key, value in own.items()}, **facts}
    return Span.from_dict(
        {
            "trace_id": trace_id,
            "span_id": _span_id(trace_id, number),
            "parent_span_id": None if number < 0 else _span_id(trace_id, -1),
            "name": name,
            "start_time_unix_nano": clock,
            "end_time_unix_nano": clock,
            "status": {"code": "STATUS_CODE_ERROR" if failed else "STATUS_CODE_OK", "message": failed},
            "attributes": {key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()},
        }
    )


def _verdict(verdict: Verdict | None) -> dict[str, Any]:
    names = ("good", "score", "rationale", "judge") if verdict else ()
    return {f"verdict.{name}": getattr(verdict, name) for name in names}


def _golden(trace_id: str, answers: list[str], clock: int) -> list[Assessment]:
    """The golden answers as what was expected."""
    from mlflow.entities import AssessmentSource, Expectation

    source = AssessmentSource("CODE", "golden answers")
    made = Expectation(name="answer", value=" | ".join(answers), source=source)
    return [_placed(made, trace_id, -1, clock)] if answers else []


def _feedback(trace_id: str, number: int, name: str, verdict: Verdict | None, clock: int) -> list[Assessment]:
    """A verdict on the answer (`correct`) or on a step (`good`)."""
    from mlflow.entities import AssessmentSource, Feedback

    if verdict is None or verdict.good is None:
        return []
    source = AssessmentSource("CODE" if verdict.judge in BY_CODE else "LLM_JUDGE", verdict.judge)
    score = None if verdict.score is None else {"score": f"{verdict.score:.4f}"}
    made = Feedback(name, verdict.good, source=source, metadata=score, rationale=verdict.rationale or None)
    return [_placed(made, trace_id, number, clock)]


def _placed(made: Assessment, trace_id: str, number: int, clock: int) -> Assessment:
    """An assessment with its span, its time, and an id that is the same whenever it is sent again."""
    made.trace_id, made.span_id = trace_id, _span_id(trace_id, number)
    made.create_time_ms = made.last_update_time_ms = clock // 1_000_000
    made.assessment_id = f"a-{_digest(trace_id, made.name, str(number))[:32]}"
    return made


def _asked(question: str) -> dict[str, Any]:
    """The question as MLflow shows a chat's."""
    return {"messages": [{"role": "user", "content": question}]}


def _said(answer: str) -> dict[str, Any]:
    """The answer as MLflow shows a chat's."""
    return {"choices": [{"message": {"role": "assistant", "content": answer}}]}


def _tokens(steps: Sequence[tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Tokens read and drawn, summed over steps, in MLflow's own field: each step reads its whole state."""
    read, drawn = sum(one for one, _ in steps), sum(one for _, one in steps)
    return {"mlflow.chat.tokenUsage": {"input_tokens": read, "output_tokens": drawn, "total_tokens": read + drawn}}


def _span_id(trace_id: str, number: int) -> str:
    """Sixteen hexadecimal digits for the step at position `number`; -1: the root span."""
    return _digest(trace_id, str(number))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()
