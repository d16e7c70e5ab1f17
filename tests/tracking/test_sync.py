"""Nothing is lost when a tracking server is late, dies or comes back empty; servers are real `mlflow server`s."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swirl import tracking
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store.runs import PARENT, Store, artifact_folder
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import destination, locked, recording_store, waiting_room
from swirl.pipeline.dvc_file import dvc_hash
from swirl.tracking.contents import flat
from swirl.tracking.delivery import Delivery, sync
from swirl.tracking.recording import TO_REGISTER, Recorder
from tests.tracking.test_contents import DVC_YAML as CONTENTS
from tests.tracking.test_contents import fill, wait_until

PARAMS = {"seed": 7, "tracking": {"experiment": "late"}}
SOURCE = Path(tracking.__file__).parents[2]
DVC_YAML = "stages: {judge: {cmd: x, params: [seed], outs: [reports/files], metrics: [reports/metrics/judge.json]}}"


class Server:
    """`mlflow server` on 127.0.0.1 over a database that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, env=_environment()
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """Kills its whole process group at once, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def _environment() -> dict[str, str]:
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture
def server(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is not started yet."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_store, folder / "server.db")
    made = Server(folder)
    for name in ("SWIRL_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    yield made
    made.kill()


@pytest.fixture
def layout(tmp_path: Path, empty_store: Path) -> Layout:
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / "params.yaml").write_text(json.dumps(PARAMS), encoding="utf-8")
    return Layout(root)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def runs(server: Server) -> list[Any]:
    """The parent run, then the runs of stages in the order in which they started."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("late")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    return sorted(found, key=lambda run: "mlflow.parentRunId" in run.data.tags)


