"""Registration and promotion on a real sqlite store and a real server; a registered agent answers over HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swirl import tracking
from swirl.agent_logs.mlflow_spans import own_trajectory
from swirl.cli.ask import ask
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.mlflow_store.runs import Store
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import destination
from swirl.models.skipped import mark_skipped
from swirl.pipeline.dvc_file import dvc_hash
from swirl.registry import model_registry
from swirl.registry.model_registry import NAME, Outcomes, _requirements, fetch, promote, read_outcomes
from swirl.tracking.delivery import Delivery, sync
from swirl.tracking.recording import TO_REGISTER
from tests import asked
from tests.servers import answers, held_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SWIRL_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def store_of(layout: Layout) -> tuple[Store, str]:
    """The store of a project, and the id of a new parent run in it."""
    store = destination(layout, Settings())
    return store, store.client.create_run(store.experiment, run_name="dvc repro").info.run_id


def aliases(store: Store) -> dict[str, int]:
    return {alias: int(version) for alias, version in store.client.get_registered_model(NAME).aliases.items()}


def tags(store: Store, version: int) -> dict[str, str]:
    return dict(store.client.get_model_version(NAME, str(version)).tags)


def test_without_a_tuned_and_evaluated_policy_nothing_is_registered(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert read_outcomes(layout, "swirl") is None
    asked.write_questions(layout)
    asked.predict(layout, "swirl", 20)
    mark_skipped(layout.model("swirl"), "train.methods does not name it")
    unused: Any = None
    assert promote(unused, layout, "run") is None


def test_a_registered_agent_needs_the_package_gguf_where_its_weights_are_such_a_file(tmp_path: Path) -> None:
    layout = asked.project(tmp_path)
    assert not any(line.startswith("gguf") for line in _requirements(asked.params_of(layout), layout))
    files = {"x.gguf": "0" * 64}
    pointer = {"source": "pretrained", "model": "../x.gguf", "revision": "", "files": files, "trust_remote_code": False}
    (layout.model("swirl") / "model.json").write_text(json.dumps(pointer), encoding="utf-8")
    assert f"gguf=={version('gguf')}" in _requirements(asked.params_of(layout), layout)


def test_outcomes_are_those_with_tools_of_these_very_questions(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    asked.write_questions(layout)
    asked.predict(layout, "swirl", 10)
    first = read_outcomes(layout, "swirl")
    assert first is not None
    assert (len(first.correct), first.accuracy) == (80, 0.25)
    asked.write_questions(layout, asked="what is new")
    second = read_outcomes(layout, "swirl")
    assert second is not None
    assert first.correct == second.correct
    assert first.questions != second.questions


@pytest.mark.parametrize(
    ("bar", "ours", "kind", "why"),
    [
        ((0.5,) * 60 + (1.0,) * 40, (0.75,) * 60 + (0.0,) * 40, "not promoted", "45.0% against 70.0%"),
        ((0.0,) * 60 + (1.0,) * 40, (0.25,) * 60 + (1.0,) * 40, "promoted", "better than .*55.0% against 40.0%"),
    ],
)
def test_what_is_right_more_often_on_more_questions_is_not_better_for_it(
    bar: tuple[float, ...], ours: tuple[float, ...], kind: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(shares: tuple[float, ...], samples: float) -> Outcomes:
        return Outcomes("digest", {f"q{i}": share for i, share in enumerate(shares)}, samples)

    unused: Any = None
    candidate: Any = SimpleNamespace(version="2", tags={})
    stored = of(bar, 4.0)
    monkeypatch.setattr(model_registry, "_stored", lambda client, version: stored)
    made = model_registry._decide(unused, Layout(Path()), candidate, "1", of(ours, 4.0))
    assert made.kind == kind and re.search(why, made.reason)
    other = model_registry._decide(unused, Layout(Path()), candidate, "1", of(ours, 1.0))
    assert (other.kind, other.numbers) == ("not compared", {"compared_with": "the champion, version 1"})
    assert "was evaluated with 4 answers a question, and this with 1; to begin anew" in other.reason
    stored = of(bar, 0.0)  # by a version of older code
    assert model_registry._decide(unused, Layout(Path()), candidate, "1", of(ours, 1.0)).kind == kind


@pytest.mark.parametrize("uri", ["models:/swirl-policy", "models:/", "models:/a/Production", "runs:/1/model"])
def test_only_registered_versions_are_fetched(tmp_path: Path, uri: str) -> None:
    with pytest.raises(DataError, match="names no registered model; write models:/swirl-policy@champion"):
        fetch(uri, Layout(tmp_path))


def test_a_registry_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(later)) as database, database:
        database.execute("CREATE TABLE alembic_version AS SELECT 'of a later MLflow' AS version_num")
    for given, shown, why in (
        ("", f"sqlite:///{later}", "Can't locate revision"),
        ("mysql://me:pw@host/runs", r"mysql://\*\*\*@host/runs", "No module named"),
        ("foo://host", "foo://host", "Model registry functionality is unavailable"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        with pytest.raises(DataError, match=f"^models:/swirl-policy@champion cannot be had from {shown}: {why}"):
            fetch("models:/swirl-policy@champion", Layout(tmp_path))


def test_asking_for_a_registered_model_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="so no model is registered; .*`dvc repro -f -s report`"):
        fetch("models:/swirl-policy@champion", Layout(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def once(tmp_path: Path) -> Layout:
    """A project with a policy that is better than the base: 40 right answers against 20."""
    layout = asked.project(tmp_path / "project")
    asked.predict(layout, "base", 10)
    asked.predict(layout, "swirl", 20)
    return layout


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["set_registered_model_alias", "set_model_version_tag"])
def test_a_promotion_that_is_cut_short_is_made_good(broken: str, once: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the promotion broke off at the champion's alias or at the decision's tag, the next try completes it."""
    store, run = store_of(once)
    promote(store, once, run)
    asked.nudge(once)
    asked.predict(once, "swirl", 30)
    whole, failures = getattr(store.client, broken), [1]

    def fail_once(name: str, *values: str) -> None:
        if failures and {"champion", "decision"} & {*values}:
            failures.clear()
            raise OSError("the server is gone")
        whole(name, *values)

    monkeypatch.setattr(store.client, broken, fail_once)
    with pytest.raises(OSError, match="the server is gone"):
        promote(store, once, run)
    made = promote(store, once, run)
    assert made is not None
    assert made.reason == "better than the champion, version 1: 75.0% against 50.0% of 80 questions, p = 1.91e-06"
    assert aliases(store) == {"candidate": 2, "champion": 2}
    found = tags(store, 2)
    assert (found["decision"], found["decision.reason"], found["p_value"]) == ("promoted", made.reason, "1.90735e-06")
    on_run = store.client.get_run(run).data.tags
    assert (on_run["registry.decision"], on_run["registry.p_value"]) == ("promoted", "1.90735e-06")


