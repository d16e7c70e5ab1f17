"""Traces of a tracking server become trajectories: of any agent that was autologged, and of our own runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swirl.agent_logs.exchanges import LineFault
from swirl.agent_logs.logs import Logs
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.types import Action, Observation, Question, Step, Stop, Trajectory
from swirl.traces.mlflow_traces import trace_of
from swirl.traces.samples import Sample
from swirl.traces.trace_files import fetch_traces
from tests.servers import Reply, scripted

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": SCHEMA}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def completion(number: int, message: dict[str, Any]) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Reply({"id": f"x{number}", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


@pytest.mark.slow
def test_a_real_agent_that_mlflow_autologged_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of its loop is a trace of its own, read back from the tracking server's database."""
    import mlflow
    from openai import OpenAI

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)  # or later tests would use it
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # what `set_experiment` sets is taken back with it
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("agent")
    mlflow.openai.autolog()
    try:
        with scripted(
            completion(1, {"content": None, "tool_calls": [CALL]}), completion(2, {"content": "4 degrees"})
        ) as server:
            client = OpenAI(base_url=server.url, api_key="none", max_retries=0)
            messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
            while True:
                answer = client.chat.completions.create(model="m", messages=messages, tools=TOOLS).choices[0].message
                messages.append(answer)
                if not answer.tool_calls:
                    break
                messages.append({"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "4"})
        mlflow.flush_trace_async_logging()
    finally:
        mlflow.openai.autolog(disable=True)
    logs = Logs([fetch_traces("agent", tmp_path / "traces.jsonl", None)], names=["mlflow:agent"])
    logs.read()
    (found,) = logs.conversations()
    assert [(message.role, message.text) for message in found.messages] == [
        ("user", "Weather in Oslo?"), ("assistant", ""), ("tool", "4"), ("assistant", "4 degrees")
    ]  # fmt: skip
    assert found.actions == (1, 3) and found.messages[1].calls[0].arguments == '{"city": "Oslo"}'
    assert [tool.name for tool in found.tools] == ["weather"]
    assert logs.summary.left_out == [] and str(found.places[3]) == "mlflow:agent, line 2, turn 4"
    with pytest.raises(DataError, match="no experiment 'other'"):
        fetch_traces("other", tmp_path / "none.jsonl", Layout(tmp_path))


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://me:pw@host/runs")
    with pytest.raises(
        DataError, match=r"^traces of experiment 'agent' cannot be had from mysql://\*\*\*@host/runs: No mod"
    ):
        fetch_traces("agent", tmp_path / "traces.jsonl", None)


@pytest.mark.parametrize("named", ["calculator", "calculate"])  # a tool's span, now and in older traces
def test_a_trace_of_our_own_run_is_its_trajectory(named: str, tmp_path: Path) -> None:
    first = Action("calculate", "So <math_exp> 6*7 </math_exp>", "6*7")
    seen = Observation("6*7 -> 42", False, "calculate", "6*7")
    last = Action("answer", "<answer> 42 </answer>", "42")
    steps = (Step(0, first, (seen,), (1, 2), (), (3,)), Step(1, last, (), (4,), (), ()))
    made = Trajectory("q/0", "q", "mini-gsm8k", 0, "base", 0, (1,), steps, Stop.ANSWERED, "")
    question = Question("q", "mini-gsm8k", "train", "What is 6*7?", ("42", "forty-two"), 1, ("calculator",))
    trace = trace_of(Sample(made, question, True, {}, {}), "judge", "run", "0", 1.0)
    text = trace.to_json()
    assert '"name": "calculator"' in text
    text = text.replace('"name": "calculator"', f'"name": "{named}"')
    (tmp_path / "own.jsonl").write_text(text + "\n")
    logs = Logs([tmp_path / "own.jsonl"])
    logs.read()
    (found,) = logs.conversations()
    assert [(message.role, message.text, message.model) for message in found.messages] == [
        ("user", "What is 6*7?", ""), ("assistant", first.text, "base"), ("user", "6*7 -> 42", ""),
        ("assistant", last.text, "base"),
    ]  # fmt: skip
    assert found.answers == ("42", "forty-two") and found.actions == (1, 3) and logs.summary.changed == {}
    assert json.loads(text)["info"]["assessments"]


HERMES = '<tool_call>\n{"name": "search", "arguments": {"query": "Ada born"}}\n</tool_call>'
CODER = "<tool_call>\n<function=search>\n<parameter=query>\nAda born\n</parameter>\n</function>\n</tool_call>"
GLM = "<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>Ada born</arg_value>\n</tool_call>"
LLAMA = '{"name": "search", "parameters": {"query": "Ada born"}}'


@pytest.mark.parametrize(
    ("said", "payloads", "read"),
    [
        ("<search_query> Ada born </search_query>", ["Ada born"], True),
        ("<search_query> Ada born </search_query>.", ["Ada born"], True),
        ("So <<search_query>>Ada born<</search_query>>\n", ["Ada born"], True),
        ('<search> {"a": "</b>"} </search>\n<search> {} </search>', ['{"a": "</b>"}', "{}"], True),
        (HERMES, ["Ada born"], False),
        (HERMES, ['{"query": "Ada born"}'], False),
        (CODER, ["Ada born"], False),
        (GLM, ["Ada born"], False),
        (LLAMA, ["Ada born"], False),
        (f"I look.\n{HERMES}\n{HERMES}", ["Ada born", "Ada born"], False),
    ],
)
def test_a_trace_of_a_run_in_a_model_s_own_format_is_left_out(
    said: str, payloads: list[str], read: bool, tmp_path: Path
) -> None:
    """It has neither the tools nor the turns of results that the run had."""
    seen = tuple(Observation("Ada was born in Oslo.", False, "search", payload) for payload in payloads)
    last = Action("answer", "<answer> Oslo </answer>", "Oslo")
    steps = (
        Step(0, Action("search", said, payloads[0]), seen, (1, 2), (), (3,)), Step(1, last, (), (4,), (), ()),
    )  # fmt: skip
    made = Trajectory("q/0", "q", "mini", 0, "base", 0, (1,), steps, Stop.ANSWERED, "")
    (tmp_path / "own.jsonl").write_text(trace_of(Sample(made, None, True, {}, {}), "judge", "run", "0", 1.0).to_json())
    logs = Logs([tmp_path / "own.jsonl"])
    logs.read()
    assert [one.messages[1].text for one in logs.conversations()] == ([said] if read else [])
    left_out = [(one.place.line, one.unit, one.reason) for one in logs.summary.left_out]
    assert left_out == ([] if read else [(1, "line", LineFault.NATIVE)])
