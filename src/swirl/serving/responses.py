"""The agent as an MLflow `ResponsesAgent`: what `mlflow models serve` and `mlflow.pyfunc.load_model` answer with.

A request's last user message is the question; earlier messages are not read, because the policy is trained on single
questions. `custom_inputs` chooses the benchmark (or the task) whose tools are used. A step becomes a reasoning item
(the thought), a function call and its output; the answer is the message at the end. `custom_outputs` is what
`swirl ask --json` prints.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModelContext, ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent

from swirl.core.errors import DataError, SwirlError
from swirl.serving.agent import Acted, Agent, Ended, Event, Observed, as_dict, unknown
from swirl.serving.bundle import ARTIFACT, open_bundle
from swirl.serving.spans import trace_into, with_spans

_CHOICES = ("benchmark", "task")
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "temperature": (0,),
    "top_p": (1,),
    "max_output_tokens": (),
    "tools": ([],),
    "tool_choice": ("auto",),
    "reasoning": (),
    "text": (),
}
"""Settings that this agent, which is greedy and has its own tools, does not obey -> values that change nothing.

A mapping changes nothing where its values are in `_DEFAULTS`.
"""
_DEFAULTS = (None, {"type": "text"}, "medium")


class RegisteredAgent(ResponsesAgent):
    """A bundle that answers requests. An error that the caller can fix has status 400 and one sentence."""

    def __init__(self) -> None:
        self._agent: Agent | None = None

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle, its files checked against their checksums."""
        self._agent = open_bundle(Path(context.artifacts[ARTIFACT]))
        trace_into(self._agent.params.tracking.experiment)

    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:  # type: ignore[override]
        """The response, when the trajectory is complete."""
        *_, last = self._events(request)
        return ResponsesAgentResponse.model_validate(last["response"])

    def predict_stream(  # type: ignore[override]
        self, request: ResponsesAgentRequest
    ) -> Generator[ResponsesAgentStreamEvent, None, None]:
        """Each item as soon as it is complete; the last event is the whole response."""
        for event in self._events(request):
            yield ResponsesAgentStreamEvent(**event)

    def _events(self, request: ResponsesAgentRequest) -> Generator[dict[str, Any], None, None]:
        assert self._agent is not None
        made, called = uuid4().hex[:16], False
        items: list[dict[str, Any]] = []
        try:
            question, benchmark = _question(request), _benchmark(request, self._agent)
            for event in with_spans(self._agent.stream(question, benchmark)):
                called = called if isinstance(event, Observed) else isinstance(event, Acted) and bool(event.tool)
                new = self._items(made, event, called)
                items += new
                yield from ({"type": "response.output_item.done", "item": item} for item in new)
                if isinstance(event, Ended):
                    yield _completed(made, event, items, question)
        except SwirlError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _items(self, made: str, event: Event, called: bool) -> list[dict[str, Any]]:
        """The output items of an event. The observation of a malformed action has none, because it answers no call."""
        if isinstance(event, Ended):
            said = event.trajectory.answer or event.unanswered
            return [self.create_text_output_item(said, f"answer_{made}")]
        call = f"call_{made}_{event.index}"
        if isinstance(event, Observed):
            return [self.create_function_call_output_item(call, event.result)] if called else []
        items = [self.create_reasoning_item(f"thought_{made}_{event.index}", event.thought)] if event.thought else []
        if called:
            arguments = json.dumps({"input": event.payload}, ensure_ascii=False)
            items.append(self.create_function_call_item(f"item_{call}", call, event.tool, arguments))
        return items


def _completed(made: str, ended: Ended, items: list[dict[str, Any]], question: str) -> dict[str, Any]:
    """The last event, with the whole response."""
    read, said = ended.input_tokens, ended.output_tokens
    outputs = as_dict(ended, question)
    response = {
        "id": f"resp_{made}",
        "object": "response",
        "output": items,
        "status": "completed" if ended.trajectory.answer else "incomplete",
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + said,
        },
        "custom_outputs": outputs,
    }
    return {"type": "response.completed", "response": response, "custom_outputs": outputs}


def _question(request: ResponsesAgentRequest) -> str:
    """The text of the last user message. Raises `DataError` without one, and for settings that would be ignored."""
    for name, value in request.model_dump(include={*_FIXED}).items():
        asks = any(one not in _DEFAULTS for one in value.values()) if isinstance(value, dict) else value is not None
        if asks and value not in _FIXED[name]:
            raise DataError(
                f"{name} cannot be chosen: the agent answers greedily, in plain text and with its own tools; leave it "
                "out"
            )
    messages = [item.model_dump() for item in request.input]
    if any(message.get("role") in ("system", "developer") for message in messages):
        raise DataError("the agent has a prompt of its own; leave out system and developer messages")
    asked = [message["content"] for message in messages if message.get("role") == "user"]
    if not asked:
        raise DataError('input holds no user message; it is a list such as [{"role": "user", "content": "Who ...?"}]')
    content = asked[-1]
    if isinstance(content, str):
        return content
    if any(part.get("type") != "input_text" for part in content):
        raise DataError("the agent reads text alone; a message's parts must be of type input_text")
    return " ".join(part["text"] for part in content)


def _benchmark(request: ResponsesAgentRequest, agent: Agent) -> str:
    """The benchmark whose tools are used: that of custom_inputs, else the first one."""
    given = request.custom_inputs or {}
    if others := sorted(given.keys() - set(_CHOICES)):
        raise DataError(f"custom_inputs has no {', '.join(others)}; it may have {' or '.join(_CHOICES)}")
    if len(given) > 1:
        raise DataError("custom_inputs has benchmark and task; give one of them")
    if "task" in given:
        for name, kind in agent.benchmarks.items():
            if kind.task == given["task"]:
                return name
        tasks = dict.fromkeys(kind.task for kind in agent.benchmarks.values())
        raise DataError(f"there is no task {given['task']!r} here; there are {', '.join(tasks)}")
    name = str(given.get("benchmark", next(iter(agent.benchmarks))))
    if name not in agent.benchmarks:
        raise DataError(unknown(name, agent.benchmarks))
    return name
