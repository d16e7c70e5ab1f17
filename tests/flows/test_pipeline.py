"""`python flows/pipeline.py` over a small real DVC project, twice, with Prefect's own records read back."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import pipeline as flow
from flows.graph import plan
from swirl.core.errors import DataError

FLOW = Path(__file__).parents[2] / "flows/pipeline.py"
STAGES = """
stages:
  last:
    cmd: python stage.py last
    deps: [middle-a.txt, middle-b.txt]
    outs: [last.txt]
  middle:
    foreach: [a, b]
    do:
      cmd: python stage.py middle-${item}
      deps: [first.txt]
      outs:
        - middle-${item}.txt
  first:
    cmd: python stage.py first
    params: [x]
    outs: [first.txt]
"""
STAGE = """
import os, signal, sys, time
name = sys.argv[1]
print(name, "belongs to", os.environ["SWIRL_RUN_ID"])
if name == "hang":
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(1)))  # outlives DVC by a second
    open("hang.pid", "w").write(str(os.getpid()))
    time.sleep(3600)
if name == "broken":
    sys.exit("row 3 is broken")
open(name + ".txt", "w").write(name)
"""
BROKEN = """
  broken:
    cmd: python stage.py broken
    deps: [last.txt]
    outs: [broken.txt]
  never:
    cmd: python stage.py never
    deps: [broken.txt]
    outs: [never.txt]
"""
HANG = """
  hang:
    cmd: python stage.py hang
    outs: [hang.txt]
"""


def environment(project: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "SWIRL", "MLFLOW"))}
    return {**kept, "PREFECT_HOME": str(project / ".prefect"), "DVC_NO_ANALYTICS": "1"}


def run_flow(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FLOW), "--project", str(project), *arguments]
    return subprocess.run(command, env=environment(project), capture_output=True, text=True, timeout=600, check=False)


def recorded(project: Path) -> list[tuple[str, str]]:
    """(flow, state name) of Prefect's flow runs, oldest first."""
    flow = "(SELECT name FROM flow WHERE id = flow_id)"
    with sqlite3.connect(project / ".prefect/prefect.db") as database:
        return list(database.execute(f"SELECT {flow}, state_name FROM flow_run ORDER BY start_time"))