@pytest.mark.slow
def test_without_a_champion_a_decision_is_made_again(once: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of the earlier decision, such as its p-value, are removed with it."""
    place = once.root / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    store, run = store_of(once)
    promote(store, once, run)
    store.client.delete_registered_model_alias(NAME, "champion")
    again = promote(store, once, run)
    assert again is not None
    assert (again.version, again.kind, aliases(store)) == ("1", "promoted", {"candidate": 1, "champion": 1})

    store.client.delete_registered_model_alias(NAME, "champion")
    asked.predict(once, "base", 19)
    third = promote(store, once, run)
    assert third is not None
    assert (third.kind, aliases(store), tags(store, 1)["p_value"]) == ("not promoted", {"candidate": 1}, "0.5")

    once.predictions("base").unlink()
    fourth = promote(store, once, run)
    assert fourth is not None
    assert (fourth.kind, tags(store, 1)["decision"], "p_value" in tags(store, 1)) == (
        "not compared",
        "not compared",
        False,
    )
    assert not list(place.glob("swirl-registry-*"))


@pytest.mark.slow
def test_a_policy_is_promoted_when_it_beats_the_one_before(tmp_path: Path) -> None:
    """Right answers to 80 questions: base 20, then 40 (promoted), the same again, 42 (not significantly better), other
    questions (not compared), and 60 (promoted over 40)."""
    layout = asked.project(tmp_path)
    store, run = store_of(layout)
    asked.predict(layout, "base", 10)
    asked.predict(layout, "swirl", 20)
    first = promote(store, layout, run)
    assert first is not None
    assert (first.version, first.kind) == ("1", "promoted")
    assert first.reason == "better than the base model: 50.0% against 25.0% of 80 questions, p = 1.91e-06"
    assert aliases(store) == {"candidate": 1, "champion": 1}
    found = tags(store, 1)
    numbers = {"p_value": "1.90735e-06", "n": "80", "accuracy": "0.5", "compared_with.accuracy": "0.25"}
    assert {key: found[key] for key in numbers} == numbers
    assert (found["decision"], found["compared_with"], found["contents"]) == ("promoted", "the base model", "whole")
    on_run = store.client.get_run(run).data.tags
    assert (on_run["registry.version"], on_run["registry.decision"]) == ("swirl-policy/1", "promoted")
    assert store.client.get_run(run).outputs.model_outputs

    assert promote(store, layout, run) == first
    assert len(store.client.search_model_versions(f"name='{NAME}'")) == 1

    asked.nudge(layout)
    asked.predict(layout, "swirl", 21)
    second = promote(store, layout, run)
    assert second is not None
    assert (second.version, second.kind) == ("2", "not promoted")
    assert second.reason.startswith("not significantly better than the champion, version 1: 52.5% against 50.0%")
    assert tags(store, 2)["p_value"] == "0.5"
    assert aliases(store) == {"candidate": 2, "champion": 1}

    asked.nudge(layout)
    asked.write_questions(layout, 39)
    asked.predict(layout, "swirl", 39, 39)
    third = promote(store, layout, run)
    assert third is not None
    assert (third.version, third.kind) == ("3", "not compared")
    assert "was evaluated on other questions" in third.reason
    assert "p_value" not in tags(store, 3)
    assert aliases(store) == {"candidate": 3, "champion": 1}

    asked.predict(layout, "base", 0, 39)
    store.client.delete_registered_model_alias(NAME, "champion")
    anew = promote(store, layout, run)
    assert anew is not None
    assert (anew.version, anew.kind, tags(store, 3)["compared_with"]) == ("3", "promoted", "the base model")
    assert aliases(store) == {"candidate": 3, "champion": 3}
    store.client.set_registered_model_alias(NAME, "champion", "1")

    asked.nudge(layout)
    asked.write_questions(layout)
    asked.predict(layout, "swirl", 30)
    fourth = promote(store, layout, run)
    assert fourth is not None
    assert (fourth.version, fourth.kind) == ("4", "promoted")
    assert aliases(store) == {"candidate": 4, "champion": 4}


@contextlib.contextmanager
def running(*command: str, folder: Path, port: int, **environment: str) -> Iterator[str]:
    """The address of a server process that answers on `port`; it and what it started are killed when the block ends."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            answers(f"{address}/health", process, lambda: (folder / "server.log").read_text()[-2000:])
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def post(address: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to one question over HTTP."""
    body = json.dumps(request).encode()
    sent = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def user(text: str, **custom: str) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": text}], **({"custom_inputs": custom} if custom else {})}


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "seconds"}


@pytest.mark.slow
def test_a_registered_agent_answers_over_http_as_swirl_ask_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is behind `mlflow server`, the agent behind `mlflow models serve` with its own code and files."""
    layout = asked.project(tmp_path / "project")
    asked.predict(layout, "base", 0)
    asked.predict(layout, "swirl", 40)
    stored = tmp_path / "stored"
    stored.mkdir()
    server = ("server", "--backend-store-uri", f"sqlite:///{stored}/mlflow.db", "--artifacts-destination", str(stored))
    with held_port() as port, running(*server, "--workers", "1", folder=stored, port=port) as registry:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
        store, run = store_of(layout)
        decision = promote(store, layout, run)
        assert decision is not None
        assert (decision.version, decision.kind) == ("1", "promoted")
        assert aliases(store) == {"candidate": 1, "champion": 1}
        again = promote(store, layout, run)
        assert again == decision
        assert not (layout.root / "mlflow.db").exists()

        uri = "models:/swirl-policy@champion"
        out = io.StringIO()
        ask(asked.QUESTION, "other", uri, asked.params_of(layout), layout, True, out=out)
        expected = json.loads(out.getvalue())
        assert expected["answer"] == "Oslo"
        out = io.StringIO()
        ask(asked.QUESTION, "other", layout.model("swirl"), asked.params_of(layout), layout, True, out=out)
        assert timeless(json.loads(out.getvalue())) == timeless(expected)

        own = tmp_path / "elsewhere"
        own.mkdir()
        serve = ("models", "serve", "-m", uri, "--env-manager", "local")
        environment = {"MLFLOW_TRACKING_URI": registry, "PYTHONPATH": ""}
        with held_port() as port, running(*serve, folder=own, port=port, **environment) as address:
            status, answer = post(address, user(asked.QUESTION, benchmark="other"))
            assert status == 200, answer
            assert timeless(answer["custom_outputs"]) == timeless(expected)
            assert answer["output"][-1]["content"][0]["text"] == "Oslo"
            assert [item["type"] for item in answer["output"]] == ["function_call", "function_call_output", "message"]
            assert json.loads(answer["output"][0]["arguments"]) == {"input": "Ada born"}
            assert answer["output"][0]["call_id"] == answer["output"][1]["call_id"]
            assert (answer["status"], answer["usage"]["output_tokens"]) == ("completed", expected["tokens"]["output"])

            assert post(address, user(asked.QUESTION))[1]["custom_outputs"]["benchmark"] == "mini"
            assert post(address, user(asked.QUESTION, task="search"))[1]["custom_outputs"]["answer"] == "Oslo"
            malformed = post(address, user("Oslo what"))[1]
            assert (malformed["status"], malformed["custom_outputs"]["stop"]) == ("incomplete", "malformed")
            for request, message in (
                (user("x", benchmark="nope"), "there is no benchmark 'nope' here; there are mini, other"),
                (user("x", task="nope"), "there is no task 'nope' here; there are search"),
                (user("x", colour="red"), "custom_inputs has no colour; it may have benchmark or task"),
                (user("x" * 4001), "the question has 4,001 characters; at most 4,000 are read"),
                (user(" "), "the question is empty"),
                ({"input": [{"role": "system", "content": "x"}]}, "leave out system and developer messages"),
                ({**user("x"), "temperature": 1}, "temperature cannot be chosen"),
                ({"input": []}, "input holds no user message"),
            ):
                status, answer = post(address, request)
                assert (status, answer["message"].endswith(message) or message in answer["message"]) == (400, True)
                assert "Traceback" not in json.dumps(answer)
        _check_traces(store)


def _check_traces(store: Store) -> None:
    """What `swirl ask` and then four requests were answered is in the project's experiment, with a span a step."""
    deadline, found = time.monotonic() + 60, list[Any]()
    while len(found) < 5 and time.monotonic() < deadline:  # a server sends them in a thread of its own
        every = store.client.search_traces(locations=[store.experiment], order_by=["timestamp_ms ASC"])
        found = [trace for trace in every if "stage" in trace.info.tags]  # a refused request has none
    assert [trace.info.tags["benchmark"] for trace in found] == ["other", "other", "mini", "mini", "mini"]
    *answered, malformed = found
    for trace in answered:
        root, call, answer = sorted(trace.data.spans, key=lambda span: (span.parent_id is not None, span.start_time_ns))
        assert (trace.info.tags["stage"], trace.info.tags["stop"]) == ("serving", "answered")
        assert [root.span_type, call.name, answer.name] == ["AGENT", "search", "answer"]
        assert {span.parent_id for span in (call, answer)} == {root.span_id}
        assert "Oslo" in call.outputs["observation"]
    assert malformed.info.tags["stop"] == "malformed"
    assert [span.name for span in malformed.data.spans if span.parent_id] == ["cut", "malformed"]


@pytest.mark.rare
def test_from_python_a_registered_agent_streams(tmp_path: Path) -> None:
    layout = asked.project(tmp_path, tracking={"max_model_mb": 1e-6})
    asked.predict(layout, "base", 0)
    asked.predict(layout, "swirl", 40)
    store, run = store_of(layout)
    promote(store, layout, run)
    assert tags(store, 1)["contents"].startswith("points to folders outside")
    program = (
        "import json, mlflow\n"
        f"mlflow.set_tracking_uri('sqlite:///{layout.root}/mlflow.db')\n"
        "agent = mlflow.pyfunc.load_model('models:/swirl-policy@champion')\n"
        f"request = {{'input': [{{'role': 'user', 'content': {asked.QUESTION!r}}}]}}\n"
        "for event in agent.predict_stream(request):\n"
        "    print(json.dumps([event['type'], event.get('item', {}).get('type')]))\n"
        "print(json.dumps(agent.predict(request)['custom_outputs']['answer']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["response.output_item.done", "function_call"],
        ["response.output_item.done", "function_call_output"],
        ["response.output_item.done", "message"],
        ["response.completed", None],
        "Oslo",
    ]
    command = ("ask", asked.QUESTION, "--benchmark", "other", "--model", "models:/swirl-policy@champion")
    done = subprocess.run(
        [sys.executable, "-m", "swirl", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1].strip()) == (0, "answer: Oslo"), done.stderr

    found = store.client.search_traces(locations=[store.experiment], order_by=["timestamp_ms ASC"])
    assert [trace.info.tags["benchmark"] for trace in found] == ["mini", "mini", "other"]
    for trace in found:
        root, call, answer = sorted(trace.data.spans, key=lambda span: (span.parent_id is not None, span.start_time_ns))
        assert (trace.info.tags["stop"], root.span_type, trace.info.state.value) == ("answered", "AGENT", "OK")
        assert {span.parent_id for span in (call, answer)} == {root.span_id}
        assert (call.name, call.span_type, call.inputs["call"]) == ("search", "TOOL", "Ada born")
        assert (answer.name, answer.span_type, answer.outputs) == ("answer", "LLM", {"answer": "Oslo"})
        assert "Oslo" in call.outputs["observation"]
        assert root.start_time_ns <= call.start_time_ns < call.end_time_ns <= answer.start_time_ns < answer.end_time_ns
        assert trace.info.token_usage["output_tokens"] > 0
    read = own_trajectory(found[-1].to_dict())
    assert read is not None
    assert [message["role"] for message in read["messages"]] == ["user", "assistant", "user", "assistant"]


@pytest.mark.slow
def test_the_end_of_a_report_registers_the_policy(tmp_path: Path) -> None:
    layout = asked.project(tmp_path)
    asked.predict(layout, "base", 0)
    asked.predict(layout, "swirl", 40)
    with tracking.stage_run("report", asked.params_of(layout), layout):
        pass
    store = destination(layout, Settings())
    assert aliases(store) == {"candidate": 1, "champion": 1}


@pytest.mark.slow
def test_a_report_that_a_flow_did_not_have_to_run_registers_the_policy_too(once: Layout) -> None:
    """As in a second clone, after `dvc pull`."""
    (once.root / "dvc.yaml").write_text("stages: {report: {cmd: x, outs: [reports/results.json]}}", encoding="utf-8")
    once.results.parent.mkdir(parents=True)
    once.results.write_text("{}", encoding="utf-8")
    parent = tracking.open_run(once, asked.params_of(once), "flow calm-otter", {}).run_id
    store = destination(once, Settings())
    assert not store.client.search_registered_models()
    tracking.close_run(once, asked.params_of(once), parent, cached=["report"])
    assert aliases(store) == {"candidate": 1, "champion": 1}
    found = store.client.get_run(parent)
    assert (found.info.status, found.data.tags["registry.version"]) == ("FINISHED", "swirl-policy/1")


@pytest.mark.slow
def test_a_policy_waits_for_a_registry_that_does_not_answer(once: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second try there is no registered model yet, and another process makes it just then."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    store, run = store_of(once)
    store.client.set_tag(run, TO_REGISTER, dvc_hash(once.model("swirl")))
    store.client.create_registered_model(NAME)
    failures = [MlflowException("timed out"), MlflowException("not found", RESOURCE_DOES_NOT_EXIST)]
    asked_for = store.client.get_registered_model

    def answer(name: str) -> Any:
        if failures:
            raise failures.pop(0)
        return asked_for(name)

    monkeypatch.setattr(store.client, "get_registered_model", answer)
    delivery = Delivery(once, Settings(), store)
    with pytest.raises(MlflowException, match="timed out"):
        delivery.register(run)
    assert TO_REGISTER in store.client.get_run(run).data.tags
    delivery.register(run)
    assert (failures, delivery.refused(), aliases(store)) == ([], [], {"candidate": 1, "champion": 1})
    assert TO_REGISTER not in store.client.get_run(run).data.tags


@pytest.mark.slow
def test_a_policy_that_changed_before_it_was_sent_is_not_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = asked.project(tmp_path)
    asked.predict(layout, "base", 0)
    asked.predict(layout, "swirl", 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    with tracking.stage_run("report", asked.params_of(layout), layout):
        pass
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (layout.model("swirl") / "more.txt").write_text("of another run", encoding="utf-8")
    said: list[str] = []
    assert sync(layout, said.append) == 2
    assert "models/swirl is of another run by now; it is not registered for this one" in said[1]
    assert not destination(layout, Settings()).client.search_registered_models()
