"""`swirl ask`: one question, answered step by step with a benchmark's tools."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from swirl.cli.models import is_registered, opener
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import ActionKind
from swirl.reporting.markup import printable
from swirl.serving.agent import MAX_QUESTION, Acted, Agent, Ended, Event, Kind, Observed, as_dict, unknown
from swirl.serving.bundle import benchmarks_of

_BOLD, _DIM, _RED = "1", "2", "31"


def ask(
    text: str,
    benchmark: str | None,
    model: Path | str,
    params: Params,
    layout: Layout,
    as_json: bool = False,
    key_env: str = "",
    out: TextIO | None = None,
) -> None:
    """Print the answer of `model` to `text` ("-": standard input): steps as they happen, or one JSON object.

    `model` is as `swirl.cli.models.source` gives it. `benchmark` may be None where there is only one. Raises
    `SwirlError`, whose message says what to do.
    """
    out = out or sys.stdout
    try:
        question = (sys.stdin.read(MAX_QUESTION + 1) if text == "-" else text).strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is no text in {error.encoding}: {error.reason} at byte {error.start}"
        ) from None
    if not question:
        raise DataError("the question is empty")
    agent, name = _agent(model, benchmark, params, layout, key_env)
    events = agent.stream(question, name)
    if is_registered(model):
        from swirl.traces.served_traces import traced

        events = traced(events, question, name, layout)
    if as_json:
        *_, last = events
        assert isinstance(last, Ended)
        print(json.dumps(as_dict(last, question), ensure_ascii=False), file=out)
    else:
        show(events, out, out.isatty() and not os.environ.get("NO_COLOR"))


def _agent(model: Path | str, benchmark: str | None, params: Params, layout: Layout, key_env: str) -> tuple[Agent, str]:
    """The agent, and the benchmark whose tools it uses. Checks that cost no time come first."""
    if is_registered(model):
        agent = opener(model, params, layout, {})()
        return agent, _chosen(benchmark, agent.benchmarks)
    benchmarks = _with_tools(benchmarks_of(layout), params)
    name = _chosen(benchmark, benchmarks)
    return opener(model, params, layout, benchmarks, key_env)(), name


def _with_tools(benchmarks: Mapping[str, Kind], params: Params) -> dict[str, Kind]:
    """The benchmarks of tasks that `params` has, which may be the model's own, with the tools that it gives them.

    Raises `DataError` when there are none.
    """
    tasks = params.tasks
    known = {name: kind.task for name, kind in benchmarks.items() if kind.task in tasks}
    if not known:
        others = ", ".join(dict.fromkeys(kind.task for kind in benchmarks.values()))
        raise DataError(f"the model is asked in tasks {', '.join(tasks)}; the project's benchmarks are of {others}")
    return {name: Kind(tuple(tasks[task].tools), task) for name, task in known.items()}


def _chosen(benchmark: str | None, known: Iterable[str]) -> str:
    """The benchmark asked for, or the only one. Raises `DataError` when it is unknown or ambiguous."""
    names = list(known)
    if benchmark is None and len(names) != 1:
        raise DataError(f"say whose tools to use: --benchmark {' or --benchmark '.join(names)}")
    name = names[0] if benchmark is None else benchmark
    if name not in names:
        raise DataError(unknown(name, dict.fromkeys(names)))
    return name


def show(events: Iterable[Event], out: TextIO, colour: bool) -> None:
    """Print each event as it comes, safe for a terminal."""

    def line(label: str, text: str, codes: str = "") -> None:
        body = printable(text).strip().replace("\n", "\n" + " " * 13)
        styled = f"\x1b[{codes}m{body}\x1b[0m" if colour and codes else body
        print(f"  {label:<10} {styled}" if label else styled, file=out, flush=True)

    for event in events:
        match event:
            case Acted():
                line("", f"step {event.index + 1}", _BOLD)
                if event.thought:
                    idle = event.kind in (ActionKind.MALFORMED, ActionKind.CUT)
                    line(event.kind if idle else "thought", event.thought, _DIM)
                if event.tool:
                    line(event.tool, event.payload)
            case Observed():
                line("result", event.result, _RED if event.error else "")
            case Ended():
                line("", closing(event), _BOLD)


def closing(ended: Ended) -> str:
    """The answer, or why there is none."""
    made = ended.trajectory
    why = ended.unanswered + (f": {made.error}" if made.error else "")
    return f"answer: {made.answer}" if made.answer else why
