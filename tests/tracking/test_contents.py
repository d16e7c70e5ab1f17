"""What tracking records of a stage: traces, data sets, hashes of dependencies, checkpoints, system metrics."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from swirl import tracking
from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import OUTCOME, Action, Observation, Prediction, Question, Step, Stop, Trajectory, Verdict
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import recording_store
from swirl.models.flops import Work
from swirl.pipeline.dvc_file import DvcStage, dvc_hash, read_stages
from swirl.rl.pace import SpeedLog
from swirl.traces.mlflow_traces import trace_of
from swirl.traces.samples import Sample, _choose, read_samples
from swirl.tracking.contents import by_measure, grouped
from swirl.tracking.inputs import datasets

DVC_YAML = """
stages:
  synthesize: {cmd: x, deps: [data/questions], outs: [data/trajectories]}
  judge:
    cmd: x
    deps: [src/swirl/a.py, src/swirl/judging, data/questions, data/trajectories, src/swirl/prompts/judge]
    outs: [data/verdicts]
  train:
    foreach: [swirl]
    do: {cmd: x, deps: [data/verdicts], params: [train], outs: ["models/${item}"]}
  evaluate:
    foreach: {base: a, swirl: b}
    do: {cmd: x, deps: [data/questions], outs: ["data/predictions/${key}"]}
