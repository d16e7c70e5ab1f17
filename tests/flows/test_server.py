"""Deployments on a real server with a real worker, over a small DVC project: what a user of the UI does and sees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.devtools import chromium, needs_chromium
from tests.prefect_api import Served, serving

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

STAGE = """
import json, os, sys, time
from pathlib import Path
import yaml

name, params = sys.argv[1], yaml.safe_load(Path("params.yaml").read_text())
strategy, seed = params["filter"]["strategy"], params["seed"]
compared = params["filter"]["max_trajectories"] or [strategy]
marks = Path(os.environ["MARKS"])
print(name, "runs with", strategy, seed, flush=True)
print("its runs go to", os.environ["MLFLOW_TRACKING_URI"], flush=True)

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
    if seed in (98, 99):
        journal = Path(".swirl/journals/filter")
        print("journal holds", journal.read_text() if journal.exists() else "nothing", flush=True)
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text("block 1")
        if first_time(f"hang-{seed}"):
            time.sleep(3600)
    print("filter, parts: 2/8 (25%), 10 s, 5 s each, about 30 s left", flush=True)
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
    if not params["report"]["samples"]:
        write("reports/results.json", {})
        sys.exit()
    count = {"trajectories": min(kept[one] for one in compared)}
    seen = {"swirl": {"kept": 9, "visited": 6, "passes": 2 / 3}, "sft": {"kept": 9, "visited": 9, "passes": 2.0}}
    write("reports/results.json", {"filters": {"kept": count}, "coverage": seen, "scores": [
        {"benchmark": benchmark, "model": model, "with_tools": True, "n": 10, "accuracy": kept[strategy] / 10 + plus,
         "p_vs_base": p}
        for benchmark in ("mini-a", "mini-b")
        for model, plus, p in (("base", 0, None), ("sft", 0.01, 0.25), ("swirl", 0.02, 1e-5))]})
"""
DVC_YAML = """
stages:
  report:
    cmd: python stage.py report
    deps: [reports/quality/steps.json]
    params: [filter, train.methods, report]
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
CANCELLED: dict[str, Any] = {
    "seed": 99, "tasks.search.tools": ["mcp:web/ask"], "tools.options": {"mcp:web": {"api_key": "sk-1234"}},
}  # fmt: skip
"""The overrides of the run that is cancelled."""


def environment(project: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "SWIRL", "MLFLOW"))}
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "1"}
    own = {"PREFECT_HOME": str(project / ".prefect"), "MARKS": str(project / "marks"), "DVC_NO_ANALYTICS": "1"}
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}  # relative to the project, wherever a stage runs
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **quick, **own, **store, "PYTHONPATH": str(ROOT / "src"), "PATH": path}


