"""Every stage names all that it reads: with nothing but its dependencies, it makes the same bytes."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.pipeline.dvc_file import DvcStage, read_stages
from swirl.pipeline.stages import STAGES
from tests.stages.conftest import ROOT, clone

pytestmark = pytest.mark.slow

NAMES = [f"{name}@{item}" if item else name for name, stage in STAGES.items() for item in stage.items or ("",)]
LENIENT = {
    "check_questions": {"min_evaluation": 1},
    "check_trajectories": {
        "max_malformed_rate": 1.0,
        "max_cut_rate": 1.0,
        "max_tool_error_rate": 1.0,
        "min_benchmark_share": 0.0,
    },
    "check_steps": {"min_good_share": 0.0, "max_good_share": 1.0, "min_rows": 1},
    "train": {"swirl": {"updates": 2}},
}
"""The gates pass whatever a tiny model does."""


@pytest.fixture(scope="module")
def lenient(params: Params) -> Params:
    return validate(laid_over(params.model_dump(), LENIENT), "tests")


@pytest.fixture(scope="module")
def stages(lenient: Params) -> dict[str, DvcStage]:
    return read_stages(ROOT, lenient.model_dump())


@pytest.fixture(scope="module")
def whole(lenient: Params, project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project after every stage, each run in its turn."""
    layout = clone(project, tmp_path_factory.mktemp("whole") / "root")
    for name in ("check_questions", *NAMES[NAMES.index("reward_model") :]):  # its base is taught, not made by a stage
        run(name, lenient, layout)
    return layout


def run(name: str, params: Params, layout: Layout) -> None:
    stage, _, item = name.partition("@")
    import_module(f"swirl.stages.{stage}").run(params, layout, *([item] if item else []))


def files(root: Path, outs: tuple[str, ...]) -> dict[str, bytes]:
    found = [path for out in outs for path in ([root / out] if (root / out).is_file() else (root / out).rglob("*"))]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found if path.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_with_its_dependencies_alone_a_stage_makes_the_same(
    name: str, lenient: Params, stages: dict[str, DvcStage], whole: Layout, tmp_path: Path
) -> None:
    stage, layout = stages[name], Layout(tmp_path)
    for dep in stage.deps:
        source = whole.root / dep
        if source.is_dir():
            shutil.copytree(source, tmp_path / dep, dirs_exist_ok=True)
        elif source.exists():
            (tmp_path / dep).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / dep)
    run(name, lenient, layout)
    made = files(tmp_path, stage.outs)
    assert made
    if name != "base_model":
        assert made == files(whole.root, stage.outs)
