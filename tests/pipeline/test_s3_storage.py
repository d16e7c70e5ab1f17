"""DVC's remote and MLflow's artifacts on S3-compatible storage: a real server (moto's) on 127.0.0.1, real clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swirl import tracking
from swirl.core.layout import Layout
from tests import servers
from tests.pipeline.test_dvc_runs import lay_out

pytestmark = pytest.mark.rare
pytest.importorskip("moto", reason="the extra dev has moto, a local S3 server")

BUCKET, KEY, SECRET = "swirl", "a-key-for-tests", "a-secret-for-tests"
PARAMS = {"seed": 7, "tracking": {"experiment": "on-s3", "artifacts": f"s3://{BUCKET}/runs"}}
DVC_YAML = """
stages:
  train:
    foreach: [sft, swirl]
    do:
      cmd: python x.py
      params: [seed]
      outs: ["models/${item}"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server of its own, with an empty bucket."""
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with servers.held_port() as port, log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        running = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            servers.answers(f"http://127.0.0.1:{port}/moto-api/", running, log.read_text)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.kill()
            running.wait()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, whose address and keys are in the environment, and nothing else of the user's."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in {
        "NO_PROXY": "127.0.0.1,localhost",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "MLFLOW_S3_ENDPOINT_URL": server,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=server)
    client.create_bucket(Bucket=BUCKET)
    return client


def stored(client: Any, prefix: str) -> dict[str, bytes]:
    """Name -> content of all that is in the bucket below `prefix`."""
    listed = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    names = [found["Key"] for page in listed for found in page.get("Contents", ())]
    return {name.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}


def said(folder: Path, *command: str) -> str:
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder.parent / f"{folder.name}-site")}
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(folder: Path, *arguments: str) -> str:
    return said(folder, sys.executable, "-m", "dvc", *arguments)


def test_a_fresh_clone_pulls_and_runs_nothing(root: Path, server: str, bucket: Any, tmp_path: Path) -> None:
    """The real dvc.yaml: pushed from one folder, cloned without its data, pulled; `dvc repro` has nothing to do."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    lay_out(root, first)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    said(first, *git, "init", "--quiet")
    dvc(first, "init", "--quiet")
    dvc(first, "remote", "add", "--default", "storage", f"s3://{BUCKET}/data")
    dvc(first, "remote", "modify", "storage", "endpointurl", server)
    assert len(re.findall("Running stage", dvc(first, "repro"))) == 17
    said(first, *git, "add", "--all")
    said(first, *git, "commit", "--quiet", "-m", "a run")
    dvc(first, "push")
    assert len(stored(bucket, "data/files/md5/")) > 17

    said(tmp_path, *git, "clone", "--quiet", str(first), str(second))
    outs = ["data/questions", "models/base", "models/swirl", "data/steps"]
    assert not [out for out in outs if (second / out).exists()]
    dvc(second, "pull")
    for out in outs:
        assert tree(second / out) == tree(first / out) != {}
    assert "up to date" in dvc(second, "status")
    assert "Running stage" not in dvc(second, "repro")
    assert "Everything is up to date" in dvc(second, "push")
    assert not holding(second, KEY, SECRET)
    assert not holding(first, KEY, SECRET)


def test_a_run_s_artifacts_and_checkpoints_go_to_the_bucket(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    layout = project_of(tmp_path / "project")
    checkpoint = layout.root / ".swirl/checkpoints/train-swirl/mark/step-000002"
    with tracking.stage_run("train-swirl", PARAMS, layout):
        made = checkpoint.parent / ".making"
        made.mkdir(parents=True)
        (made / "weights.bin").write_bytes(b"\0" * 5000)
        (made / "record.json").write_text(json.dumps({"series": [{"step": 2, "reward": 0.5}]}), encoding="utf-8")
        made.rename(checkpoint)
        (layout.model("swirl")).mkdir(parents=True)
        (layout.model("swirl") / "model.bin").write_bytes(b"weights")
    client = MlflowClient(f"sqlite:///{layout.root}/mlflow.db")
    experiment = client.get_experiment_by_name("on-s3")
    (run,) = [r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "train@swirl"]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri == f"s3://{BUCKET}/runs/{run.info.run_id}/artifacts"
    there = stored(bucket, f"runs/{run.info.run_id}/artifacts/")
    assert there["checkpoints/step-000002/weights.bin"] == b"\0" * 5000
    assert there["models/swirl/model.bin"] == b"weights"
    fetched = Path(client.download_artifacts(run.info.run_id, "models/swirl", str(tmp_path)))
    assert tree(fetched) == {"model.bin": b"weights"}
    assert not (layout.root / "mlartifacts").exists()
    printed = capfd.readouterr()
    assert "warning" not in printed.err
    assert not [word for word in (KEY, SECRET) if word in printed.out + printed.err]
    assert not holding(layout.root, KEY, SECRET)
    assert not [
        name for name, held in stored(bucket, "runs/").items() if SECRET.encode() in held or KEY.encode() in held
    ]


def test_storage_that_is_down_keeps_what_was_to_be_sent(
    server: str,
    bucket: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    swirl: Any,
) -> None:
    layout = project_of(tmp_path / "project")
    with servers.nobody() as gone:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", gone)
        with tracking.stage_run("train-sft", PARAMS, layout):
            (layout.model("sft")).mkdir(parents=True)
            (layout.model("sft") / "model.bin").write_bytes(b"weights")
    warned = capfd.readouterr().err
    assert "stage train-sft is not recorded in MLflow" in warned
    assert "It is kept; `swirl track sync` sends it" in warned
    before = len(stored(bucket, "runs/"))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", server)
    assert swirl("track", "sync", cwd=layout.root).returncode == 0
    arrived = stored(bucket, "runs/")
    assert len(arrived) > before
    assert [held for name, held in arrived.items() if name.endswith("models/sft/model.bin")] == [b"weights"]
    assert not holding(layout.root, KEY, SECRET)


def test_an_experiment_keeps_the_place_that_it_has(
    bucket: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layout = project_of(tmp_path / "project")
    with tracking.stage_run("train-sft", {"seed": 7, "tracking": {"experiment": "on-s3"}}, layout):
        pass
    with tracking.stage_run("train-sft", PARAMS, layout):
        pass
    said = " ".join(capfd.readouterr().err.split())
    assert (
        f"MLflow's experiment 'on-s3' keeps its artifacts in {(layout.root / 'mlartifacts').as_uri()}, for good" in said
    )
    assert f"to another name for s3://{BUCKET}/runs, or tracking.artifacts to ''" in said


def project_of(root: Path) -> Layout:
    root.mkdir()
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    return Layout(root)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def holding(folder: Path, *words: str) -> list[Path]:
    """The files below `folder` that hold one of these words."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            found += [path] if any(word.encode() in held for word in words) else []
    return found
