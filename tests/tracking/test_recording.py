"""Tracking writes to a real sqlite store; stages are real processes, started by a real DVC where that matters."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from swirl import tracking
from swirl.config.secrets import plain
from swirl.core import records
from swirl.core.errors import GateError
from swirl.core.layout import Layout
from swirl.core.types import Prediction, Question, Stop
from swirl.mlflow_store.runs import Store, artifact_folder
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import recording_store
from swirl.pipeline.dvc_file import DvcStage, _is_dvc_run, dvc_hash, read_stages, upstream
from swirl.quality.validation import Report, Result, publish
from swirl.tracking.contents import flat
from swirl.tracking.recording import Recorder
from swirl.tracking.summary import changes, run_name
from swirl.tracking.watching import Watcher
from tests.tracking.test_contents import wait_until

PARAMS = {"seed": 7, "filter": {"strategy": "both", "limits": [1, 2]}, "judge": {"url": "https://me:pw@host/v1"}}
DVC_YAML = """
vars:
  - run: python
stages:
  judge:
    cmd: ${run} x.py
    params: [judge]
    outs: [data/verdicts]
    metrics:
      - reports/metrics/judge.json: {cache: false}
  filter:
    cmd: ${run} x.py
    deps: [data/verdicts/table]
    params: [seed, filter]
    outs: [data/steps]
  train:
    foreach: [sft, swirl]
    do:
      cmd: ${run} x.py --item ${item}
      deps: [data/steps, models/base]
      outs:
        - models/${item}
      plots:
        - reports/series/train-${item}.json: {cache: false}
  evaluate:
    foreach: {base: models/base, swirl: models/swirl}
    do:
      cmd: ${run} x.py
      deps: ["${item}"]
      outs: ["reports/evaluation/${key}.json"]
  probe:
    matrix: {size: [1, 2], kind: [a]}
    cmd: ${run}
    outs: ["reports/probe-${item.size}${item.kind}.json"]
"""


@pytest.fixture
def layout(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    for name in ("SWIRL_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    return Layout(tmp_path)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def runs(layout: Layout) -> dict[str, Any]:
    """All runs by name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{layout.root}/mlflow.db")
    experiment = client.get_experiment_by_name("swirl")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def artifacts(layout: Layout, run: Any) -> set[str]:
    root = layout.root / "mlartifacts" / run.info.run_id / "artifacts"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_stages_are_those_that_dvc_expands(layout: Layout) -> None:
    stages = read_stages(layout.root, PARAMS)
    assert list(stages) == [
        *("judge", "filter", "train@sft", "train@swirl", "evaluate@base", "evaluate@swirl", "probe@1-a", "probe@2-a")
    ]
    assert stages["judge"] == DvcStage("judge", ("judge",), (), ("data/verdicts", "reports/metrics/judge.json"))
    assert stages["train@swirl"].outs == ("models/swirl", "reports/series/train-swirl.json")
    assert (stages["train@swirl"].id, stages["train@swirl"].item) == ("train-swirl", "swirl")
    assert stages["evaluate@swirl"].deps == ("models/swirl",)
    assert stages["probe@2-a"].outs == ("reports/probe-2a.json",)
    assert upstream("evaluate@swirl", stages) == ["judge", "filter", "train@swirl"]
    assert upstream("evaluate@base", stages) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/venv/bin/python /venv/bin/dvc repro", True),
        ("python -m dvc repro -s filter", True),
        ("dvc -q exp run -S seed=1", True),
        ("/venv/bin/python -m dvc exp exec-run --infofile run.json", True),
        ("dvc exp show", False),
        ("dvc status repro", False),
        ("python repro dvc", False),
    ],
)
def test_dvc_is_known_by_its_command_line(command: str, expected: bool) -> None:
    assert _is_dvc_run(command.split()) is expected


def test_parameters_are_flat_and_without_secrets() -> None:
    secret = {"judge": {"api_key": "sk-1", "url": "https://me:pw@host/v1", "token": ""}, "hf": [{"password": "p"}]}
    assert flat(plain(secret)) == {
        "judge.api_key": "(not logged)",
        "judge.url": "https://***@host/v1",
        "judge.token": "",
        "hf": '[{"password": "(not logged)"}]',
    }
    assert flat(PARAMS, ("filter", "seed")) == {"seed": "7", "filter.strategy": "both", "filter.limits": "[1, 2]"}