def hanging(served: Served, seed: int) -> list[psutil.Process]:
    """The filter of this seed, once it hangs, and its ancestors: the shell, DVC, the group's leader, the flow."""
    mark = served.root / f"marks/hang-{seed}"
    served.wait(lambda: mark.exists() and bool(mark.read_text()))
    stage = psutil.Process(int(mark.read_text()))
    parents = stage.parents()
    leader = next(place for place, one in enumerate(parents) if "groups.py" in " ".join(one.cmdline()))
    return [stage, *parents[: leader + 2]]


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that have not ended."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    hub = "  benchmarks:\n    hotpotqa: {source: hub, evaluation: 10}\n"  # so that `download` may ask the network
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("  benchmarks:\n", hub, 1), encoding="utf-8")
    for name, text in {"dvc.yaml": DVC_YAML, "stage.py": STAGE, ".gitignore": IGNORED, ".dvcignore": IGNORED}.items():
        (project / name).write_text(text, encoding="utf-8")
    (project / "marks").mkdir()
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    nightly = next(one for one in deployments["deployments"] if one["name"] == "swirl-nightly")
    nightly["schedules"] = [{"interval": 10}]
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
    with serving(project, env, project / "marks/served.log") as served:
        yield served
    assert [one for one in psutil.process_iter() if str(project) in " ".join(_command(one))] == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_pages_of_other_sites_may_not_ask_the_server(served: Served) -> None:
    """A browser asks first whether a page may send JSON; what needs no asking, such as plain text, is not read."""

    def answer(method: str, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{served.port}/api/{path}", b'{"name": "x"}', method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.headers.get("Access-Control-Allow-Origin", "")
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Access-Control-Allow-Origin", "")

    asking = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    there, here = "https://other.example", f"http://localhost:{served.port}"
    assert answer("OPTIONS", "deployments/filter", Origin=there, **asking) == (400, "")
    assert answer("OPTIONS", "deployments/filter", Origin=here, **asking) == (200, here)
    assert answer("POST", "flows/", Origin=there, Content_Type="text/plain") == (422, "")
    assert answer("POST", "flows/", Origin=here, Content_Type="application/json") == (201, here)


def test_a_schedule_fires_and_its_run_shows_what_happened(served: Served) -> None:
    """The download fails once, as networks do, and is retried."""
    fired = served.fired("swirl-nightly")
    run = fired["id"]
    assert (fired["state_type"], fired["auto_scheduled"]) == ("COMPLETED", True)
    served.ran(run, *((name, "Completed") for name in ORDER))
    log = served.whole_log(run)
    assert "Finished in state Completed('4 stages are up to date')" in log
    assert log.count("the network is down") == 1
    assert log.count("download runs with process 0") == 2
    assert log.count("report runs with process 0") == 1
    found = served.artifacts(run)
    assert found["quality-gates"] == [
        {"gate": "steps", "result": "passed", "expectations": 1, "violated": 0, "rows": "9"}
    ]
    assert [(row["strategy"], row["used"], row["share"]) for row in found["filter-funnel"]] == [
        ("none", "", 1.0),
        ("process", "yes", 0.75),
        ("outcome", "", 0.5),
        ("both", "", 0.25),
    ]
    percent = {"Base": "30.0%", "SFT": "31.0% (p = 0.25)", "SWiRL": "32.0% (p < 0.001)"}
    shown = {"tools": "yes", "questions": 10, **percent}
    assert found["results"] == [{"benchmark": "mini-a", **shown}, {"benchmark": "mini-b", **shown}]
    only = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["results"]}}}
    (table,) = served.post("artifacts/filter", only)
    assert table["description"].endswith("RL visited 6 states, 67% of the kept 9; SFT read all twice.")
    assert "http://127.0.0.1:5000/#/experiments/" in found["mlflow-run"]
    only = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": ["progress"]}}}
    (shown,) = served.post("artifacts/filter", only)
    assert (shown["key"], shown["data"]) == ("progress-filter", 100.0)
    assert shown["description"] == "filter, parts: 2/8 (25%), 10 s, 5 s each, about 30 s left"


@pytest.fixture(scope="module")
def cancelled(served: Served) -> tuple[str, list[psutil.Process]]:
    """A run that was cancelled while its filter hung, and the processes that it then had."""
    nightly = served.deployment("swirl-nightly")["id"]  # whose runs, if any were left, would come in between
    served.post(f"deployments/{nightly}", {"paused": True}, "PATCH")
    run = served.run("swirl-on-demand", overrides=CANCELLED)
    processes = hanging(served, CANCELLED["seed"])
    # Prefect sends log lines every few seconds, and none after it has had to kill a flow, so wait before cancelling.
    assert "journal holds nothing" in served.log(run, until="journal holds")
    served.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert served.ended(run)["state_type"] == "CANCELLED"
    return run, processes


@needs_chromium
def test_prefects_page_shows_flow_and_stage_of_a_cancelled_run_as_cancelled(
    served: Served, cancelled: tuple[str, list[psutil.Process]], tmp_path: Path
) -> None:
    run, _ = cancelled
    served.ran(run, ("download", "Completed"), ("filter", "Cancelled"))
    with chromium(tmp_path) as page:
        page.PATIENCE = 300.0
        page.size(1500, 1000)
        page.call("Page.navigate", url=f"http://127.0.0.1:{served.port}/runs/flow-run/{run}")
        page.wait("location.protocol === 'http:' && document.body && document.body.innerText.includes('Cancelled')")
        tab = "[...document.querySelectorAll('li')].find(one => one.innerText === 'Task Runs')"
        page.wait(f"!!{tab}")
        page.run(f"{tab}.click()")
        page.wait("document.body.innerText.includes('(1 Completed, 1 Cancelled)')")


