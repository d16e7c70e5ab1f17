"""Nothing is lost when a tracking server is late, dies or comes back empty; servers are real `mlflow server`s."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swirl import tracking
from swirl.config.secrets import plain
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.tracking.mlflow_runs import Store
from swirl.tracking.operations import Child, End, File, Log, Operation, Parent, Settle, Text
from swirl.tracking.outbox import Journal, pending_folder
from swirl.tracking.sync import sync, waiting

PARAMS = {"seed": 7, "tracking": {"experiment": "late"}}
DVC_YAML = "stages: {judge: {cmd: x, params: [seed], metrics: [reports/metrics/judge.json]}}"


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


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making one takes seconds, copying one does not."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


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
    source = str(Path(tracking.__file__).parents[2])
    environment = {**_environment(), "PYTHONPATH": source}
    command = [sys.executable, "-m", "swirl", *arguments]
    return subprocess.run(command, cwd=layout.root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_pipeline_without_its_server_is_sent_later_as_it_was(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A flow opens its run, two stages run, the flow ends; later runs overwrite the files; then the server starts."""
    before = time.time()
    parent = tracking.open_run(layout, PARAMS, "flow calm-otter")
    assert parent.startswith("pending-")
    monkeypatch.setenv("SWIRL_RUN_ID", parent)
    with tracking.stage_run("judge", PARAMS, layout):
        write(layout.metrics("judge"), {"n": 1})
    with pytest.raises(ValueError, match="row 3"), tracking.stage_run("judge", PARAMS, layout):
        raise ValueError("row 3")
    tracking.close_run(layout, parent, "judge failed")
    after = time.time()
    write(layout.metrics("judge"), {"n": 2})
    said = capfd.readouterr().err
    assert said.count("`swirl track sync` sends it") == 4
    assert len(waiting(layout)) == 4

    refused = swirl(layout, "track", "sync")
    assert refused.returncode == 1
    assert f"cannot send flow calm-otter to {server.uri}" in refused.stderr
    assert len(waiting(layout)) == 4
    shown = swirl(layout, "track", "sync", "--dry-run")
    assert shown.stdout.splitlines()[-1] == "4 records waiting"

    server.start()
    sent = swirl(layout, "track", "sync")
    assert (sent.returncode, sent.stdout.splitlines()[-1]) == (0, "4 records sent"), sent.stderr
    assert "sent judge of " in sent.stdout
    assert swirl(layout, "track", "sync").stdout == "0 records sent\n"
    assert list(pending_folder(layout).iterdir()) == []

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


def operations(folder: Path) -> list[Operation]:
    """The operations that record a whole stage with 12 files."""
    files: list[Operation] = []
    for number in range(12):
        path = folder / f"{number}.txt"
        path.write_text(str(number), encoding="utf-8")
        files.append(File("r1", str(path), "files"))
    return [
        Parent("", "key-1", "dvc repro", 1000.0, {}, {"seed": "7"}),
        Child("r1", "judge", 1001.0, {"stage": "judge"}, {"seed": "7"}),
        Log("r1", [("n", 0.5, 1_002_000, step) for step in range(3)], {"colour": "blue"}),
        *files,
        Text("r1", "note.txt", "hello"),
        End("r1", "FINISHED", 1003.0),
        Settle("FINISHED", 1003.0),
    ]


