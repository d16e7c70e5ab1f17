"""`dvc exp run --temp` with the real DVC: its record and a paid judge's answers are in the project afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.core.records import load
from swirl.core.types import Trajectory
from tests.servers import Scripted, said
from tests.stages.conftest import ROOT
from tests.stages.test_sources import WRITES, changed, served

pytestmark = pytest.mark.slow

DVC_YAML = f"""
stages:
  judge:
    cmd: {sys.executable} -m swirl stage judge
    deps: [data/trajectories]
    params: [seed, runtime, prompts.judge, rollout.block_size, reward_model, judge]
    outs: [data/verdicts]
    metrics: [reports/metrics/judge.json: {{cache: false}}]
"""


def run(root: Path, *command: str) -> str:
    who = {
        f"GIT_{role}_{what}": "someone@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    own = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root.with_name("site")), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, **who, **own, "GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_record_and_the_paid_answers_of_a_temporary_run_stay(params: Params, copy: Layout) -> None:
    from mlflow.tracking import MlflowClient

    root = copy.root
    for gone in (".swirl", "data/verdicts", "data/steps", "reports"):
        shutil.rmtree(root / gone)
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / ".gitignore").write_text(".swirl/\nmlflow.db*\nmlartifacts/\n", encoding="utf-8")
    dvc = (sys.executable, "-m", "dvc")
    with Scripted(lambda _: said("It helps.\nGOOD")) as judge:
        server = served(judge.url, "judge", "chat")
        paid = changed(params, reward_model={"source": "endpoint", **WRITES, "server": server})
        (root / "params.yaml").write_text(yaml.safe_dump(paid.model_dump()), encoding="utf-8")
        run(root, "git", "init", "--quiet")
        run(root, *dvc, "init", "--quiet")
        run(root, "git", "add", "-A")
        run(root, "git", "commit", "--quiet", "-m", "all")
        run(root, *dvc, "exp", "run", "--temp", "--name", "first")
        asked = len(judge.bodies)
        assert asked > 50
        run(root, *dvc, "exp", "run", "--temp", "--name", "second", "-S", "judge.threshold=0.4")
        assert len(judge.bodies) == asked  # every answer was kept
    assert not list((root / ".dvc/tmp/exps/standalone").glob("tmp*"))  # DVC has deleted the copies
    assert len(list((root / ".swirl/answers").rglob("*.json"))) > 50

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == paid.tracking.experiment]
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'judge'")
    steps = [step for trajectory in load(Trajectory, copy.trajectories) for step in trajectory.steps]
    good = sum(step.action.kind != "cut" for step in steps) / len(steps)  # a cut action is BAD without asking
    assert good > 0.9
    found = [(one.info.status, one.data.metrics["steps_good"]) for one in runs]
    assert found == [("FINISHED", pytest.approx(good))] * 2
    assert sorted(one.data.params["judge.threshold"] for one in runs) == ["0.4", "0.5"]
    files = {file.path for one in runs for file in client.list_artifacts(one.info.run_id)}
    assert files and (root / "mlartifacts").is_dir()
    assert len({one.data.tags["mlflow.parentRunId"] for one in runs}) == 2
    assert not (root / ".swirl/tracking/mlflow.db").exists()  # nothing waits
