"""One question, answered step by step: the same trajectory as in evaluation, reported while it is made."""

from __future__ import annotations

import dataclasses
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import to_dict
from swirl.core.seeds import derive
from swirl.core.suggestions import meant
from swirl.core.types import Question, Step, Trajectory
from swirl.models.chat import Chat
from swirl.models.native_chat import NativeChat, Result
from swirl.rollout.engine import Attempt
from swirl.rollout.reading import Readable, reader_of
from swirl.rollout.remote import RemotePolicy
from swirl.wiring.attempts import attempts_with, sampling, tool_calls
from swirl.wiring.policies import AnyPolicy, roll_out_any
from swirl.wiring.tools import Toolbox

MAX_QUESTION = 4000
"""Longest question, in characters."""

_ERROR = "error: "


@dataclass(frozen=True, slots=True)
class Kind:
    """How a benchmark's questions are asked."""

    tools: tuple[str, ...]
    task: str
    """One of `tasks` in params.yaml, which decides prompt and step limit."""


@dataclass(frozen=True, slots=True)
class Acted:
    """The model has acted; if it called a tool, the tool is running now."""

    index: int
    thought: str
    """The text besides the call or answer, often empty; the whole text of a malformed action."""
    tool: str
    """The tool that it called; empty when it called none."""
    payload: str
    """The query, expression or answer."""
    kind: str
    """The kind of its action, see `swirl.core.types.Action`."""
    text: str = field(default="", compare=False)
    """The whole action as the model wrote it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The observation that followed an action."""

    index: int
    result: str
    error: bool
    """Whether the tool answered with an error, or the action was malformed."""
    text: str = field(default="", compare=False)
    """The whole observation as the model reads it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The trajectory is complete."""

    trajectory: Trajectory
    tools: Mapping[str, str]
    """Kind of action -> the name of the tool that it calls."""
    input_tokens: int
    """Of the prompt and the results; for a server its own count, where every step has the whole conversation."""
    output_tokens: int
    seconds: float

    @property
    def unanswered(self) -> str:
        """That there is no answer, and why: `no answer: step limit`."""
        return f"no answer: {self.trajectory.stop.replace('_', ' ')}"


Event = Acted | Observed | Ended


class Agent:
    """A policy with its tools, prompts and step limits; any threads may use it, `runtime.workers` at the same time."""

    def __init__(self, policy: AnyPolicy, params: Params, layout: Layout, benchmarks: Mapping[str, Kind]) -> None:
        """`benchmarks` are those whose tools are available; for a search task, `layout` has the evaluation index."""
        self.benchmarks = benchmarks
        self.policy = policy
        self.params, self.layout = params, layout
        self._toolbox = Toolbox(params, layout)
        self._room = threading.Semaphore(params.runtime.workers)

    def stream(self, text: str, benchmark: str) -> Iterator[Event]:
        """Answer `text` greedily with a benchmark's tools; yields each action and result, and finally `Ended`.

        Raises `DataError` at once, not with the first event, for an empty or too long question or an unknown benchmark.
        """
        question = self.question(text, benchmark)
        return self.stream_of(question)

    def question(self, text: str, benchmark: str) -> Question:
        """The question as a record. Raises `DataError` as `stream` does."""
        if not text.strip():
            raise DataError("the question is empty")
        if len(text) > MAX_QUESTION:
            raise DataError(f"the question has {len(text):,} characters; at most {MAX_QUESTION:,} are read")
        kind = self.benchmarks.get(benchmark)
        if kind is None:
            raise DataError(unknown(benchmark, self.benchmarks))
        return Question("ask", benchmark, "evaluation", " ".join(text.split()), (), 0, kind.tools, kind.task)

    def stream_of(self, question: Question) -> Iterator[Event]:
        """`stream` for a question record; the trajectory is, byte for byte, that of an evaluation at temperature 0."""
        [attempt] = attempts_with(self.params, self.layout, [question], 1, self._toolbox.tools)
        return _told(lambda tell: self._roll_out(attempt, tell))

    def _roll_out(self, attempt: Attempt, tell: Callable[[Event], None]) -> Ended:
        chat = cast("Chat", _Listening(self.policy.chat, attempt, tell))
        listened = dataclasses.replace(self.policy, chat=chat)
        loop, seed = self.params.rollout, derive(self.params.seed, "evaluate", "True")
        with self._room:
            started, used = time.monotonic(), self._counted()
            drawn = sampling(self.params, 0.0)
            [made] = roll_out_any(listened, [attempt], drawn, seed, loop.max_malformed, 1, tool_calls(self.params))
            seconds = time.monotonic() - started
        if isinstance(self.policy, RemotePolicy):
            read, said = (after - before for after, before in zip(self._counted(), used, strict=True))
        else:
            read = len(made.prompt_ids) + sum(len(s.observation_ids) + len(s.rewritten_ids) for s in made.steps)
            said = sum(len(step.token_ids) for step in made.steps)
        return Ended(made, {kind: tool.name for kind, tool in attempt.tools.items()}, read, said, seconds)

    def _counted(self) -> tuple[int, int]:
        """Prompt and reply tokens that the policy's server has counted so far; (0, 0) for a local policy."""
        if not isinstance(self.policy, RemotePolicy):
            return 0, 0
        counts = self.policy.client.counts
        return counts.prompt_tokens, counts.completion_tokens