@pytest.mark.slow
def test_a_server_killed_in_the_middle_gets_the_rest_once(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    journal = Journal.create(layout, "judge", "late")
    journal.add(*operations(layout.root))
    store, done = Store(layout, PARAMS), 0
    apply = store.apply

    def kill_at_the_seventh(operation: Operation, known: dict[str, str]) -> str:
        nonlocal done
        done += 1
        if done == 7:
            server.kill()
        return apply(operation, known)

    monkeypatch.setattr(store, "apply", kill_at_the_seventh)
    with pytest.raises(Exception, match="127.0.0.1"):
        journal.send(store)
    path = journal.folder / "progress.json"
    progress = json.loads(path.read_text())
    assert progress["done"] == 6
    # As if the sender had been killed before the last five were noted as done: they are sent again.
    path.write_text(json.dumps({**progress, "done": 1, "runs": {"parent": progress["runs"]["parent"]}}))
    journal.hold()
    for number in range(12):
        (layout.root / f"{number}.txt").write_text("of a later run", encoding="utf-8")
    with pytest.raises(BlockingIOError):
        Journal(journal.folder)  # nobody else can send it meanwhile
    journal.close()
    with pytest.raises(SwirlError, match="cannot send judge to http://127.0.0.1"):
        sync(layout, print)

    server.start()
    lines: list[str] = []
    assert sync(layout, lines.append) == 1
    assert lines[0].endswith("1 runs, 13 artifacts")
    top, run = runs(server)
    assert (top.info.start_time, top.info.end_time, top.info.status) == (1_000_000, 1_003_000, "FINISHED")
    assert (run.info.start_time, run.info.end_time, run.info.status) == (1_001_000, 1_003_000, "FINISHED")
    assert (run.data.params, run.data.tags["colour"]) == ({"seed": "7"}, "blue")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    history = client.get_metric_history(run.info.run_id, "n")
    assert [(point.step, point.value, point.timestamp) for point in history] == [(s, 0.5, 1_002_000) for s in range(3)]
    folder = Path(client.download_artifacts(run.info.run_id, "files", layout.root))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {f"{n}.txt": str(n) for n in range(12)}


@pytest.mark.slow
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
    assert sync(layout, print) == 1
    top, run = runs(server)
    assert (top.info.status, run.info.status, run.data.metrics) == ("FINISHED", "FINISHED", {"n": 4.0})


def _running(server: Server) -> bool:
    try:
        return len(runs(server)) == 2
    except AssertionError:
        return False


def test_what_a_store_refuses_for_good_is_said_and_the_rest_arrives(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    journal = Journal.create(layout, "judge", "late")
    journal.add(
        Parent("", "key-1", "dvc repro", 1000.0, {}, {}),
        Child("r1", "judge", 1001.0, {}, {}),
        Log("r1", [("n", 1.0, 1, 0)]),
        Log("r1", [("a!b", 1.0, 1, 0)]),
        Log("r2", [("n", 1.0, 1, 0)]),
        File("r1", str(layout.root / "gone.txt"), ""),
        Log("r1", [("m", 2.0, 1, 0)]),
        End("r1", "FINISHED", 1003.0),
    )
    store = Store(layout, plain(PARAMS))
    journal.send(store)
    assert [sentence.split(":")[0].replace(str(layout.root), "ROOT") for sentence in journal.given_up] == [
        "Log was refused",
        "Log belongs to a run that was not made",
        "ROOT/gone.txt is gone; it was to be an artifact",
    ]
    run = store.client.get_run(journal.runs["r1"])
    assert (run.data.metrics, run.info.status) == ({"n": 1.0, "m": 2.0}, "FINISHED")


def test_a_broken_journal_is_named_and_stands_in_nobodys_way(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    broken, whole = Journal.create(layout, "filter", "late"), Journal.create(layout, "judge", "late")
    (broken.folder / "operations.jsonl").write_text('["Dance", {}]\n', encoding="utf-8")
    whole.add(Parent("", "key-1", "dvc repro", 1000.0, {}, {}), Child("r1", "judge", 1001.0, {}, {}))
    with (whole.folder / "operations.jsonl").open("a") as file:
        file.write('["Log", {"run": "r1", "poi')  # the process was killed here
    broken.close()
    whole.close()
    lines: list[str] = []
    with pytest.raises(SwirlError, match=f"{broken.folder.name}/operations.jsonl is not a tracking journal"):
        sync(layout, lines.append)
    assert len(lines) == 1
    assert waiting(layout) == [broken.folder]


def test_a_policy_that_cannot_be_registered_stands_in_nobodys_way(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def full(journal: Journal, store: Store) -> None:
        if journal.name == "report":
            raise OSError("no space left on device")

    monkeypatch.setattr("swirl.tracking.sync.promote_if_due", full)
    stuck, whole = Journal.create(layout, "report", "late"), Journal.create(layout, "judge", "late")
    for journal in (stuck, whole):
        journal.add(Parent("", "key-1", "dvc repro", 1000.0, {}, {}), Child(journal.name, journal.name, 1001.0, {}, {}))
    stuck.close()
    whole.close()
    lines: list[str] = []
    with pytest.raises(SwirlError, match="report has arrived, but its policy cannot be registered: no space"):
        sync(layout, lines.append)
    assert [line.split()[1] for line in lines] == ["judge"]
    assert waiting(layout) == [stuck.folder]


def test_a_deleted_experiment_is_named(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(layout, PARAMS)
    store.client.delete_experiment(store.experiment)
    with pytest.raises(SwirlError, match=r"experiment 'late' is deleted; restore it .*or set tracking.experiment"):
        Store(layout, PARAMS)
