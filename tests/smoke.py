"""The whole pipeline at its smallest, in a temporary copy of the project: `make smoke`, `make smoke-prefect`.

Copies the files that git tracks or would add, chooses the preset `smoke`, runs `dvc repro`, prints the results, asks
the tuned model a question, shows metrics and plots, and runs `dvc repro` again, which must find nothing to do. The same
must hold in a clone that pulled the run from a DVC remote. With `--schedule`, a server and a worker then serve the
copy, the schedule of swirl-nightly fires, and its run, which runs every stage again, is read back over the API. That
doubles the time, so continuous integration leaves it out.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from swirl.bench.overhead import copy_project
from swirl.config import presets
from tests.prefect_api import serving

ROOT = Path(__file__).resolve().parent.parent
NO_OP_SECONDS = 6.0
"""Limit on processor time of a `dvc repro` with nothing to do, high enough for a busy machine; the aim is 2 s."""
ASK = ["swirl", "ask", "Ann has 3 pens. She finds 2 pens.", "--benchmark", "mini-gsm8k", "--model", "models/swirl"]


def main() -> None:
    """Run the smoke test; ends with a message and a non-zero exit status when something is wrong."""
    with tempfile.TemporaryDirectory(prefix="swirl-smoke-") as folder:
        copy = Path(folder) / "project"
        copy_project(ROOT, copy)
        presets.write(copy, presets.tree(copy, "smoke"), "smoke")
        environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": f"{folder}/dvc",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "commit.gpgsign",
            "GIT_CONFIG_VALUE_0": "false",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(copy / "src"),
        }
        run(["git", "init", "-q"], copy, environment)
        run(["dvc", "repro"], copy, environment)
        run(["swirl", "report", "--text"], copy, environment)
        answer = json.loads(check_quiet([*ASK, "--json"], copy, environment))
        if not {"answer", "stop", "steps"} <= answer.keys():
            sys.exit(f"smoke: swirl ask answered {answer}")
        check_quiet(["dvc", "metrics", "show"], copy, environment)
        check_quiet(["dvc", "plots", "show"], copy, environment)
        check_no_op(copy, environment)
        check_second_clone(copy, Path(folder), environment)
        print("smoke: the pipeline ran and reported; a second run, and one in a clone that pulled, had nothing to do")
        if "--schedule" in sys.argv[1:]:
            check_schedule(copy, Path(folder), environment)
            print("smoke: a schedule fired, and its run ran every stage")


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command with its output shown; ends this program when it fails."""
    print(f"smoke: {' '.join(command)}", flush=True)
    status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if status:
        sys.exit(f"smoke: {' '.join(command)} failed with exit status {status}")


def check_quiet(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a command and return its output without showing it; ends this program when it fails or warns."""
    print(f"smoke: {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    if done.returncode or "WARNING" in done.stderr:
        sys.exit(f"smoke: {' '.join(command)} (exit status {done.returncode}) said:\n{done.stderr}")
    return done.stdout


def check_no_op(folder: Path, environment: dict[str, str]) -> None:
    """A `dvc repro` on an unchanged project runs nothing, and says so."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(["dvc", "repro"], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Running stage" in done.stdout or "up to date" not in done.stdout:
        sys.exit(f"smoke: a second dvc repro did something:\n{done.stdout}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"smoke: a second dvc repro took {seconds:.1f} s of processor time")
    if seconds > NO_OP_SECONDS:
        sys.exit(f"smoke: that is too slow; {NO_OP_SECONDS} s would still be slow")


def check_second_clone(first: Path, folder: Path, environment: dict[str, str]) -> None:
    """A clone that pulls the run from a DVC remote (a folder) has all of it, and nothing to run."""
    identity = ["-c", "user.name=smoke", "-c", "user.email=smoke@localhost"]
    run(["dvc", "remote", "add", "--quiet", "--default", "store", str(folder / "store")], first, environment)
    run(["dvc", "push", "--quiet"], first, environment)
    run(["git", "add", "--all"], first, environment)
    run(["git", *identity, "commit", "--quiet", "--message", "a run"], first, environment)
    second = folder / "second"
    run(["git", "clone", "--quiet", str(first), str(second)], folder, environment)
    environment = {**environment, "PYTHONPATH": str(second / "src"), "DVC_SITE_CACHE_DIR": f"{folder}/dvc-second"}
    run(["dvc", "pull", "--quiet"], second, environment)
    check_no_op(second, environment)
    run(["swirl", "report", "--text"], second, environment)


def check_schedule(project: Path, folder: Path, environment: dict[str, str]) -> None:
    """The nightly deployment, here every ten seconds and forced, fires and completes; what it shows is read back."""
    began = time.monotonic()
    deployments = yaml.safe_load((project / "prefect.yaml").read_text(encoding="utf-8"))
    nightly = next(one for one in deployments["deployments"] if one["name"] == "swirl-nightly")
    nightly |= {"schedules": [{"interval": 10}], "parameters": {"force": True, "parallel": 2}}
    (project / "prefect.yaml").write_text(yaml.safe_dump(deployments), encoding="utf-8")
    kept = {key: value for key, value in environment.items() if not key.startswith(("PREFECT", "SWIRL", "MLFLOW"))}
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "1"}
    stages = list(yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"])
    results = json.loads((project / "reports/results.json").read_text(encoding="utf-8"))
    print("smoke: python flows/server.py up, with swirl-nightly every ten seconds", flush=True)
    with serving(project, {**kept, **quick, "PREFECT_HOME": str(folder / "prefect")}, folder / "served.log") as served:
        run = served.fired("swirl-nightly")
        log = served.whole_log(run["id"])
        if run["state_type"] != "COMPLETED":
            sys.exit("\n".join([*log, f"smoke: the scheduled run ended so: {run['state']}"]))
        ran = sorted((name, "Completed") for name in stages)
        served.wait(lambda: sorted(served.tasks(run["id"])) == ran, 60, lambda: served.tasks(run["id"]))
        shown = served.artifacts(run["id"])
    if not {f"Running stage '{name}':" for name in stages} <= {*log}:
        sys.exit("\n".join([*log, "smoke: the log of the scheduled run lacks a stage"]))
    if [row["result"] for row in shown["quality-gates"]] != ["passed"] * 3 or "mlflow-run" not in shown:
        sys.exit(f"smoke: the scheduled run shows {shown}")
    if [row["n"] for row in shown["results"]] != [score["n"] for score in results["scores"]]:
        sys.exit(f"smoke: the scheduled run shows other results: {shown['results']}")
    print(f"smoke: {len(stages)} stages on a schedule took {time.monotonic() - began:.0f} s, the server included")


if __name__ == "__main__":
    main()
