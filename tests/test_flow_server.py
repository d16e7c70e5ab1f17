"""Deployments on a real server with a real worker, over a small DVC project: what a user of the UI does and sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

STAGE = """
import json, os, sys, time
from pathlib import Path
import yaml

name, params = sys.argv[1], yaml.safe_load(Path("params.yaml").read_text())
strategy, seed = params["filter"]["strategy"], params["seed"]
marks = Path(os.environ["MARKS"])
print(name, "runs with", strategy, seed, flush=True)

def first_time(what):
    mark = marks / what
    new = not mark.exists()
    mark.write_text(str(os.getpid()))
    return new

def write(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))

kept = {"none": 4, "process": 3, "outcome": 2, "both": 1}
if name == "download":
    if first_time("download"):
        sys.exit("the network is down")
    write("download.json", seed)
if name == "filter":
    if seed == 99:
        journal = Path(".swirl/journals/filter")
        print("journal holds", journal.read_text() if journal.exists() else "nothing", flush=True)
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text("block 1")
        if first_time("hang"):
            time.sleep(120)
    counts = {one: {"trajectories": n, "steps": 3 * n, "correct": 1 / n} for one, n in kept.items()}
    write("reports/filters.json", {"trajectories": 4, "strategy": strategy, "strategies": counts})
if name == "check_steps":
    gate = {"gate": "steps", "success": seed != 13, "rows": {"steps": 9}, "expectations": [
        {"name": "expect_one", "table": "steps", "column": "id", "meaning": "id is unique", "observed": None, "of": 9,
         "violations": 1, "rows": [{"id": "a|b", "value": 7}], "success": seed != 13}]}
    if seed == 13:
        write(".swirl/quality/steps.failed.json", gate)
        sys.exit("the steps gate stops the pipeline")
    write("reports/quality/steps.json", gate)
if name == "report":
    write("reports/results.json", {"scores": [
        {"benchmark": benchmark, "model": model, "with_tools": True, "n": 10, "accuracy": kept[strategy] / 10 + plus}
        for benchmark in ("mini-a", "mini-b") for model, plus in (("base", 0), ("sft", 0.01), ("swirl", 0.02))]})
"""
DVC_YAML = """
stages:
  report:
    cmd: python stage.py report
    deps: [reports/quality/steps.json]
    params: [filter, train.methods]
    outs: [reports/results.json: {cache: false}]
  download:
    cmd: python stage.py download
    deps: [stage.py]
    params: [seed]
    outs: [download.json]
  filter:
    cmd: python stage.py filter
    deps: [download.json]
    params: [filter, seed]
    outs: [reports/filters.json: {cache: false}]
  check_steps:
    cmd: python stage.py check_steps
    deps: [reports/filters.json]
    outs: [reports/quality/steps.json: {cache: false}]