def test_a_stage_is_logged_from_its_files(layout: Layout) -> None:
    with tracking.stage_run("train-swirl", PARAMS, layout) as recorded:
        write(layout.model("swirl") / "config.json", {"layers": 2})
        start = {"start.development.reward": 0.25, "start.golden.process_label": 0.5}  # the curves begin with these
        write(layout.metrics("train-swirl"), {**start, "reward": 0.75, "kl": 0.5, "note": None})
        flight = {"rollout.in_flight.used": 16, "rollout.in_flight.asked": 64, "rollout.in_flight.out_of_memory": 1.0}
        timing = {"seconds": 61.5, "peak_rss_mb": 900.0, "started": time.time()}
        write(layout.timing("train-swirl"), {**timing, **flight})
        write(layout.series("train-swirl"), [{"step": 10, "reward": 0.25}, {"step": 20, "reward": 0.75}])
    found = runs(layout)
    run, parent = found["train@swirl"], found["stage train-swirl"]
    assert (run.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert recorded.page == f"http://127.0.0.1:5000/#/experiments/1/runs/{parent.info.run_id}"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {key: run.data.tags[key] for key in ("stage", "item", "cached")} == {
        "stage": "train@swirl",
        "item": "swirl",
        "cached": "false",
    }
    assert parent.data.params["judge.url"] == "https://***@host/v1"
    assert run.data.metrics == {"train/reward": 0.75, "train/kl": 0.5, "seconds": 61.5, "peak_rss_mb": 900.0, **flight}
    assert artifacts(layout, run) == {
        "models/swirl/config.json",
        "reports/metrics/train-swirl.json",
        "reports/series/train-swirl.json",
    }


def test_an_earlier_timing_is_not_that_of_this_run(layout: Layout) -> None:
    write(layout.timing("index"), {"seconds": 61.5, "peak_rss_mb": 900.0, "started": time.time() - 60})
    with pytest.raises(SystemExit), tracking.stage_run("index", PARAMS, layout):
        sys.exit(0)  # which counts as success, and writes no timing
    run = runs(layout)["index"]
    assert (run.info.status, run.data.metrics) == ("FINISHED", {})


def test_a_machine_that_cannot_be_watched_costs_its_metrics_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    def broken(monitor: SystemMetricsMonitor) -> None:
        raise OSError("no /proc here")

    monkeypatch.setattr(SystemMetricsMonitor, "start", broken)
    settings = Settings(system_metrics=0.2)
    recorder = Recorder(layout, PARAMS, recording_store(layout, settings))
    run = recorder.start_stage("index", time.time())
    watcher = Watcher(layout, settings, recorder.store, run)
    watcher.stop()
    recorder.end_stage(run, {"status": "FINISHED", "error": ""}, watcher.live)
    assert recorder.store.refused == ["the machine was not watched: no /proc here"]
    assert runs(layout)["index"].info.status == "FINISHED"


def test_series_keep_their_steps(layout: Layout) -> None:
    rows = [{"step": step, "loss": step / 4} for step in range(1, 1201)]
    with tracking.stage_run("train-sft", {**PARAMS, "tracking": {"max_model_mb": 0.000001}}, layout):
        write(layout.series("train-sft"), rows)
        write(layout.model("sft") / "config.json", {"layers": 2})
    from mlflow.tracking import MlflowClient

    run = runs(layout)["train@sft"]
    history = MlflowClient(f"sqlite:///{layout.root}/mlflow.db").get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 4) for step in range(1, 1201)]
    assert run.data.tags["models/sft"] == f"not copied: {dvc_hash(layout.model('sft'))}"
    assert artifacts(layout, run) == {"reports/series/train-sft.json"}


def test_a_failure_passes_through_and_marks_child_and_parent(layout: Layout) -> None:
    write(layout.metrics("judge"), {"stale": 1.0})
    os.utime(layout.metrics("judge"), (1, 1))
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", PARAMS, layout):
        raise ValueError("row 3 of https://me:pw@host is broken: srv --api-key sk-1 ended")
    found = runs(layout)
    run, parent = found["judge"], found["stage judge"]
    assert (run.info.status, parent.info.status) == ("FAILED", "FAILED")
    said = "ValueError: row 3 of https://***@host is broken: srv --api-key (not logged) ended"
    assert (run.data.tags["error"], parent.data.tags["error"]) == (said, f"judge: {said}")
    assert "stale" not in run.data.metrics


