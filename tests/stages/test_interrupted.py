"""With the real DVC: a kill before DVC has taken a stage's outputs, and inputs that change while a stage runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import yaml

from swirl.core.layout import Layout
from tests.stages.conftest import ROOT

pytestmark = pytest.mark.slow

DVC_YAML = f"""
stages:
  judge:
    cmd: {sys.executable} -m swirl stage judge
    deps: [data/trajectories, data/questions, models/reward, src/swirl/prompts/judge]
    params: [seed, runtime, prompts.judge, rollout.block_size, reward_model, judge]
    outs: [data/verdicts]
    metrics: [reports/metrics/judge.json: {{cache: false}}]
  filter:
    cmd: {sys.executable} -m swirl stage filter
    deps: [data/trajectories, data/verdicts]
    params: [seed, filter]
    outs: [data/steps, reports/filters.json: {{cache: false}}]
    metrics: [reports/metrics/filter.json: {{cache: false}}]
"""


@pytest.fixture
def piped(copy: Layout) -> Layout:
    """The project with a pipeline of two stages, which DVC has not run yet."""
    shutil.rmtree(copy.root / ".swirl")
    (copy.root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    dvc(copy, "init", "--no-scm", "--quiet")
    return copy


def start(layout: Layout, *command: str) -> subprocess.Popen[str]:
    own = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(layout.root / ".dvc/site")}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=layout.root,
        env={**os.environ, **own, "PYTHONPATH": str(ROOT / "src")},
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def dvc(layout: Layout, *arguments: str) -> str:
    process = start(layout, "dvc", *arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.002)


def kill_before_dvc_takes(layout: Layout, *arguments: str) -> None:
    """Kill DVC and its stage once the stage has made its outputs."""
    note = layout.root / ".swirl/finished/judge.json"
    process = start(layout, "dvc", "repro", *arguments, "judge")
    wait_for(note.exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def blocks(layout: Layout) -> dict[str, int]:
    """When each committed block of judge was made."""
    found = layout.root.glob(".swirl/journals/judge/*/block-*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.rare
def test_killed_before_dvc_has_taken_the_output_nothing_is_worked_out_twice(piped: Layout) -> None:
    verdicts = piped.verdicts
    kill_before_dvc_takes(piped)
    assert verdicts.exists() and not (piped.root / "dvc.lock").exists()
    made = blocks(piped)
    assert len(made) == 36

    again = "DVC has not taken the outputs that judge made last"
    assert again in dvc(piped, "repro", "judge")
    assert blocks(piped) == made
    recorded = yaml.safe_load((piped.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]["judge"]["outs"]
    assert [out["path"] for out in recorded] == ["data/verdicts", "reports/metrics/judge.json"]

    assert again not in dvc(piped, "repro", "--force", "judge")  # DVC has it, so it is made anew, to the same bytes
    anew = blocks(piped)
    assert anew.keys() == made.keys() and not anew.items() & made.items()
    kill_before_dvc_takes(piped, "--force")  # dvc.lock and the cache still hold the same verdicts
    assert again not in dvc(piped, "repro", "--force", "judge")

    dvc(piped, "repro", "filter")  # any stage that starts finds that judge's output stands
    assert not (piped.root / ".swirl/journals/judge").exists()
    assert not list((piped.root / ".swirl/finished").iterdir())


@pytest.mark.rare
def test_what_dvc_s_cache_does_not_hold_is_not_safe_though_dvc_lock_lists_it(piped: Layout) -> None:
    """As in a fresh clone of a project whose dvc.lock is in git."""
    dvc(piped, "repro", "judge")
    for path in (piped.root / ".dvc/cache/files").rglob("*"):
        path.unlink() if path.is_file() else None
    made = blocks(piped)
    piped.verdicts.unlink()
    assert "DVC has not taken the outputs that judge made last" in dvc(piped, "repro", "judge")
    assert blocks(piped) == made


@pytest.mark.rare
def test_settings_that_change_in_between_lose_nothing(piped: Layout) -> None:
    kill_before_dvc_takes(piped)
    made = blocks(piped)
    settings = piped.root / "params.yaml"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(before.replace("threshold: 0.5", "threshold: 0.4"), encoding="utf-8")
    assert settings.read_text(encoding="utf-8") != before
    dvc(piped, "repro", "judge")
    dvc(piped, "repro", "filter")
    settings.write_text(before, encoding="utf-8")
    dvc(piped, "repro", "judge")
    assert blocks(piped) == made


@pytest.mark.rare
def test_started_by_hand_it_makes_its_outputs_anew(piped: Layout) -> None:
    made: list[dict[str, int]] = []
    for _ in range(2):
        process = start(piped, "swirl", "stage", "judge")
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        made.append(blocks(piped))
    assert made[0].keys() == made[1].keys() and not made[0].items() & made[1].items()


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        ("params.yaml", "judge in params.yaml"),
        pytest.param(
            "src/swirl/prompts/judge/reward.txt", "src/swirl/prompts/judge/reward.txt", marks=pytest.mark.rare
        ),
    ],
)
def test_what_is_edited_while_a_stage_runs_is_named_and_dvc_records_nothing(
    edited: str, said: str, piped: Layout
) -> None:
    path = piped.root / edited
    before = path.read_text(encoding="utf-8")
    after = before.replace("threshold: 0.5", "threshold: 0.4") if edited == "params.yaml" else f"Think. {before}"
    assert after != before
    process = start(piped, "dvc", "repro", "judge")
    wait_for(lambda: bool(blocks(piped)), process)
    path.write_text(after, encoding="utf-8")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert f"while judge ran, something that it depends on was changed: {said}. " in printed
    assert not (piped.root / "dvc.lock").exists()
    made = blocks(piped)
    assert len(made) == 36

    dvc(piped, "repro", "judge")  # with the new, from the start
    assert len(list(piped.root.glob(".swirl/journals/judge/*/block-*.parquet"))) == 72
    path.write_text(before, encoding="utf-8")
    dvc(piped, "repro", "judge")  # with the old again: nothing is made twice
    assert blocks(piped) == made
