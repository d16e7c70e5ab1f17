"""The real DVC on the real dvc.yaml, with commands that only write their outputs: what an edit runs again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

STUB = """
import sys
from pathlib import Path
import yaml
from swirl.pipeline.dvc_file import read_stages

stages = read_stages(Path("."), yaml.safe_load(Path("params.yaml").read_text()))
_, _, name, *item = sys.argv
for out in stages["@".join([name, *item[1:]])].outs:
    path = Path(out if Path(out).suffix else f"{out}/made.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(out)
    if out == "models/base":
        Path("models/base/ceiling").mkdir(exist_ok=True)
        Path("models/base/ceiling/made.txt").write_text("ceiling")
"""
TRAIN = {"train@sft", "train@swirl"}
EVALUATE = {f"evaluate@{model}" for model in ("ceiling", "base", "sft", "swirl")}


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's pipeline after one run. Files of src/swirl may be changed; what is changed runs once more."""
    folder = tmp_path_factory.mktemp("pipeline")
    lay_out(root, folder)
    dvc(folder, "init", "--no-scm", "--quiet")
    assert len(again(folder)) == 17
    return folder


def lay_out(root: Path, folder: Path) -> None:
    """Put the repository's pipeline into `folder`, with a command that only writes outputs."""
    for name in ("src/swirl", "data/official", "data/tools"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "constraints.txt", "constraints-compute.txt", ".dvcignore"):
        shutil.copy(root / name, folder / name)
    text = (root / "dvc.yaml").read_text(encoding="utf-8")
    command = f"{sys.executable} stub.py"
    (folder / "dvc.yaml").write_text(re.sub(r"(?m)^  - swirl: .*$", f"  - swirl: {command}", text), encoding="utf-8")
    (folder / "stub.py").write_text(STUB, encoding="utf-8")


def dvc(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "site")}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def again(folder: Path) -> set[str]:
    """The stages that `dvc repro` runs."""
    return set(re.findall(r"Running stage '(.+)'", dvc(folder, "repro")))


def append(text: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/swirl/reporting/page.py", {"report"}),
        ("src/swirl/rl/objective.py", TRAIN),
        ("src/swirl/evaluation/scoring.py", EVALUATE),
        ("src/swirl/judging/verdicts.py", {"judge", *TRAIN, *EVALUATE}),
        ("src/swirl/judging/filters.py", {"filter"}),
        ("src/swirl/endpoints/client.py", {"judge", *TRAIN, *EVALUATE}),
        ("src/swirl/pretraining/training.py", {"base_model", "reward_model"}),
        ("src/swirl/stages/synthesize.py", {"synthesize"}),
        ("src/swirl/pipeline/progress.py", set()),
        ("src/swirl/tracking/recording.py", set()),
        ("src/swirl/mlflow_store/runs.py", set()),
        ("src/swirl/cli/main.py", set()),
        ("src/swirl/config/train.py", set()),
        ("constraints.txt", set()),
    ],
)
def test_an_edit_runs_these_stages_again_and_no_other(path: str, expected: set[str], project: Path) -> None:
    append("\n# edited\n")(project / path)
    assert again(project) == expected


@pytest.mark.rare
def test_another_version_of_what_is_computed_with_runs_all_that_compute_with_it(project: Path) -> None:
    file = project / "constraints-compute.txt"
    file.write_text(file.read_text(encoding="utf-8").replace("torch==", "torch==1"), encoding="utf-8")
    ran = again(project)
    assert {"base_model", "synthesize", "judge", "filter", *TRAIN, *EVALUATE} <= ran  # the filter computes with numpy
    assert "check_questions" not in ran


def test_a_file_that_importing_leaves_runs_nothing(project: Path) -> None:
    folder = project / "src/swirl/core/__pycache__"
    folder.mkdir()
    (folder / "types.cpython-311.pyc").write_bytes(b"made by an import")
    assert again(project) == set()


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (("clients", "default", "cost_per_million_input"), 3.0, set()),
        (("clients", "default", "timeout_s"), 9.0, set()),
        (("tool_calls", "in_flight"), 16, set()),
        (("execution", "engine"), "ray", set()),
        (("runtime", "processes"), 2, TRAIN),
        (("tracking", "traces"), 1, set()),
        (("judge", "outcome"), "model", {"judge", *EVALUATE}),
        (("judge", "threshold"), 0.4, {"judge", *TRAIN, *EVALUATE}),
        (("evaluate", "judge"), {"source": "pretrained"}, EVALUATE),
        (("train", "swirl", "lr"), 1e-3, {"train@swirl"}),
    ],
)
def test_a_changed_setting_runs_these_stages_again(
    keys: tuple[str, ...], value: object, expected: set[str], project: Path
) -> None:
    file = project / "params.yaml"
    tree = inside = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = value
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert again(project) == expected
