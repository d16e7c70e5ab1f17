"""A tool has one name, wherever a person sees what a trajectory did."""

from __future__ import annotations

import io
import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from swirl.cli import ask
from swirl.cli.show import show
from swirl.core import records
from swirl.core.types import Trajectory
from swirl.reporting.browser.bodies import body
from swirl.reporting.labelled import Labelled
from swirl.reporting.tool_names import tool_name
from swirl.serving.agent import Ended
from swirl.serving.bundle import benchmarks_of, project_agent
from swirl.serving.spans import with_spans
from swirl.traces.mlflow_traces import trace_of
from swirl.traces.samples import Sample
from tests import asked


def test_only_the_calculator_has_another_name_than_its_kind() -> None:
    kinds = ("calculate", "search", "answer", "malformed", "cut", "think", "mcp:maps/find", "units")
    assert [tool_name(kind) for kind in kinds] == ["calculator", *kinds[1:]]


def test_asking_showing_and_tracing_say_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, out, mlflow = asked.project(tmp_path), io.StringIO(), MagicMock()
    monkeypatch.setattr("swirl.serving.spans.mlflow", mlflow)
    agent = project_agent(layout.model("swirl"), asked.params_of(layout), layout, benchmarks_of(layout))
    events = list(with_spans(agent.stream("Rome Oslo", "mini")))
    ask.show(events, out, False)
    assert re.findall(r"^  (\w+) +\S", out.getvalue(), re.MULTILINE) == ["calculator", "result", "search", "result"]

    expected = ["calculator", "search", "answer"]
    assert isinstance(events[-1], Ended)
    made = events[-1].trajectory
    records.save([made], Trajectory, layout.trajectories)
    assert re.findall(r"^step \d +(\S+)$", show(made.id, layout), re.MULTILINE) == expected

    steps = body(Labelled(made, None, {}, None), None, ())["steps"]
    assert [step.get("tool", step["kind"]) for step in steps] == expected
    assert [step["kind"] for step in steps] == ["calculate", "search", "answer"]  # which the page's script reads

    served = [call.args[0] for call in mlflow.start_span_no_context.call_args_list]
    logged = trace_of(Sample(made, None, None, {}, {}), "judge", "run", "0", 1.0).data.spans[1:]
    assert served == [span.name for span in logged] == expected
    assert [span.inputs.get("tool") for span in logged] == ["calculator", "search", None]
    assert [span.attributes["kind"] for span in logged] == ["calculate", "search", "answer"]  # which imports read
