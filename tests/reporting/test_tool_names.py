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
from swirl.reporting.results import load
from swirl.reporting.tables import reward_model
from swirl.reporting.text import show as show_report
from swirl.reporting.tool_names import steps_name, tool_name
from swirl.serving.agent import Ended
from swirl.serving.bundle import benchmarks_of, project_agent
from swirl.serving.spans import with_spans
from swirl.stages import report
from swirl.traces.mlflow_traces import trace_of
from swirl.traces.samples import Sample
from tests import asked
from tests.stages.test_report import _params as params
from tests.stages.test_report import made_up_run


def test_only_the_calculator_has_another_name_than_its_kind() -> None:
    kinds = ("calculate", "search", "answer", "malformed", "cut", "think", "mcp:maps/find", "units")
    assert [tool_name(kind) for kind in kinds] == ["calculator", *kinds[1:]]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("all", "all"),
        ("calculate", "task calculate"),
        ("calculate.calculate", "task calculate, calculator"),
        ("search.search", "task search, search"),
        ("search.answer", "task search, answer"),
        ("mine.mcp:maps.org/find", "task mine, mcp:maps.org/find"),
    ],
)
def test_held_out_steps_are_named_by_task_and_tool(row: str, name: str) -> None:
    assert steps_name(row) == name


def test_page_and_terminal_report_the_reward_models_errors_by_these_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = made_up_run(tmp_path)
    records.save_json(
        records.load_json(layout.metrics("judge")) | {"heldout.calculate.calculate.accuracy": 0.8},
        layout.metrics("judge"),
    )
    report.run(params(2), layout)
    assert [row[0] for row in reward_model(load(layout.results)).rows] == [
        "all",
        "task calculate",
        "task calculate, calculator",
        "task search",
    ]
    show_report(layout)
    assert re.search(r"^ *task calculate, calculator +80\.0%", capsys.readouterr().out, re.MULTILINE)
    assert "heldout.calculate.calculate.accuracy" in records.load_json(layout.results)["reward_model"]


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