def swirl(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**_environment(), "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "swirl", *arguments]
    return subprocess.run(command, cwd=layout.root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_pipeline_without_its_server_is_sent_later_as_it_was(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A flow opens its run, two stages run, the flow ends; later runs overwrite the files; then the server starts."""
    before = time.time()
    opened = tracking.open_run(layout, PARAMS, "flow calm-otter", {})
    assert opened.page == ""
    parent = opened.run_id
    monkeypatch.setenv("SWIRL_RUN_ID", parent)
    with tracking.stage_run("judge", PARAMS, layout):
        write(layout.metrics("judge"), {"n": 1})
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", PARAMS, layout):
        raise ValueError("row 3")
    tracking.close_run(layout, PARAMS, parent, "judge failed")
    after = time.time()
    write(layout.metrics("judge"), {"n": 2})
    said = capfd.readouterr().err
    assert said.count("`swirl track sync` sends it") == 4

    refused = swirl(layout, "track", "sync")
    assert refused.returncode == 1
    assert f"cannot send flow calm-otter to {server.uri}" in refused.stderr
    shown = swirl(layout, "track", "sync", "--dry-run")
    assert shown.stdout.splitlines()[-1] == "3 runs waiting"

    server.start()
    sent = swirl(layout, "track", "sync")
    assert (sent.returncode, sent.stdout.splitlines()[-1]) == (0, "3 runs sent"), sent.stderr
    assert "sent flow calm-otter of " in sent.stdout
    assert swirl(layout, "track", "sync").stdout == "0 runs sent\n"
    assert not [path for path in (layout.root / ".swirl/tracking/artifacts").rglob("*") if path.is_file()]

    top, first, second = runs(server)
    assert (top.info.run_name, top.info.status, top.data.tags["error"]) == ("flow calm-otter", "FAILED", "judge failed")
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {top.info.run_id}
    assert first.data.metrics == {"n": 1.0}
    assert second.data.tags["error"] == "ValueError: row 3"
    for run in (top, first, second):
        assert 1000 * before - 1 <= run.info.start_time <= run.info.end_time <= 1000 * after + 1
    from mlflow.tracking import MlflowClient

    logged = MlflowClient(server.uri).download_artifacts(first.info.run_id, "reports/metrics/judge.json", layout.root)
    assert json.loads(Path(logged).read_text(encoding="utf-8")) == {"n": 1}


@pytest.mark.slow
def test_a_server_killed_in_the_middle_gets_the_rest_once(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.stage_run("judge", PARAMS, layout):
        write(layout.metrics("judge"), {"n": 0.5})
        for number in range(12):
            write(layout.root / f"reports/files/{number}.json", number)
    for number in range(12):
        write(layout.root / f"reports/files/{number}.json", "of a later run")
    server.start()
    log_file, done = Store.log_file, 0

    def kill_at_the_seventh(store: Store, run_id: str, path: Path, folder: str) -> None:
        nonlocal done
        done += 1
        if done == 7:
            server.kill()
        log_file(store, run_id, path, folder)

    monkeypatch.setattr(Store, "log_file", kill_at_the_seventh)
    with pytest.raises(SwirlError, match="cannot send stage judge to http://127.0.0.1"):
        sync(layout, print)
    assert done == 7

    server.start()
    lines: list[str] = []
    assert sync(layout, lines.append) == 2
    assert lines[0].startswith("sent stage judge of ") and lines[0].endswith(": 2 runs")
    assert sync(layout, print) == 0
    top, run = runs(server)
    assert (top.info.status, run.info.status, run.data.params) == ("FINISHED", "FINISHED", {"seed": "7"})
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    assert [point.value for point in client.get_metric_history(run.info.run_id, "n")] == [0.5]
    folder = Path(client.download_artifacts(run.info.run_id, "reports/files", layout.root))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {f"{n}.json": str(n) for n in range(12)}


@pytest.mark.rare
def test_a_server_that_dies_while_a_stage_runs(
    server: Server, layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run is recorded as running, the server dies, the stage ends; `sync` then sends the rest."""
    server.start()
    with tracking.stage_run("judge", PARAMS, layout):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not _running(server):
            time.sleep(0.3)
        server.kill()
        write(layout.metrics("judge"), {"n": 4})
    assert "`swirl track sync` sends it" in capfd.readouterr().err
    server.start()
    assert [run.info.status for run in runs(server)] == ["RUNNING", "RUNNING"]
    assert sync(layout, print) == 2
    top, run = runs(server)
    assert (top.info.status, run.info.status, run.data.metrics) == ("FINISHED", "FINISHED", {"n": 4.0})


def _running(server: Server) -> bool:
    try:
        return len(runs(server)) == 2
    except AssertionError:
        return False


@pytest.mark.slow
def test_two_stages_at_once_share_one_run_on_the_server(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ends by itself, the other is killed; the server came after the flow had opened its run."""
    opened = tracking.open_run(layout, PARAMS, "flow calm-otter", {})
    server.start()
    stage = (
        "import sys; from pathlib import Path; from swirl import tracking; from swirl.core.layout import Layout\n"
        f"with tracking.stage_run(sys.argv[1], {PARAMS!r}, Layout(Path.cwd())):\n"
        "    print('running', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**_environment(), "PYTHONPATH": str(SOURCE), "SWIRL_RUN_ID": opened.run_id}
    started = []
    for name in ("judge", "filter"):
        command = [sys.executable, "-c", stage, name]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=layout.root, env=environment, **pipes))
    for process in started:
        process.stdout.readline()
    started[1].kill()
    for process in started:
        process.communicate()  # returns when the worker, which also holds the pipe for errors, ends
    tracking.close_run(layout, PARAMS, opened.run_id)
    top, *below = runs(server)
    assert (top.info.run_name, top.info.status) == ("flow calm-otter", "FINISHED")
    assert {run.info.run_name: run.info.status for run in below} == {"judge": "FINISHED", "filter": "KILLED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {top.info.run_id}
    assert sync(layout, print) == 0


def test_points_that_a_server_did_not_take_are_sent_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the process that tried it before, while the run goes on."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here, there = waiting_room(layout, Settings(experiment="late")), destination_of(layout)
    run = here.create("train@swirl", 1000.0, {})
    here.log(run, points=[("train/kl", 0.5, 1_000_001, 1)])
    delivery, log = Delivery(layout, Settings(experiment="late"), here), Store.log

    def broken(store: Store, run_id: str, **given: Any) -> None:
        if store.client.tracking_uri == there.client.tracking_uri:
            raise ConnectionError("reset by peer")
        log(store, run_id, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "log", broken)
        with pytest.raises(ConnectionError):
            delivery.copy(run)
    here.log(run, points=[("train/kl", 0.25, 1_000_002, 2)])
    for _ in range(2):
        delivery.copy(run)
    points = there.client.get_metric_history(delivery.ids[run], "train/kl")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]


def test_who_waits_for_another_copy_knows_whether_its_server_answers(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a server that has never answered is given up so soon."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("swirl.tracking.delivery.SLOW", 0.0)
    here, there = waiting_room(layout, Settings(experiment="late")), destination_of(layout)
    run = here.create("train@swirl", 1000.0, {})
    here.end(run, "FINISHED", 2000.0)
    delivery = Delivery(layout, Settings(experiment="late"), here)
    with locked(layout, "copying"):
        delivery.begin(run)
        wait_until(lambda: delivery._there is not None)
    delivery.finish("stage train@swirl", run)
    assert there.client.get_run(delivery.ids[run]).info.status == "FINISHED"
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("slow", "said"), [(0.05, "waiting for MLflow at https://***@example.org ...\n"), (60.0, "")])
def test_a_long_wait_for_a_server_is_said_without_its_password(
    slow: float, said: str, layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(layout, Settings(experiment="late"), waiting_room(layout, Settings(experiment="late")))
    delivery._there = destination_of(layout)  # it has answered before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pw@example.org")
    monkeypatch.setattr("swirl.tracking.delivery.SLOW", slow)
    monkeypatch.setattr(Delivery, "copy", lambda delivery, parent: time.sleep(1))
    monkeypatch.setattr(Delivery, "register", lambda delivery, parent: None)
    delivery.finish("stage judge", "the run")
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("traces", "note"),
    [
        (2, "A verdict for every step\n\nTraces: 2 of 3 trajectories, drawn at random."),
        (20, "A verdict for every step\n\nTraces: all 3 trajectories."),
        (0, "A verdict for every step"),
    ],
)
def test_a_run_that_was_copied_says_how_many_traces_it_has(
    traces: int, note: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SWIRL_RUN_ID", raising=False)
    (layout.root / "dvc.yaml").write_text(
        "stages: {judge: {cmd: x, desc: A verdict for every step, outs: [data/verdicts]}}", encoding="utf-8"
    )
    here = waiting_room(layout, Settings(experiment="late"))
    recorder = Recorder(layout, {"tracking": {"experiment": "late", "traces": traces}}, here)
    run = recorder.start_stage("judge", 1000.0)
    fill(layout)
    recorder.end_stage(run, {"status": "FINISHED", "error": ""}, -1)
    delivery = Delivery(layout, Settings(experiment="late"), here)
    delivery.copy(run.parent)
    there = destination_of(layout)
    assert there.client.get_run(delivery.ids[run.id]).data.tags["mlflow.note.content"] == note
    found = there.client.search_traces(locations=[there.experiment], run_id=delivery.ids[run.id])
    assert len(found) == min(traces, 3)


def test_files_stay_until_the_whole_run_has_arrived(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies for good in between, and the run goes to another."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here, there = waiting_room(layout, Settings(experiment="late")), destination_of(layout)
    run = here.create("train@swirl", 1000.0, {})
    checkpoint = artifact_folder(here.client.get_run(run)) / "checkpoints/step-000001/record.json"
    write(checkpoint, 1)
    delivery = Delivery(layout, Settings(experiment="late"), here)
    delivery.copy(run)  # while the run goes on
    write(layout.root / "metrics.json", {"n": 1})
    here.log_file(run, layout.root / "metrics.json", "reports")
    here.end(run, "FINISHED", 2000.0)

    def dead(store: Store, run_id: str, status: str, at: float) -> None:
        raise ConnectionError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "end", dead)
        with pytest.raises(ConnectionError):
            delivery.copy(run)
    other = Delivery(layout, Settings(experiment="other"), here)
    other.copy(run)
    held = Path(there.client.download_artifacts(other.ids[run], ""))
    files = sorted(path.relative_to(held).as_posix() for path in held.rglob("*") if path.is_file())
    assert files == ["checkpoints/step-000001/record.json", "reports/metrics.json"]
    assert not checkpoint.exists()


def test_a_tag_that_a_store_refuses_costs_a_copy_neither_its_params_nor_its_place(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store does not look at names of tags when it creates a run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here, there = waiting_room(layout, Settings(experiment="late")), destination_of(layout)
    top = here.create("flow", 1000.0, {})
    run = here.create("judge", 1001.0, {PARENT: top, "rows (1)": "x"})
    here.log(run, params={"seed": "7"})
    delivery = Delivery(layout, Settings(experiment="late"), here)
    delivery.copy(top)
    copy = there.client.get_run(delivery.ids[run])
    assert (copy.data.tags[PARENT], copy.data.params) == (delivery.ids[top], {"seed": "7"})
    assert [one.split(":")[0] for one in delivery.refused()] == ["tags refused"]
    assert flat({"rows (1)": "x"}) == {"rows _1_": "x"}


def test_a_copy_of_the_project_that_was_taken_away_is_not_made_again(tmp_path: Path) -> None:
    """The recorder of a stage that was killed may end after the flow has removed the stage's worktree."""
    project, copy = tmp_path / "project/.swirl/tracking", tmp_path / "copy"
    project.mkdir(parents=True)
    (copy / ".swirl").mkdir(parents=True)
    (copy / ".swirl/tracking").symlink_to(project)
    with locked(Layout(copy), "opening"):
        shutil.rmtree(copy)
    with locked(Layout(copy), "registering"):
        assert not copy.exists() and (project / "registering.lock").exists()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking server at whose address nobody listens."""
    for name in ("SWIRL_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


@pytest.mark.slow
def test_a_copy_has_all_that_its_original_has_and_a_second_one_changes_nothing(
    layout: Layout, nobody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is gone for good, so that the runs go to the project's own store."""
    (layout.root / "dvc.yaml").write_text(CONTENTS, encoding="utf-8")
    params = {**PARAMS, "tracking": {"experiment": "late", "traces": 3}}
    group = tracking.open_run(layout, params, "experiments", {}, name="experiments")
    opened = tracking.open_run(layout, params, "flow calm-otter", {"mlflow.parentRunId": group.run_id})
    monkeypatch.setenv("SWIRL_RUN_ID", opened.run_id)
    with tracking.stage_run("synthesize", params, layout):
        fill(layout)
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", params, layout):
        raise ValueError("row 3")
    with tracking.stage_run("judge", params, layout):
        fill(layout)
        write(layout.metrics("judge"), {"n": 1})
    tracking.close_run(layout, params, opened.run_id)
    tracking.close_run(layout, params, group.run_id)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    waiting = waiting_room(layout, Settings(experiment="late")).client
    (there,) = [one.experiment_id for one in waiting.search_experiments() if one.name == "late"]
    assert sync(layout, print) == 5
    assert sync(layout, print) == 0
    first = everything(layout)
    for run in waiting.search_runs([there]):
        waiting.delete_tag(run.info.run_id, "swirl.local.copied")  # as if it had been cut short before it was noted
    assert sync(layout, print) == 5
    assert everything(layout) == first

    store = destination_of(layout)
    found = {run.info.run_name: run for run in store.search() if run.info.status != "FAILED"}
    top, judge, synthesize = found["flow calm-otter"], found["judge"], found["synthesize"]
    assert top.data.tags["mlflow.parentRunId"] == found["experiments"].info.run_id
    assert (top.info.status, "error" in top.data.tags) == ("FINISHED", False)
    note = top.data.tags["mlflow.note.content"]
    for run in (judge, synthesize):
        assert f"[{run.info.run_name}](#/experiments/{store.experiment}/runs/{run.info.run_id})" in note
    traces = store.client.search_traces(locations=[store.experiment], run_id=judge.info.run_id)
    asked = {trace.info.tags["trajectory"] for trace in traces}
    assert asked == {"mini-gsm8k/0", "mini-gsm8k/1", "mini-hotpotqa/2"}
    assert all(trace.info.trace_metadata["mlflow.sourceRun"] == judge.info.run_id for trace in traces)
    assert sum(len(trace.info.assessments) for trace in traces) == 6
    assert {one.dataset.name for one in judge.inputs.dataset_inputs} == {
        "data/questions/questions",
        "data/trajectories/trajectories",
    }
    files = {path.path for path in store.client.list_artifacts(judge.info.run_id, "reports/metrics")}
    assert files == {"reports/metrics/judge.json"}


@pytest.mark.slow
def test_a_store_that_came_back_empty_gets_the_whole_pipeline(
    layout: Layout, nobody: None, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tracking.open_run(layout, PARAMS, "flow calm-otter", {})
    monkeypatch.setenv("SWIRL_RUN_ID", opened.run_id)
    for name in ("judge", "filter"):
        with tracking.stage_run(name, PARAMS, layout):
            write(layout.metrics(name), {"n": 1})
        with monkeypatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI")
            shutil.copy(empty_store, layout.root / "mlflow.db")
            sync(layout, print)
    top, *below = (destination_of(layout)).search()
    assert (top.info.run_name, top.data.params["seed"]) == ("flow calm-otter", "7")
    assert [(run.info.run_name, run.info.status) for run in below] == [("judge", "FINISHED"), ("filter", "FINISHED")]


def destination_of(layout: Layout) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return destination(layout, Settings(experiment="late"))


def everything(layout: Layout) -> list[Any]:
    """All that is in the project's own store, with the number of files in it."""
    with sqlite3.connect(layout.root / "mlflow.db") as database:
        whole = ("runs", "tags", "params", "metrics", "inputs", "datasets", "spans", "assessments")
        tables = {"trace_info": "request_id, timestamp_ms, status", **dict.fromkeys(whole, "*")}
        said = [
            [table, sorted(map(repr, database.execute(f"SELECT {columns} FROM {table}")))]
            for table, columns in tables.items()
        ]
    return [*said, sorted(path for path in (layout.root / "mlartifacts").rglob("*"))]


def test_nothing_secret_is_stored(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what leads to the server nor what is in the settings or in an error."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:swordfish@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "swordfish")
    params = {**PARAMS, "judge": {"api_key": "swordfish", "url": "https://me:swordfish@host"}}
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", params, layout):
        raise ValueError("row 3 of https://me:swordfish@host")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(layout, print) == 2
    held = {path for path in layout.root.rglob("*") if path.is_file() and b"swordfish" in path.read_bytes()}
    assert held == set()
    assert any(b"https://***@host" in path.read_bytes() for path in layout.root.rglob("mlflow.db"))


def test_what_a_store_refuses_for_good_is_said_and_the_rest_arrives(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recorded = recording_store(layout, Settings())
    run = recorded.create("judge", 1000.0, {})
    recorded.log(run, points=[("n", 1.0, 1, 0)])
    recorded.log(run, points=[("a!b", 1.0, 1, 0)], tags={"colour": "blue"})
    recorded.log_file(run, layout.root / "gone.txt", "")
    recorded.log(run, points=[("m", 2.0, 1, 0)])
    assert [sentence.split(":")[0].replace(str(layout.root), "ROOT") for sentence in recorded.refused] == [
        "metrics refused",
        "ROOT/gone.txt is gone; it was to be an artifact",
    ]
    found = recorded.client.get_run(run)
    assert (found.data.metrics, found.data.tags["colour"]) == ({"n": 1.0, "m": 2.0}, "blue")


def test_a_policy_that_cannot_be_registered_stands_in_nobodys_way(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("swirl.registry.model_registry.promote", full)
    write(layout.model("swirl") / "config.json", {})
    waiting = waiting_room(layout, Settings(experiment="late"))
    hashed = dvc_hash(layout.model("swirl"))
    stuck = waiting.create("stuck", 1000.0, {TO_REGISTER: hashed})
    waiting.create("whole", 1001.0, {})
    lines: list[str] = []
    for _ in range(2):
        with pytest.raises(SwirlError, match="stuck has arrived, but its policy cannot be registered: no space"):
            sync(layout, lines.append)
    assert [line.split()[1] for line in lines] == ["whole"]
    assert waiting.client.get_run(stuck).data.tags[TO_REGISTER] == hashed


@pytest.mark.parametrize("direct", [True, False])
def test_the_policy_of_a_run_in_a_group_is_registered(
    direct: bool, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registered: list[str] = []
    monkeypatch.setattr(
        "swirl.registry.model_registry.promote",
        lambda store, _, run: registered.append(store.client.get_run(run).info.run_name),
    )
    write(layout.model("swirl") / "config.json", {})
    store = destination_of(layout) if direct else waiting_room(layout, Settings(experiment="late"))
    group = store.create("experiments calm-otter", 1000.0, {})
    store.create("flow calm-otter-1", 1001.0, {PARENT: group})
    flow = store.create("flow calm-otter-2", 1002.0, {PARENT: group, TO_REGISTER: dvc_hash(layout.model("swirl"))})
    store.create("report", 1003.0, {PARENT: flow})
    assert sync(layout, print) == (1 if direct else 4)
    assert registered == ["flow calm-otter-2"]
    assert TO_REGISTER not in store.client.get_run(flow).data.tags
    assert sync(layout, print) == 0
    top, *below = destination_of(layout).search()
    assert [run.data.tags.get(PARENT) for run in below] == [top.info.run_id] * 2 + [below[1].info.run_id]


def test_a_run_waits_while_its_experiment_is_deleted(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = destination_of(layout)
    store.client.delete_experiment(store.experiment)
    with tracking.stage_run("judge", PARAMS, layout):
        write(layout.metrics("judge"), {"n": 1})
    said = "experiment 'late' is deleted; restore it"
    assert said in capfd.readouterr().err
    with pytest.raises(SwirlError, match=f"{said} .*or set tracking.experiment"):
        sync(layout, print)
    store.client.restore_experiment(store.experiment)
    assert sync(layout, print) == 2
    assert {run.info.run_name: run.data.metrics for run in store.search()} == {
        "judge": {"n": 1.0},
        "stage judge": {},
    }


def test_where_nothing_waits_nothing_is_made(layout: Layout, nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout.root / "mlflow.db").unlink()
    assert sync(layout, print) == 0
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync(layout, print, dry_run=True) == 0
    assert not list(layout.root.rglob("mlflow.db"))