def tasks(log: str) -> list[tuple[str, str]]:
    """(name, state name) of tasks in the order they ended; from the log, as the server records them only later."""
    return re.findall(r"Task run '(.+)' - Finished in state (\w+)", log)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (folder / "stage.py").write_text(STAGE, encoding="utf-8")
    (folder / "params.yaml").write_text("x: 1\n", encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return folder


@pytest.mark.slow
def test_flow_runs_stages_in_dvc_order_then_finds_them_cached_and_stops_at_a_failure(project: Path) -> None:
    """One test, because each flow starts a server, which takes seconds."""
    first = run_flow(project)
    assert first.returncode == 0, first.stderr
    assert recorded(project) == [("swirl-pipeline", "Completed")]
    order = ["first", "middle@a", "middle@b", "last"]
    assert tasks(first.stderr) == [(name, "Completed") for name in order]
    assert first.stderr.count("Task run 'middle@a' - middle-a belongs to ") == 1

    with (project / "dvc.yaml").open("a", encoding="utf-8") as file:
        file.write(BROKEN)
    (project / "middle-b.txt").unlink()
    second = run_flow(project)
    assert second.returncode == 1
    assert "stage broken failed" in second.stderr
    assert "row 3 is broken" in second.stderr.rpartition("stage broken failed")[2]
    assert recorded(project)[1] == ("swirl-pipeline", "Failed")
    assert tasks(second.stderr) == [*((name, "Cached") for name in order), ("broken", "Failed")]
    assert not (project / "never.txt").exists()

    parents = mlflow_parents(project)
    assert [status for status, _ in parents] == ["FINISHED", "FAILED"]
    assert f"last belongs to {parents[0][1]}" in first.stderr


def mlflow_parents(project: Path) -> list[tuple[str, str]]:
    """(status, run id) of the MLflow parent runs of flows, oldest first."""
    with sqlite3.connect(project / "mlflow.db") as database:
        return list(database.execute("SELECT status, run_uuid FROM runs WHERE name LIKE 'flow %' ORDER BY start_time"))


def command_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if the process has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("number", "state"), [(signal.SIGINT, "Cancelled"), (signal.SIGTERM, "Crashed")])
def test_a_stopped_flow_leaves_no_stage_behind_and_nothing_has_failed(
    number: signal.Signals, state: str, project: Path
) -> None:
    """Ctrl-C reaches all that the terminal's program started in its group, Prefect's server, too."""
    (project / "hang.pid").unlink(missing_ok=True)
    if HANG not in (project / "dvc.yaml").read_text(encoding="utf-8"):
        with (project / "dvc.yaml").open("a", encoding="utf-8") as file:
            file.write(HANG)
    command = [sys.executable, str(FLOW), "--project", str(project), "--target", "hang"]
    log = project / "flow.log"
    with log.open("wb") as output:
        flow = subprocess.Popen(
            command,
            env=environment(project),
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
        )
    pid, deadline = project / "hang.pid", time.monotonic() + 600
    while not pid.exists() or not pid.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        assert flow.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    stage = int(pid.read_text(encoding="utf-8"))
    started = psutil.Process(flow.pid).children(recursive=True)
    assert stage in [one.pid for one in started]
    assert any("uvicorn" in command_of(one) for one in started)  # the server that Prefect started
    if number == signal.SIGINT:
        os.killpg(flow.pid, number)
    else:
        flow.send_signal(number)
    assert flow.wait(300) != 0
    assert [one for one in started if runs(one)] == []
    assert mlflow_parents(project)[-1][0] == "KILLED"
    said = log.read_text(encoding="utf-8")
    assert recorded(project)[-1] == ("swirl-pipeline", state), said
    assert tasks(said) == [("hang", "Cancelled")], said
    assert "Traceback" not in said


def test_a_file_of_settings_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: [1", encoding="utf-8")
    command = [sys.executable, str(FLOW), "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"swirl: {tmp_path}/params.yaml is not YAML: ")


def test_a_folder_that_dvc_cannot_open_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(DataError, match=f"^{folder} is no DVC project; --project is the folder with dvc.yaml "):
            plan(folder)
    unpacked = tmp_path / "zip"
    (unpacked / ".dvc").mkdir(parents=True)
    (unpacked / "dvc.yaml").write_text("stages: {a: {cmdd: x}}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"^{unpacked} is no git repository, which DVC needs; say there: git init && "):
        plan(unpacked)
    subprocess.run(["git", "init", "-q"], cwd=unpacked, check=True)
    with pytest.raises(DataError, match=f"^DVC cannot read {unpacked}: .*dvc.yaml' validation failed"):
        plan(unpacked)
    command = [sys.executable, str(FLOW), "--project", str(tmp_path / "empty")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"swirl: {tmp_path}/empty is no DVC project; ")


def test_a_project_that_cannot_be_written_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As DVC says it, which writes into `.dvc/tmp` whatever it is asked."""

    def refuse(*given: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{tmp_path}/.dvc/tmp")

    said = f"{tmp_path}/.dvc/tmp cannot be written: Read-only file system"
    monkeypatch.setattr(flow, "plan", refuse)
    monkeypatch.setattr(flow, "end_with_server", lambda: None)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--project", str(tmp_path)])
    assert flow.main() == 1
    assert capsys.readouterr().err == f"swirl: {said}\n"
    monkeypatch.setattr(flow, "run", refuse)
    assert flow.pipeline.fn(project=str(tmp_path)).message == said


def test_settings_that_are_none_are_refused_with_a_sentence() -> None:
    command = [sys.executable, str(FLOW), "--set", "train.swirl.lr=[1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: --set train.swirl.lr=[1: the value is not YAML: while parsing a flow sequence" in done.stderr


def test_help_names_the_options() -> None:
    done = subprocess.run([sys.executable, str(FLOW), "--help"], capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--target", "--force", "--parallel", "--project"))