def unknown(benchmark: str, known: Mapping[str, Any]) -> str:
    """The error message for an unknown benchmark."""
    return f"there is no benchmark {benchmark!r} here; there are {', '.join(known) or 'none'}{meant(benchmark, known)}"


class _Abandoned(Exception):
    """Ends the work, because nobody reads its events any more."""


def _told(work: Callable[[Callable[[Event], None]], Ended]) -> Iterator[Event]:
    """Run `work` in a thread, and yield its events as they happen, the one that it returns as the last.

    Closing this generator ends the work at its next event.
    """
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    gone = threading.Event()

    def tell(event: Event) -> None:
        if gone.is_set():
            raise _Abandoned
        events.put(event)

    def run() -> None:
        try:
            events.put(work(tell))
        except BaseException as error:  # raised again in the thread that reads the events
            events.put(error)

    threading.Thread(target=run, name="agent", daemon=True).start()
    try:
        while True:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Ended):
                return
    finally:
        gone.set()


class _Listening:
    """A chat that reports an event for each action that the rollout decodes with it and each result that it encodes."""

    def __init__(self, chat: Readable, attempt: Attempt, tell: Callable[[Event], None]) -> None:
        self._chat, self._tell, self._tools = chat, tell, attempt.tools
        self._reader = reader_of(chat, attempt.tools, attempt.thoughts)
        self._index, self._payload = -1, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chat, name)

    def text(self, ids: tuple[int, ...]) -> str:
        """Decode a complete action, and report it."""
        action = self._reader.read(ids)
        text = action.text
        tool = self._tools.get(action.kind)
        self._index, self._payload = self._index + 1, action.payload
        said, name = thought(text, action.payload), tool.name if tool else ""
        self._tell(Acted(self._index, said, name, action.payload, action.kind, text))
        return text

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """Report the result of the last action, and encode it."""
        shown = result(text, self._payload)
        self._tell(Observed(self._index, shown, shown.startswith(_ERROR), text))
        return cast("Chat", self._chat).turn(text, closed)

    def results(self, results: Sequence[Result], closed: bool) -> tuple[int, ...]:
        """Report the results of the last action, and encode them."""
        text = "\n".join(one.text for one in results)
        failed = any(one.text.startswith(_ERROR) for one in results)
        self._tell(Observed(self._index, text, failed, text))
        return cast("NativeChat", self._chat).results(results, closed)


def thought(text: str, payload: str) -> str:
    """The text of an action besides its call or answer; all of it when there is no payload (a malformed action)."""
    if not payload:
        return text.strip()
    around = re.fullmatch(rf"(.*?)<?<(\w+)>>?\s*{re.escape(payload)}\s*<?</\2>>?(.*)", text, re.DOTALL)
    return " ".join(part for part in (around[1].strip(), around[3].strip()) if part) if around else ""


def result(observation: str, payload: str) -> str:
    """The tool's result in an observation `PAYLOAD -> RESULT`."""
    return observation.removeprefix(f"{payload} -> ") if payload else observation


def as_dict(ended: Ended, question: str) -> dict[str, Any]:
    """The answer ("" when there is none), why it ended, every step, tokens and seconds, as plain values."""
    made = ended.trajectory
    return {
        "question": question,
        "benchmark": made.benchmark,
        "model": made.model,
        "answer": made.answer,
        "stop": made.stop.value,
        "error": made.error,
        "steps": [_step(step, ended.tools) for step in made.steps],
        "tokens": {"input": ended.input_tokens, "output": ended.output_tokens},
        "seconds": round(ended.seconds, 3),
    }


def _step(step: Step, tools: Mapping[str, str]) -> dict[str, Any]:
    action, tool = step.action, tools.get(step.action.kind)
    return {
        "thought": thought(action.text, action.payload),
        "call": {"tool": tool, "input": action.payload} if tool else None,
        "result": "\n".join(result(seen.text, seen.payload) for seen in step.observations) or None,
        "action": to_dict(action),
        "observations": [to_dict(seen) for seen in step.observations],
        "observation": step.observation,
        "tool_error": step.tool_error,
    }