"""
PARAMS: dict[str, Any] = {
    "train": {"swirl": {"states": 4, "samples": 5}},
    "tracking": {"experiment": "mine", "traces": 3, "system_metrics": 0.2},
}


@pytest.fixture
def layout(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWIRL_RUN_ID", "pending-one-flow")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    return Layout(tmp_path)


def client(layout: Layout) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{layout.root}/mlflow.db")


def runs(layout: Layout) -> dict[str, Any]:
    """All runs by name."""
    mlflow = client(layout)
    experiment = mlflow.get_experiment_by_name("mine")
    return {run.info.run_name: run for run in mlflow.search_runs([experiment.experiment_id])}


def step(index: int, kind: str, text: str, payload: str, observation: str = "", error: bool = False) -> Step:
    seen = (Observation(observation, error, kind, payload),) if observation else ()
    return Step(index, Action(kind, text, payload), seen, (1,) * (index + 2), (), ())


def trajectory(number: int, benchmark: str, stop: Stop, model: str = "base") -> Trajectory:
    """A call that fails, and an answer."""
    steps = (
        step(0, "calculate", "So <math_exp>6/0</math_exp>", "6/0", "error: division by zero", error=True),
        step(1, "answer", "<answer>42</answer>", "42"),
    )
    one = f"{benchmark}/{number}"
    return Trajectory(one, f"q{number}", benchmark, 0, model, 1, (5,), steps, stop, "")


def prediction(made: Trajectory, correct: bool) -> Prediction:
    f1 = float(correct)
    name, question = made.benchmark, made.question_id
    return Prediction(
        question, name, "swirl", True, made.answer, correct, f1, f1, f1, f1, 0.5, None, 2, 0, made.stop, made.id
    )


def fill(layout: Layout) -> list[Trajectory]:
    """Writes trajectories of two benchmarks: one answer is right; one step has a verdict with reasons, another none."""
    made = [
        trajectory(0, "mini-gsm8k", Stop.ANSWERED),
        trajectory(1, "mini-gsm8k", Stop.STEP_LIMIT),
        trajectory(2, "mini-hotpotqa", Stop.ANSWERED),
    ]
    questions = [Question(f"q{n}", made[n].benchmark, "train", f"What is {n}?", ("42",), 1, ()) for n in range(3)]
    records.save(questions, Question, layout.questions)
    records.save(made, Trajectory, layout.trajectories)
    verdicts = [
        Verdict("mini-gsm8k/0", 0, False, 0.25, "nobody divides by zero", "reader"),
        Verdict("mini-gsm8k/0", 1, None, None, "", "reader"),
        Verdict("mini-gsm8k/0", OUTCOME, True, 1.0, "", "match"),
        Verdict("mini-gsm8k/1", OUTCOME, False, 0.0, "", "match"),
    ]
    records.save(verdicts, Verdict, layout.verdicts)
    return made


def test_a_measure_of_all_benchmarks_is_a_group() -> None:
    assert by_measure("mini-gsm8k.ci_low") == "ci_low/mini-gsm8k"
    assert by_measure("mini-gsm8k.without_tools.ci_low") == "ci_low_without_tools/mini-gsm8k"
    assert by_measure("mini-gsm8k.hops_2.accuracy") == "accuracy_by_hops/mini-gsm8k.hops_2"
    assert by_measure("mini-gsm8k.mean_of_hops.accuracy") == "accuracy_by_hops/mini-gsm8k.mean_of_hops"
    assert by_measure("parameters") == "parameters"


def test_curves_are_in_three_groups() -> None:
    assert grouped("kl") == "train/kl"
    assert grouped("development.reward") == "development/reward"
    assert grouped("golden.mini-gsm8k.accuracy") == "oracle/mini-gsm8k.accuracy"


def test_a_sample_is_drawn_from_every_benchmark_by_ids_alone() -> None:
    rows = [(f"a{n}", "a") for n in range(9)] + [("b1", "b"), ("b2", "b")]
    drawn = _choose(rows, 5)
    assert [one[0] for one in drawn] == ["a", "b", "a", "b", "a"]
    assert drawn == _choose(rows[::-1], 5) == _choose(rows, 99)[:5]
    assert [one for one in drawn if one[0] == "a"] != ["a0", "a1", "a2"]
    assert sorted(_choose(rows, 99)) == sorted(one for one, _ in rows)


def test_a_trace_shows_every_call_of_a_step() -> None:
    seen = (Observation("7", False, "calculate", "3+4"), Observation("error: no", True, "search", "who"))
    made = trajectory(0, "mini-gsm8k", Stop.ANSWERED)
    several = replace(made, steps=(replace(made.steps[0], observations=seen), made.steps[1]))
    sample = Sample(several, None, True, {}, {})
    _, span, _ = trace_of(sample, "judge", "r", "0", 0.0).data.spans
    asked = {"action": "So <math_exp>6/0</math_exp>", "tool": "calculator, search", "call": "3+4\nwho"}
    assert (span.name, span.inputs, span.outputs) == ("calculator", asked, {"observation": "7\nerror: no"})
    assert span.status.description == "the tool answered with an error"


@pytest.mark.slow
def test_synthesised_trajectories_become_traces_when_they_are_judged(layout: Layout) -> None:
    from mlflow.entities import SpanType

    with tracking.stage_run("synthesize", PARAMS, layout):
        fill(layout)
    with tracking.stage_run("judge", PARAMS, layout):
        fill(layout)
    found, mlflow = runs(layout), client(layout)
    where = [found["judge"].info.experiment_id]
    wanted = "tags.benchmark = 'mini-gsm8k' AND tags.correct = 'true' AND tags.stop = 'answered'"
    traces = mlflow.search_traces(locations=where, filter_string=wanted)
    assert len(mlflow.search_traces(locations=where)) == 3
    assert [trace.info.tags["trajectory"] for trace in traces] == ["mini-gsm8k/0"]
    root, call, answer = traces[0].data.spans
    assert (root.span_type, root.inputs) == (SpanType.AGENT, {"messages": [{"role": "user", "content": "What is 0?"}]})
    assert root.outputs == {"choices": [{"message": {"role": "assistant", "content": "42"}}]}
    assert (call.parent_id, call.span_type, call.name) == (root.span_id, SpanType.TOOL, "calculator")
    assert [one.start_time_ns - root.start_time_ns for one in (root, call, answer)] == [0, 1, 2]
    assert all(one.end_time_ns == one.start_time_ns for one in (root, call, answer))
    assert call.inputs == {"action": "So <math_exp>6/0</math_exp>", "tool": "calculator", "call": "6/0"}
    assert call.outputs == {"observation": "error: division by zero"}
    assert call.attributes["verdict.good"] is False
    assert call.attributes["verdict.rationale"] == "nobody divides by zero"
    assert (str(call.status.status_code), call.status.description) == (
        "SpanStatusCode.ERROR",
        "the tool answered with an error",
    )
    assert (answer.outputs, answer.attributes["verdict.good"]) == ({"answer": "42"}, None)
    said = {one.name: (one.value, one.rationale, one.span_id) for one in traces[0].info.assessments}
    assert said == {
        "answer": ("42", None, root.span_id),
        "correct": (True, None, root.span_id),
        "good": (False, "nobody divides by zero", call.span_id),
    }
    assert len(mlflow.search_traces(locations=where, run_id=found["judge"].info.run_id)) == 3


@pytest.mark.parametrize(("number", "answer", "assessments"), [(0, "42", 3), (1, "(no answer: step limit)", 2)])
def test_a_trace_sent_twice_is_one(number: int, answer: str, assessments: int, layout: Layout) -> None:
    """The second time as a copy is sent: as the store gives it. It has no duration; only what failed is an error."""
    fill(layout)
    store = recording_store(layout, Settings(experiment="mine"))
    run = store.create("judge", 1.0, {})
    sample = next(one for one in read_samples("judge", layout, 3) if one.trajectory.id == f"mini-gsm8k/{number}")
    store.log_trace(trace_of(sample, "judge", run, store.experiment, 1000.0))
    store.log_trace(*client(layout).search_traces(locations=[store.experiment]))
    assert store.refused == []
    (found,) = client(layout).search_traces(locations=[store.experiment])
    assert (len(found.data.spans), len(found.info.assessments)) == (3, assessments)
    assert (found.info.request_time, found.info.execution_duration) == (1_000_000, None)
    assert (found.info.state, found.info.response_preview) == ("OK", answer)
    assert found.info.token_usage == {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}


def test_evaluated_trajectories_become_traces_with_their_correctness(layout: Layout) -> None:
    made = fill(layout)
    records.save(made, Trajectory, layout.prediction_trajectories("swirl"))
    rows = [prediction(one, one.id == "mini-hotpotqa/2") for one in made]
    records.save(rows, Prediction, layout.predictions("swirl"))
    said = Verdict("mini-gsm8k/0", 0, False, 0.25, "nobody divides by zero", "reader")
    records.save([said], Verdict, layout.prediction_verdicts("swirl"))
    found = read_samples("evaluate@swirl", layout, 20)
    assert [one.verdicts for one in found if one.verdicts] == [{0: said}]
    assert {one.trajectory.id: one.outcome for one in found} == {
        "mini-gsm8k/0": "false",
        "mini-gsm8k/1": "false",
        "mini-hotpotqa/2": "true",
    }
    assert found[0].labels == {"em": 0.0, "f1": 0.0, "process_label_judge": 0.5}
    assert read_samples("evaluate@swirl", layout, 0) == read_samples("filter", layout, 9) == []


def test_hashes_are_those_of_dvc(layout: Layout) -> None:
    """They are compared with those that a real DVC computes."""
    root = layout.root
    fill(layout)
    for name in ("a.py", "judging/b.py", "judging/inner/c.py", "prompts/judge/process.txt"):
        (root / "src/swirl" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "src/swirl" / name).write_text(f"# {name}\n")
    (root / "dvc.yaml").write_text(DVC_YAML.replace("cmd: x", "cmd: 'true'").split("  train:")[0])
    command = [sys.executable, "-m", "dvc"]
    env = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / "site")}
    for arguments in (["init", "-q", "--no-scm"], ["commit", "-q", "--force"]):
        subprocess.run([*command, *arguments], cwd=root, env=env, check=True)
    import yaml

    lock = yaml.safe_load((root / "dvc.lock").read_text())
    expected = {dep["path"]: dep["md5"] for dep in lock["stages"]["judge"]["deps"]}
    assert len(expected) == 5
    assert {path: dvc_hash(root / path) for path in expected} == expected


def test_tables_are_data_sets_that_mlflow_finds_again(layout: Layout) -> None:
    import mlflow.data

    with tracking.stage_run("evaluate-base", PARAMS, layout):
        fill(layout)
    with tracking.stage_run("judge", PARAMS, layout):
        pass
    inputs = {one.dataset.name: one for one in runs(layout)["judge"].inputs.dataset_inputs}
    assert inputs.keys() == {"data/questions/questions", "data/trajectories/trajectories"}
    table = inputs["data/trajectories/trajectories"]
    assert json.loads(table.dataset.profile)["num_rows"] == 3
    assert {"type": "string", "name": "stop", "required": False} in json.loads(table.dataset.schema)["mlflow_colspec"]
    assert [(tag.key, tag.value) for tag in table.tags] == [("mlflow.data.context", "input")]
    assert Path(mlflow.data.get_source(table).load()) == layout.trajectories
    stage = read_stages(layout.root, {})["evaluate@base"]
    assert [one.tags[0].value for one in datasets(stage, layout)] == ["evaluation"]


def test_training_names_its_steps_first_and_golden_labels_as_read_for_the_log_alone(tmp_path: Path) -> None:
    for name in ("corpus/train", "questions/derivations", "questions/questions", "questions/support", "steps/steps"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / f"data/{name}.parquet")
    stage = DvcStage("train@swirl", (), ("data/corpus", "data/questions", "data/steps"), ())
    found = [(one.dataset.name, one.tags[0].value) for one in datasets(stage, Layout(tmp_path))]
    assert found == [
        ("data/steps/steps", "training"),
        ("data/corpus/train", "training"),
        ("data/questions/questions", "training"),
        ("data/questions/derivations", "log only"),
        ("data/questions/support", "log only"),
    ]


def test_checkpoints_and_curves_are_recorded_while_training_runs(layout: Layout) -> None:
    """At its end, the stage removes its checkpoints; the last row of the series comes from its output file."""
    folder = layout.root / ".swirl/checkpoints/train-swirl/mark"
    rows: list[dict[str, Any]] = []
    with tracking.stage_run("train-swirl", PARAMS, layout):
        pace = SpeedLog(layout.pace("train-swirl"), 16e9)
        for number in range(3):
            rows.append({"step": number, "reward": number / 4})
            if number:
                pace.note(number, 0.5, Work(100.0 * number, 4e9))
            partial = folder / "partial"
            partial.mkdir(parents=True)
            (partial / "model.safetensors").write_text(f"weights {number}")
            (partial / "optimizer.safetensors").write_text(f"moments {number}")
            (partial / "record.json").write_text(json.dumps({"series": rows}))
            os.replace(partial, folder / f"step-{number:06d}")
            wait_for_live(layout, number)
        wait_until(lambda: recorded(layout, "metrics", "system/system_memory_usage_megabytes"))
        shutil.rmtree(folder)
        pace.note(3, 0.5, Work(300.0, 4e9))  # an update after the last checkpoint
        path = layout.series("train-swirl")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps([*rows, {"step": 3, "reward": 0.75}]))
        (layout.root / "models/swirl").mkdir(parents=True)
        (layout.root / "models/swirl/config.json").write_text("{}")
    run, mlflow = runs(layout)["train@swirl"], client(layout)
    held = Path(mlflow.download_artifacts(run.info.run_id, "checkpoints"))
    files = {str(path.relative_to(held)): path.read_text() for path in held.rglob("*.safetensors")}
    assert files == {
        f"step-{n:06d}/{name}.safetensors": f"{word} {n}"
        for n in range(3)
        for name, word in (("model", "weights"), ("optimizer", "moments"))
    }
    reward = mlflow.get_metric_history(run.info.run_id, "train/reward")
    assert [(point.step, point.value) for point in reward] == [(n, n / 4) for n in range(4)]
    speed = mlflow.get_metric_history(run.info.run_id, "train/tokens_per_second")
    assert [(point.step, point.value) for point in speed] == [(1, 200.0), (2, 400.0), (3, 600.0)]
    assert [point.value for point in mlflow.get_metric_history(run.info.run_id, "train/mfu")] == [0.5, 0.5, 0.5]
    used = mlflow.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert [point.step for point in used] == list(range(len(used)))
    assert "system/system_memory_usage_megabytes" in run.data.metrics


def wait_for_live(layout: Layout, number: int) -> None:
    """Waits until the worker has recorded the checkpoint, whether or not it has been delivered."""
    wait_until(lambda: bool(list(layout.root.rglob(f"artifacts/checkpoints/step-{number:06d}"))))


def wait_until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorded(layout: Layout, table: str, key: str) -> bool:
    """Whether a worker has written a row with this key to a database of the project."""
    for path in layout.root.rglob("mlflow.db"):
        with contextlib.suppress(sqlite3.OperationalError), sqlite3.connect(path) as database:
            if database.execute(f"SELECT key FROM {table} WHERE key = ?", [key]).fetchone():
                return True
    return False


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that accepts connections and never answers; MLflow would wait for an hour."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
        yield server


@pytest.mark.slow
def test_a_server_that_says_nothing_costs_no_checkpoint_and_holds_up_no_stage(
    layout: Layout, silent: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stage is over, and its checkpoints are gone, long before the first request would end."""
    folder = layout.root / ".swirl/checkpoints/train-swirl/mark"
    with tracking.stage_run("train-swirl", PARAMS, layout):
        checkpoint(folder, 1)
        wait_for_live(layout, 1)
        wait_until(lambda: recorded(layout, "metrics", "system/cpu_utilization_percentage"))
        shutil.rmtree(folder)
        over = time.monotonic()
    assert time.monotonic() - over < 120  # of `delivery.PATIENCE`, 300 s, for a server that has answered once
    assert "`swirl track sync` sends it" in capfd.readouterr().err
    (kept,) = (layout.root / ".swirl/tracking").rglob("step-000001/record.json")
    assert json.loads(kept.read_text()) == {"series": [{"step": 1, "reward": 0.5}]}


def checkpoint(folder: Path, number: int) -> None:
    """Writes a small checkpoint, which appears whole at once."""
    partial = folder / "partial"
    partial.mkdir(parents=True)
    (partial / "record.json").write_text(json.dumps({"series": [{"step": number, "reward": 0.5}]}))
    os.replace(partial, folder / f"step-{number:06d}")


def test_checkpoints_that_are_too_big_are_left_out_and_the_run_says_so(layout: Layout) -> None:
    params = {**PARAMS, "tracking": {"experiment": "mine", "max_model_mb": 1e-6}}
    with tracking.stage_run("train-swirl", params, layout):
        checkpoint(layout.root / ".swirl/checkpoints/train-swirl/mark", 1)
        wait_until(lambda: recorded(layout, "metrics", "train/reward"))
    run = runs(layout)["train@swirl"]
    assert run.data.tags["checkpoints"] == "above tracking.max_model_mb"
    assert run.data.metrics["train/reward"] == 0.5


def test_the_environment_names_the_experiment_as_it_does_for_mlflow(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    with tracking.stage_run("judge", PARAMS, layout):
        pass
    assert client(layout).get_experiment_by_name("mine") is None
    assert client(layout).get_experiment_by_name("theirs") is not None