def test_a_cancelled_run_leaves_nothing_behind_and_the_next_goes_on(
    served: Served, cancelled: tuple[str, list[psutil.Process]]
) -> None:
    run, processes = cancelled
    committed = ["git", "show", "HEAD:params.yaml"]
    before = subprocess.run(committed, cwd=served.root, capture_output=True, check=True).stdout
    served.wait(lambda: running(processes) == [], 60, lambda: running(processes))
    served.ran(run, ("download", "Completed"), ("filter", "Cancelled"))
    with sqlite3.connect(served.root / "mlflow.db") as database:
        last = "SELECT status FROM runs WHERE name LIKE 'flow %' ORDER BY start_time DESC LIMIT 1"
        assert list(database.execute(last)) == [("KILLED",)]
    assert (served.root / "params.yaml").read_bytes() == before

    # A flow that does not end within the 30 seconds that Prefect gives it is killed; this run then clears its worktree.
    again = served.run("swirl-on-demand", overrides=CANCELLED)
    assert served.ended(again)["state_type"] == "COMPLETED"
    served.ran(again, ("download", "Cached"), *((name, "Completed") for name in ORDER[1:]))
    log = served.log(again, until="journal holds")
    assert "journal holds block 1" in log
    assert f"its runs go to sqlite:///{served.root}/mlflow.db" in log
    assert any("tools.options={'mcp:web': {'api_key': '(not logged)'}}, in" in line for line in log)
    assert not any("sk-1234" in line for line in log)
    with sqlite3.connect(served.root / "mlflow.db") as database:
        tags = database.execute("SELECT DISTINCT value FROM tags WHERE key = 'override.tools.options'")
        assert list(tags) == [('{"mcp:web": {"api_key": "(not logged)"}}',)]
    worktrees = served.root / ".swirl/worktrees"
    assert [path.suffix for path in worktrees.iterdir()] == [".lock"]
    assert (served.root / "params.yaml").read_bytes() == before


def test_wrong_overrides_and_targets_start_nothing(served: Served) -> None:
    first = served.run("swirl-on-demand", overrides={"filter.strategy": "proces"})
    second = served.run("swirl-on-demand", targets=["reprot"])
    ended = [served.ended(run) for run in (first, second)]
    for run in (first, second):
        served.log(run, until="Finished in state Failed(")  # the server would know of a task by then
    assert [one["state_type"] for one in ended] == ["FAILED", "FAILED"]
    assert "filter.strategy = 'proces'" in ended[0]["state"]["message"]
    assert "dvc.yaml has no stage 'reprot'; it has report, download" in ended[1]["state"]["message"]
    assert served.tasks(first) == served.tasks(second) == []


@pytest.mark.rare
def test_a_grid_ends_in_a_comparison_and_one_failure_does_not_stop_it(served: Served) -> None:
    runs = [
        {"filter.strategy": "both", "seed": 13},
        {"filter.strategy": "both"},
        {"filter.strategy": "outcome"},
        {"filter.strategy": "outcome", "report.samples": 0},  # its results fit no table
    ]
    run = served.run("swirl-experiments", runs=runs)
    ended = served.ended(run)
    name = ended["name"]
    assert (ended["state_type"], ended["state"]["message"]) == ("FAILED", f"1 of 4 runs failed: {name}-1")
    assert [list(row.values()) for row in served.artifacts(run)["comparison"]] == [
        ["outcome", "as in params.yaml", 1, "swirl", 0.67, 0.22, 0.22, 0.22, f"{name}-3"],
        ["outcome", "as in params.yaml", 1, "sft", 2.0, 0.21, 0.21, 0.21, f"{name}-3"],
        ["both", "as in params.yaml", 1, "swirl", 0.67, 0.12, 0.12, 0.12, f"{name}-2"],
        ["both", "as in params.yaml", 1, "sft", 2.0, 0.11, 0.11, 0.11, f"{name}-2"],
        ["both", 13, None, "", None, None, f"{name}-1 failed"],
    ]
    only = {"flow_runs": {"name": {"any_": [f"{name}-1", f"{name}-3"]}}}  # one page of all runs may lack them
    by_name = {one["name"]: one for one in served.post("flow_runs/filter", only)}
    failure = served.artifacts(by_name[f"{name}-1"]["id"])
    assert "## expect_one on steps.id" in failure["failed-gate"]
    assert "| a\\|b | 7 |" in failure["failed-gate"]
    assert failure["quality-gates"][0]["result"] == "FAILED"
    served.ran(by_name[f"{name}-3"]["id"], ("download", "Cached"), *((one, "Completed") for one in ORDER[1:]))
    assert "The comparison is not complete: 'filters'" in served.log(run, until="The comparison is not complete")

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
    assert child.data.tags["override.filter.max_trajectories"] == '["both", "outcome"]'
    assert child.info.artifact_uri.startswith((served.root / "mlartifacts").as_uri())
    assert (parent.info.status, child.info.status) == ("FAILED", "FINISHED")


def test_ending_the_worker_ends_the_run_under_way(served: Served) -> None:
    """Must be the last test of this file: it ends the server and worker that the others use."""
    served.run("swirl-on-demand", overrides={"seed": 98})
    processes = hanging(served, 98)
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(300)
    psutil.wait_procs(processes, timeout=60)
    assert running(processes) == []