"""
IGNORED = ".swirl/\n.prefect/\nmarks/\nmlflow.db*\nmlartifacts/\n__pycache__/\n"
ORDER = ["download", "filter", "check_steps", "report"]


@dataclass(frozen=True)
class Served:
    """A project whose deployments are served."""

    root: Path
    api: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data, kind = json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/{path}", data=data, headers=kind, method=method)
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    return json.loads(reply.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # what a server says whose database is busy
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: the server is too busy")

    def deployment(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.post("deployments/filter")
        return next(one for one in found if one["name"] == name)

    def run(self, name: str, **parameters: Any) -> str:
        """Trigger a deployment as the UI does: the flow run's id."""
        created = self.post(f"deployments/{self.deployment(name)['id']}/create_flow_run", {"parameters": parameters})
        return str(created["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found[0]

    def ended(self, run: str) -> dict[str, Any]:
        self.wait(lambda: self.flow_run(run)["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 600)
        return self.flow_run(run)

    def tasks(self, run: str) -> list[tuple[str, str]]:
        """(name, state) in the order of start."""
        found = self.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"})
        return [(one["name"], one["state_name"]) for one in found if one["state_type"] != "PENDING"]

    def artifacts(self, run: str) -> dict[str, Any]:
        """Data by key, the newest of each key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "CREATED_DESC"}
        found: dict[str, Any] = {}
        for one in self.post("artifacts/filter", body):
            data = one["data"]
            found.setdefault(one["key"], json.loads(data) if one["type"] == "table" else data)
        return found

    def log(self, run: str, until: str) -> list[str]:
        """The run's log once `until` stands in it: Prefect sends the last lines after the state that ends the run."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        found: list[str] = []

        def complete() -> bool:
            found[:] = [one["message"] for one in self.post("logs/filter", body)]
            return any(until in message for message in found)

        self.wait(complete, 60)
        return found

    def wait(self, done: Callable[[], bool], seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, "the server or the worker has ended"
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.3)


def environment(project: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "SWIRL", "MLFLOW"))}
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "1"}
    own = {"PREFECT_HOME": str(project / ".prefect"), "MARKS": str(project / "marks"), "DVC_NO_ANALYTICS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **quick, **own, "PYTHONPATH": str(ROOT / "src"), "PATH": path}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", project)
    for name, text in {"dvc.yaml": DVC_YAML, "stage.py": STAGE, ".gitignore": IGNORED, ".dvcignore": IGNORED}.items():
        (project / name).write_text(text, encoding="utf-8")
    (project / "marks").mkdir()
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    nightly = next(one for one in deployments["deployments"] if one["name"] == "swirl-nightly")
    nightly["schedules"] = [{"interval": 60}]
    nightly["parameters"] = {"retry_delay": 0.1}
    (project / "prefect.yaml").write_text(yaml.safe_dump(deployments), encoding="utf-8")
    env = environment(project)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@localhost"],
        ["git", "add", "-A"],
        [*git, "commit", "-qm", "a project"],
    ):
        subprocess.run(command, cwd=project, env=env, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = project / "marks/served.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(project / "flows/local.py"), "up", "--port", str(port)],
            env=env,
            stdout=output,
            stderr=output,
        )
    try:
        served = Served(project, f"http://127.0.0.1:{port}/api", process)
        served.wait(lambda: "Flow runs and deployments: " in log.read_text(encoding="utf-8"))
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    assert [one for one in psutil.process_iter() if str(project) in " ".join(_command(one))] == []
    assert not listening(port)


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_schedule_fires_and_its_run_shows_what_happened(served: Served) -> None:
    """The download fails once, as networks do, and is tried again."""
    nightly = served.deployment("swirl-nightly")
    runs: list[dict[str, Any]] = []

    def fired() -> bool:
        body = {"deployments": {"id": {"any_": [nightly["id"]]}}, "sort": "START_TIME_ASC"}
        runs[:] = [one for one in served.post("flow_runs/filter", body) if one["state_type"] == "COMPLETED"]
        return bool(runs)

    served.wait(fired)
    served.post(f"deployments/{nightly['id']}", {"paused": True}, "PATCH")
    waiting = {
        "deployments": {"id": {"any_": [nightly["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    for one in served.post("flow_runs/filter", waiting):
        served.post(f"flow_runs/{one['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    run = runs[0]["id"]
    assert runs[0]["auto_scheduled"] is True
    assert served.tasks(run) == [(name, "Completed") for name in ORDER]
    log = served.log(run, until="Finished in state Completed('4 stages are up to date')")
    assert log.count("the network is down") == 1
    assert log.count("download runs with process 0") == 2
    assert log.count("report runs with process 0") == 1
    found = served.artifacts(run)
    assert found["quality-gates"] == [
        {"gate": "steps", "result": "passed", "expectations": 1, "violated": 0, "rows": "steps 9"}
    ]
    assert [(row["strategy"], row["used"], row["share"]) for row in found["filter-funnel"]] == [
        ("none", "", 1.0),
        ("process", "yes", 0.75),
        ("outcome", "", 0.5),
        ("both", "", 0.25),
    ]
    assert [row["accuracy"] for row in found["results"]] == [0.3, 0.31, 0.32] * 2
    assert "http://127.0.0.1:5000/#/experiments/" in found["mlflow-run"]


def test_a_cancelled_run_leaves_nothing_behind_and_the_next_goes_on(served: Served) -> None:
    before = (served.root / "params.yaml").read_bytes()
    run = served.run("swirl-on-demand", overrides={"seed": 99})
    mark = served.root / "marks/hang"
    served.wait(lambda: mark.exists() and bool(mark.read_text()))
    stage = psutil.Process(int(mark.read_text()))
    group = [stage, *stage.parents()[:3]]  # python, its shell, dvc, and the leader of their group
    served.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert served.ended(run)["state_type"] == "CANCELLED"
    assert [one for one in group if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    served.wait(lambda: not [one for one in (served.root / ".swirl/worktrees").iterdir() if one.suffix == ""])
    assert (served.root / "params.yaml").read_bytes() == before

    again = served.run("swirl-on-demand", overrides={"seed": 99})
    assert served.ended(again)["state_type"] == "COMPLETED"
    assert served.tasks(again) == [("download", "Cached"), *((name, "Completed") for name in ORDER[1:])]
    assert "journal holds nothing" in served.log(run, until="journal holds")
    assert "journal holds block 1" in served.log(again, until="journal holds")
    worktrees = served.root / ".swirl/worktrees"
    assert [path.suffix for path in worktrees.iterdir()] == [".lock"]
    assert (served.root / "params.yaml").read_bytes() == before


def test_wrong_overrides_and_targets_start_nothing(served: Served) -> None:
    first = served.run("swirl-on-demand", overrides={"filter.strategy": "proces"})
    second = served.run("swirl-on-demand", targets=["reprot"])
    ended = [served.ended(run) for run in (first, second)]
    assert [one["state_type"] for one in ended] == ["FAILED", "FAILED"]
    assert "filter.strategy = 'proces'" in ended[0]["state"]["message"]
    assert "dvc.yaml has no stage 'reprot'; it has report, download" in ended[1]["state"]["message"]
    assert served.tasks(first) == served.tasks(second) == []


def test_a_grid_ends_in_a_comparison_and_one_failure_does_not_stop_it(served: Served) -> None:
    runs = [{"filter.strategy": "both", "seed": 13}, {"filter.strategy": "both"}, {"filter.strategy": "outcome"}]
    run = served.run("swirl-experiments", runs=runs)
    ended = served.ended(run)
    name = ended["name"]
    assert (ended["state_type"], ended["state"]["message"]) == ("FAILED", f"1 of 3 runs failed: {name}-1")
    assert [list(row.values()) for row in served.artifacts(run)["comparison"]] == [
        ["outcome", "as in params.yaml", "swirl", 0.22, 0.22, 0.22, f"{name}-3"],
        ["outcome", "as in params.yaml", "sft", 0.21, 0.21, 0.21, f"{name}-3"],
        ["both", "as in params.yaml", "swirl", 0.12, 0.12, 0.12, f"{name}-2"],
        ["both", "as in params.yaml", "sft", 0.11, 0.11, 0.11, f"{name}-2"],
        ["both", 13, "", None, f"{name}-1 failed"],
    ]
    by_name = {one["name"]: one for one in served.post("flow_runs/filter")}
    failure = served.artifacts(by_name[f"{name}-1"]["id"])
    assert "## expect_one on steps.id" in failure["failed-gate"]
    assert "| a\\|b | 7 |" in failure["failed-gate"]
    assert failure["quality-gates"][0]["result"] == "FAILED"
    assert served.tasks(by_name[f"{name}-3"]["id"])[0] == ("download", "Cached")

    dvc = [sys.executable, "-m", "dvc", "exp"]
    env = environment(served.root)
    listed = subprocess.run([*dvc, "list", "--name-only"], cwd=served.root, env=env, capture_output=True, text=True)
    assert {f"{name}-2", f"{name}-3"} <= set(listed.stdout.split())
    subprocess.run([*dvc, "apply", f"{name}-3"], cwd=served.root, env=env, check=True, capture_output=True)
    assert "strategy: outcome" in (served.root / "params.yaml").read_text(encoding="utf-8")
    results = json.loads((served.root / "reports/results.json").read_text(encoding="utf-8"))
    assert results["scores"][0]["accuracy"] == 0.2

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{served.root}/mlflow.db")
    experiment = client.get_experiment_by_name("swirl")
    assert experiment is not None
    recorded = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    parent, child = recorded[f"experiments {name}"], recorded[f"flow {name}-3"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["override.filter.strategy"] == '"outcome"'
    assert child.data.params["filter.strategy"] == "outcome"
    assert child.info.artifact_uri.startswith((served.root / "mlartifacts").as_uri())
    assert (parent.info.status, child.info.status) == ("FAILED", "FINISHED")


def test_ending_the_worker_ends_the_run_under_way(served: Served) -> None:
    """The last test of this file: it ends what serves the others."""
    mark = served.root / "marks/hang"
    mark.unlink(missing_ok=True)
    served.run("swirl-on-demand", overrides={"seed": 99})
    served.wait(lambda: mark.exists() and bool(mark.read_text()))
    stage = psutil.Process(int(mark.read_text()))
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(120)
    psutil.wait_procs([stage], timeout=30)
    assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