def test_the_error_of_a_flow_is_recorded_without_secrets(layout: Layout) -> None:
    recorder = Recorder(layout, PARAMS, recording_store(layout, Settings()))
    parent = recorder.open_parent("flow happy-owl", {})
    recorder.close_parent(parent, "stage judge failed:\nAPI_KEY=sk-1 is refused", killed=False, cached=())
    found = recorder.store.client.get_run(parent).data.tags["error"]
    assert found == "stage judge failed:\nAPI_KEY=(not logged) is refused"


@pytest.mark.slow
def test_a_stage_that_went_well_at_its_second_try_leaves_no_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracking.open_run(layout, PARAMS, "flow happy-owl", {}).run_id
    monkeypatch.setenv("SWIRL_RUN_ID", parent)
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", PARAMS, layout):
        raise ValueError("row 3")
    failed = runs(layout)["flow happy-owl"]
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "judge: ValueError: row 3")
    with tracking.stage_run("judge", PARAMS, layout):
        pass
    tracking.close_run(layout, PARAMS, parent)
    run = runs(layout)["flow happy-owl"]
    assert (run.info.status, "error" in run.data.tags) == ("FINISHED", False)


@pytest.mark.parametrize(
    ("second", "status", "error"), [("judge", "FINISHED", None), ("filter", "FAILED", "judge: row 3")]
)
def test_a_parent_is_as_the_last_try_of_each_stage(
    second: str, status: str, error: str | None, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs while a stage runs. A stage that failed may be tried again; another one does not make up for it."""
    monkeypatch.setattr("swirl.tracking.recording.invocation", lambda: "42-1.0")
    recorder = Recorder(layout, PARAMS, recording_store(layout, Settings()))
    first = recorder.start_stage("judge", 2.0)
    recorder.end_stage(first, {"status": "FAILED", "error": "row 3"}, -1)
    again = recorder.start_stage(second, 4.0)
    assert again.parent == first.parent

    def parent() -> tuple[str, str | None]:
        run = recorder.store.client.get_run(first.parent)
        return run.info.status, run.data.tags.get("error")

    assert parent() == ("RUNNING", error)
    recorder.end_stage(again, {"status": "FINISHED", "error": ""}, -1)
    assert parent() == (status, error)


@pytest.mark.parametrize(("failed", "late"), [(True, "FINISHED"), (False, "FAILED")])
def test_what_is_recorded_after_the_end_of_a_flow_does_not_change_how_it_ended(
    failed: bool, late: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow was stopped, and its end was recorded before that of its last stage."""
    recorder = Recorder(layout, PARAMS, recording_store(layout, Settings()))
    parent = recorder.open_parent("flow happy-owl", {})
    monkeypatch.setenv("SWIRL_RUN_ID", parent)
    stage = recorder.start_stage("judge", 2.0)
    recorder.close_parent(parent, "it was stopped" if failed else "", killed=False, cached=())
    before = recorder.store.client.get_run(parent)
    recorder.end_stage(stage, {"status": late, "error": "row 3" if late == "FAILED" else ""}, -1)
    after = recorder.store.client.get_run(parent)
    assert (after.info.status, after.info.end_time) == ("FAILED" if failed else "FINISHED", before.info.end_time)
    assert after.data.tags.get("error") == ("it was stopped" if failed else None)
    assert recorder.store.client.get_run(stage.id).info.status == late


def test_the_end_of_a_flow_is_recorded_while_no_stage_changes_its_run(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(layout, PARAMS, recording_store(layout, Settings()))
    parent = recorder.open_parent("flow happy-owl", {})
    monkeypatch.setenv("SWIRL_RUN_ID", parent)
    recorder.start_stage("judge", 2.0)
    held, end = list[bool](), Store.end

    def ended(store: Store, run_id: str, status: str, at: float) -> None:
        with (layout.root / ".swirl/tracking/recording.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(False)
            except BlockingIOError:
                held.append(True)
        end(store, run_id, status, at)

    monkeypatch.setattr(Store, "end", ended)
    recorder.close_parent(parent, "it was stopped", killed=True, cached=())
    assert held == [True, True]  # of the stage, and of the flow
    assert recorder.store.client.get_run(parent).info.status == "KILLED"


STAGE = """
    import json, os, sys, time
    from pathlib import Path
    from swirl import tracking
    from swirl.core.layout import Layout
    name, seconds = sys.argv[1], float(sys.argv[2])
    with tracking.stage_run(name, {"seed": 7}, Layout(Path.cwd())):
        print("running", flush=True)
        time.sleep(seconds)
        path = Path(f"reports/metrics/{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"n": 1.5}))
"""


def recorded(layout: Layout) -> list[Any]:
    """The stages of which a recorder has made a run."""
    with sqlite3.connect(layout.root / "mlflow.db") as database:
        return list(database.execute("SELECT run_uuid FROM runs WHERE name = 'judge'"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_stage_is_marked_as_killed(number: signal.Signals, layout: Layout) -> None:
    """What ends a machine asks the recorder to end, too."""
    script = layout.root / "stage.py"
    script.write_text(textwrap.dedent(STAGE), encoding="utf-8")
    command = [sys.executable, str(script), "judge", "60"]
    process = subprocess.Popen(command, cwd=layout.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    (worker,) = psutil.Process(process.pid).children()
    if number == signal.SIGTERM:
        wait_until(lambda: bool(recorded(layout)))
        worker.send_signal(number)
    process.send_signal(number)
    process.wait()

    process.stderr.read()  # returns when the worker, which also holds the pipe, ends
    found = runs(layout)
    assert (found["judge"].info.status, found["stage judge"].info.status) == ("KILLED", "KILLED")


FORKED = """
    import os, sys, time
    from pathlib import Path
    import psutil
    from swirl import tracking
    from swirl.core.layout import Layout
    with tracking.stage_run("judge", {"seed": 7}, Layout(Path.cwd())):
        (worker,) = psutil.Process().children()
        forked = os.fork()
        if forked:
            print(worker.pid, forked, flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("gone", [False, True])
def test_a_worker_ends_with_its_stage_though_another_process_holds_its_line(layout: Layout, gone: bool) -> None:
    """Also where the project's folder is gone, as after a test: nothing is left to record in then."""
    (layout.root / "stage.py").write_text(textwrap.dedent(FORKED), encoding="utf-8")
    command = [sys.executable, str(layout.root / "stage.py")]
    stage = subprocess.Popen(command, cwd=layout.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert stage.stdout is not None
    worker, forked = (psutil.Process(int(word)) for word in stage.stdout.readline().split())
    try:
        while gone and layout.root.exists():
            shutil.rmtree(layout.root, ignore_errors=True)
        stage.kill()
        stage.wait()
        worker.wait(300)
        assert forked.is_running()
        if not gone:
            found = runs(layout)
            assert (found["judge"].info.status, found["stage judge"].info.status) == ("KILLED", "KILLED")
    finally:
        forked.kill()


@pytest.mark.slow
def test_stages_at_once_write_to_one_store(layout: Layout) -> None:
    """Each has a worker of its own, which measures the machine all the time."""
    script = layout.root / "stage.py"
    measured = STAGE.replace('{"seed": 7}', '{"seed": 7, "tracking": {"system_metrics": 0.01}}')
    script.write_text(textwrap.dedent(measured), encoding="utf-8")
    parent = tracking.open_run(layout, PARAMS, "flow happy-owl", {}).run_id
    started = []
    for name in ("judge", "filter", "train-sft"):
        command, env = [sys.executable, str(script), name, "1"], {**os.environ, "SWIRL_RUN_ID": parent}
        started.append(subprocess.Popen(command, cwd=layout.root, env=env, stderr=subprocess.PIPE, text=True))
    assert [process.communicate()[1] for process in started] == ["", "", ""]
    found = runs(layout)
    assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(
        ("flow happy-owl", "judge", "filter", "train@sft"), "FINISHED"
    )
    assert [found[name].data.metrics.get(key) for name, key in (("judge", "n"), ("train@sft", "train/n"))] == [1.5, 1.5]
    assert len({run.data.tags.get("mlflow.parentRunId") for run in found.values()} - {None}) == 1


@pytest.mark.slow
def test_two_stages_of_one_dvc_share_a_parent_that_lists_cached_ones(layout: Layout) -> None:
    """In the second `dvc repro`, `one` is cached and runs nothing; so is `evaluate@base`, which is compared with."""
    root, python = layout.root, sys.executable
    (root / "stage.py").write_text(textwrap.dedent(STAGE), encoding="utf-8")
    entry = "  {0}:\n    cmd: {1} stage.py {2} 0\n    deps: [{3}]\n    metrics: [reports/metrics/{2}.json]\n"
    each = (
        f"  evaluate:\n    foreach: [base]\n    do:\n      cmd: {python} stage.py evaluate-${{item}} 0\n"
        "      deps: [reports/metrics/one.json]\n      metrics: ['reports/metrics/evaluate-${item}.json']\n"
    )
    chain = [
        ("one", "stage.py"),
        ("two", "reports/metrics/one.json, reports/metrics/evaluate-base.json"),
        ("three", "reports/metrics/two.json"),
    ]
    (root / "dvc.yaml").write_text(
        "stages:\n" + each + "".join(entry.format(name, python, name, dep) for name, dep in chain), encoding="utf-8"
    )
    env = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for command in ("init -q --no-scm", "repro -q evaluate@base"):
        subprocess.run([python, "-m", "dvc", *command.split()], cwd=root, env=env, check=True)
    first = runs(layout)["dvc repro"].info.run_id
    subprocess.run([python, "-m", "dvc", "repro", "-q"], cwd=root, env=env, check=True)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    experiment = client.get_experiment_by_name("swirl")
    assert experiment is not None
    by_parent: dict[str, dict[str, str]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent:
            assert (run.data.metrics.popitem()[1], run.info.status) == (1.5, "FINISHED")
            by_parent.setdefault(parent, {})[run.data.tags["stage"]] = run.data.tags["cached"]
    second = next(parent for parent in by_parent if parent != first)
    assert by_parent == {
        first: {"one": "false", "evaluate@base": "false"},
        second: {"evaluate@base": "true", "two": "false", "three": "false"},
    }
    run = client.get_run(second)
    assert (run.info.status, run.data.tags["cached_stages"]) == ("FINISHED", "evaluate@base, one")
    note = run.data.tags["mlflow.note.content"]
    assert [part for part in note.split("\n\n") if not part.startswith("- ")] == [
        *("Started by `dvc repro`.", "### Runs", "### Up to date", "Not run again: evaluate@base, one.")
    ]
    assert [line.split("]")[0] for line in note.splitlines() if line.startswith("- ")] == [
        *("- [two", "- [evaluate@base", "- [three")
    ]


def gate(rows: int) -> Report:
    """The report of the steps gate on so many rows, of which it wants at least ten."""
    result = Result("steps", "expect_table_row_count", "", rows >= 10, int(rows < 10), 1, rows, (), "there are ten")
    return Report("steps", {"steps": rows}, (result,), {"good_share": 0.5})


def test_a_gate_that_fails_leaves_its_report_in_its_run(layout: Layout) -> None:
    (layout.root / "dvc.yaml").write_text(
        "stages: {check_steps: {cmd: x, outs: [reports/quality/steps.json]}}", encoding="utf-8"
    )
    publish(gate(rows=12), layout)
    with pytest.raises(GateError), tracking.stage_run("check_steps", PARAMS, layout):
        publish(gate(rows=3), layout)
    run = runs(layout)["check_steps"]
    assert (run.info.status, run.data.tags["gate"]) == ("FAILED", "failed")
    assert run.data.metrics == {
        "gate.steps.success": 0.0,
        "gate.steps.rows.steps": 3.0,
        "gate.steps.statistics.good_share": 0.5,
    }
    assert artifacts(layout, run) >= {"reports/quality/steps.failed.json"}


def test_the_report_of_a_gate_that_failed_before_is_not_that_of_this_run(layout: Layout) -> None:
    with pytest.raises(GateError):
        publish(gate(rows=3), layout)
    os.utime(layout.root / ".swirl/quality/steps.failed.json", (1, 1))
    with pytest.raises(OSError, match="gone"), tracking.stage_run("check_steps", PARAMS, layout):
        raise OSError("gone")
    run = runs(layout)["check_steps"]
    assert (run.info.status, "gate" in run.data.tags) == ("FAILED", False)


def test_evaluations_and_gates_become_metrics(layout: Layout) -> None:
    write(layout.metrics("evaluate-swirl"), {"mini-gsm8k.accuracy": 0.5, "mini-gsm8k.without_tools.accuracy": 0.25})
    publish(gate(rows=12), layout)
    write(layout.root / ".swirl/quality/report.failed.json", {"gate": "report", "success": False})  # of an earlier run
    (layout.root / "dvc.yaml").write_text(
        "stages: {evaluate@swirl: {cmd: x, desc: One model, outs: [reports/quality/steps.json]}}", encoding="utf-8"
    )
    with tracking.stage_run("evaluate-swirl", PARAMS, layout):
        pass
    run = runs(layout)["evaluate@swirl"]
    assert run.data.metrics == {
        "accuracy/mini-gsm8k": 0.5,
        "accuracy_without_tools/mini-gsm8k": 0.25,
        "gate.steps.success": 1.0,
        "gate.steps.rows.steps": 12.0,
        "gate.steps.statistics.good_share": 0.5,
    }
    assert (run.data.tags["gate"], run.data.tags["mlflow.note.content"]) == ("passed", "One model")


def results(layout: Layout) -> None:
    """Writes the results of two benchmarks and three models, with the predictions of two of them."""
    right = {"base": (0.25, 0.5), "sft": (0.5, 0.75), "swirl": (0.75, 1.0)}
    scores = [
        {"benchmark": benchmark, "model": model, "with_tools": tools, "n": 4, "accuracy": accuracy if tools else 0.0}
        for model, accuracies in right.items()
        for benchmark, accuracy in zip(("mini-gsm8k", "mini-hotpotqa"), accuracies, strict=True)
        for tools in (True, False)
    ]
    seen = {"swirl": {"kept": 9, "visited": 6, "passes": 0.7}, "sft": {"kept": 9, "visited": 9, "passes": 2}}
    judge = {"heldout.accuracy": 0.875, "heldout.auc": 0.9375, "heldout.n": 1423}
    filters = {"trajectories": 8, "kept": {"trajectories": 2}}
    write(layout.results, {"scores": scores, "reward_model": judge, "coverage": seen, "filters": filters})
    write(layout.metrics("train-swirl"), {"kl": 0.125, "loss": 1.0})
    asked = [Question(f"q{number}", "mini-gsm8k", "evaluation", "How many?", ("1",), 1, ()) for number in range(8)]
    records.save(asked, Question, layout.questions)
    for model, count in (("base", 1), ("swirl", 7)):
        rows = [
            Prediction(
                *(f"q{number}", "mini-gsm8k", model, True, "", number < count, 0.0, 0.0, 0.0, 0.0, None, None),
                *(2, 0, Stop.ANSWERED, f"t{number}"),
            )
            for number in range(8)
        ]
        records.save(rows, Prediction, layout.predictions(model))
    place, link = '<p id="provenance" data-results=""></p>', '<a href="browser/index.html#t=1">All</a>'
    layout.page.write_text(f"<h1>Results</h1>{place}{link}", encoding="utf-8")


def test_a_flow_for_which_nothing_had_to_run_is_one_run_with_the_headline_and_the_report(layout: Layout) -> None:
    results(layout)
    (layout.root / "dvc.yaml").write_text(
        "stages:\n"
        "  evaluate: {foreach: [base, swirl], do: {cmd: x, outs: ['data/predictions/${item}']}}\n"
        "  report: {cmd: x, outs: [reports/results.json, reports/index.html]}\n"
        "  gone: {cmd: x, outs: [nowhere]}\n",
        encoding="utf-8",
    )
    parent = tracking.open_run(layout, PARAMS, "flow happy-owl", {}).run_id
    tracking.close_run(layout, PARAMS, parent, cached=["evaluate@base", "evaluate@swirl", "report", "gone"])
    ((name, run),) = runs(layout).items()
    assert (name, run.info.status) == ("flow happy-owl", "FINISHED")
    assert run.data.tags["cached_stages"] == "evaluate@base, evaluate@swirl, report"
    assert run.data.metrics == {
        "accuracy/base": 0.375,
        "accuracy/sft": 0.625,
        "accuracy/swirl": 0.875,
        "accuracy_swirl/mini-gsm8k": 0.75,
        "accuracy_swirl/mini-hotpotqa": 1.0,
        "difference/swirl-base": 0.5,
        "difference/swirl-base.p": 0.03125,  # six questions that only SWiRL got right, none the other way: 2 / 2^6
        "difference/swirl-sft": 0.25,
        "judge/error": 0.125,
        "judge/auc": 0.9375,
        "filter/kept_share": 0.25,
        "train/kl": 0.125,
    }
    assert run.data.tags["mlflow.note.content"].split("\n\n") == [
        "Started by `flow happy-owl`.",
        "### Data",
        "RL visited 6 states, 67% of the kept 9; SFT read all twice.",
        "### Up to date",
        "Nothing had to run; the results are those of before: evaluate@base, evaluate@swirl, report.",
    ]
    assert artifacts(layout, run) == {"report/index.html"}
    page = (artifact_folder(run) / "report/index.html").read_text(encoding="utf-8")
    assert re.search(r'<p id="provenance" data-results=""><span> These are your own results, .*</span></p>All$', page)


def test_a_parent_run_is_named_by_what_changed(layout: Layout) -> None:
    """The presets are those of this repository."""
    from swirl.config import presets

    root = Path(__file__).resolve().parents[2]
    assert changes(layout.root, PARAMS) is None
    params = presets.tree(root, "mini")
    assert (changes(root, params), run_name([])) == ([], "default")
    params = {**params, "seed": 1, "filter": {**params["filter"], "strategy": "outcome"}, "tracking": {"traces": 0}}
    assert run_name(changes(root, params) or []) == "filter=outcome, seed 1"
    params = presets.tree(root, "smoke")
    params["train"]["swirl"]["lr"] = 0.5
    assert run_name(changes(root, params) or []) == "smoke, train.swirl.lr=0.5"
    assert run_name(["a=1", "b=2", "c=3", "d=4", "e=5", "seed 6"]) == "a=1, b=2, c=3, d=4, 2 more"


def test_a_parent_links_its_runs_and_tells_its_settings(layout: Layout) -> None:
    shutil.copytree(Path(__file__).resolve().parents[2] / "presets", layout.root / "presets")
    from swirl.config import presets

    params = {**presets.tree(layout.root, "mini"), "seed": 3}
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", params, layout):
        raise ValueError("row 3")
    found = runs(layout)
    experiment, child = found["judge"].info.experiment_id, found["judge"].info.run_id
    assert found["stage judge: seed 3"].data.tags["mlflow.note.content"] == (
        "Started by `stage judge`, with `seed 3`.\n\n### Runs\n\n"
        f"- [judge](#/experiments/{experiment}/runs/{child}) (failed)"
    )
    from mlflow.tracking import MlflowClient

    described = MlflowClient(f"sqlite:///{layout.root}/mlflow.db").get_experiment(experiment)
    assert described.tags["mlflow.note.content"].startswith("Runs of SWiRL's pipeline: step-wise reinforcement")


@pytest.mark.slow
def test_a_server_that_is_down_costs_one_warning(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is asked twice, and twice more at the end at most, instead of as often as MLflow would on its own."""
    asked: list[int] = []

    def hang_up(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                asked.append(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=[server], daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:pw@127.0.0.1:{server.getsockname()[1]}")
        with tracking.stage_run("judge", PARAMS, layout) as recorded:
            write(layout.metrics("judge"), {"n": 1})
        server.shutdown(socket.SHUT_RDWR)
    said = capfd.readouterr().err
    assert recorded.page == ""
    assert json.loads(layout.metrics("judge").read_text(encoding="utf-8")) == {"n": 1}
    assert said.startswith("warning: stage judge is not recorded in MLflow: ")
    assert (said.count("\n"), "pw" in said, 2 <= len(asked) <= 4) == (1, False, True)
