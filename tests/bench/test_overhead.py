"""`swirl bench overhead`: stage times are recorded correctly, and the parts of a run add up to its wall time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from swirl.bench import overhead, report, stage_times
from swirl.bench.stage_times import StageTimes
from swirl.core.errors import SwirlError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.orchestration.groups import Groups

STAGE = """
import sys, time
from pathlib import Path
from swirl.core.layout import Layout
from swirl.bench.stage_times import record_times
with record_times(sys.argv[1], Layout(Path.cwd())) as times:
    times.started = time.time()
    time.sleep(0.4)
    times.ended = time.time()
Path(sys.argv[1]).write_text("done")
"""
DVC_YAML = """
stages:
  one: {cmd: python stage.py one, outs: [one]}
  two: {cmd: python stage.py two, deps: [one], outs: [two]}
"""


def at(*times: float, run: str = "r", began: float = 100.0, cpu: float = 0.0) -> StageTimes:
    """StageTimes with these process_started, ready, started, ended and process_ended."""
    return StageTimes(run, began, *times, tracking_cpu=cpu)


def a_run() -> dict[str, StageTimes]:
    """A run from 100 to 141.5: a stage that works for 10 s, a gate for 4 s and another stage for 20 s."""
    return {
        "download": at(101.0, 102.0, 102.5, 112.5, 113.0, cpu=2.0),
        "check_questions": at(113.5, 114.5, 114.75, 118.75, 119.0, cpu=1.0),
        "base_model": at(119.25, 120.0, 120.0, 140.0, 141.0, cpu=3.0),
    }


def write(layout: Layout, found: dict[str, StageTimes]) -> None:
    for name, one in found.items():
        save_json(asdict(one), stage_times.folder(layout) / f"{name}.json")


def test_the_parts_add_up_to_the_wall_time() -> None:
    row = overhead.breakdown(a_run(), 100.0, 41.5)
    assert (row["stages"], row["wall"], row["work"], row["gates"]) == (3, 41.5, 30.0, 4.0)
    assert (row["start"], row["tracking"], row["tracking_cpu"]) == (2.75, 2.5, 6.0)
    assert (row["runner"], row["runner_before"], row["runner_between"], row["runner_after"]) == (2.25, 1.0, 0.75, 0.5)
    assert (row["overhead"], row["overhead_percent"]) == (11.5, pytest.approx(100 * 11.5 / 41.5))
    assert row["stage_seconds"] == {"download": 10.0, "check_questions": 4.0, "base_model": 20.0}


def test_stages_beside_one_another_are_refused() -> None:
    found = {"train-sft": at(1, 2, 3, 9, 10), "train-swirl": at(5, 6, 7, 20, 21)}
    with pytest.raises(SwirlError, match="train-sft and train-swirl ran at the same time"):
        overhead.breakdown(found, 0.0, 22.0)


def test_the_last_run_is_told_from_its_stamps(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(layout, {"evaluate-base": at(50, 51, 52, 53, 54, run="before", began=49.0), **a_run()})
    result = overhead.last_run(tmp_path)
    (row,) = result["rows"]
    assert (row["stages"], row["wall"], row["runner_after"], row["overhead"]) == (3, 41.0, 0.0, 11.0)
    said = report.text(result)
    assert "| the last run | 3 | 41.0 | 30.0 | 4.0 | 2.8 | 2.5 | 1.8 | 11.0 | 26.8 |" in said
    assert "only 3 of 17 stages ran" in said
    assert "torch" not in said  # import times are measured only when the benchmark starts a run itself


def test_imports_are_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "LIBRARIES", {"slow": "import time; time.sleep(2)", "nothing": ""})
    seconds = overhead.import_seconds(1)
    assert seconds.keys() == {"slow"} and seconds["slow"] > 1


@pytest.mark.parametrize("found", [{}, {"download": at(1, 2, 3, 4, 5, run="")}])
def test_without_a_run_there_is_nothing_to_tell(found: dict[str, StageTimes], tmp_path: Path) -> None:
    write(Layout(tmp_path), found)
    with pytest.raises(SwirlError, match=r"\.swirl/stage-times tells of no run; `dvc repro` and the flow leave"):
        overhead.last_run(tmp_path)


def test_what_the_flow_adds_is_the_difference_of_what_no_stage_takes() -> None:
    rows = [
        {"name": name, **overhead.breakdown(a_run(), 100.0 - more, 41.5 + more)}
        for name, more in (("dvc repro", 0.0), ("Prefect flow", 6.0))
    ]
    result = {"bench": "overhead", "preset": "smoke", "rows": rows, "imports": dict.fromkeys(overhead.LIBRARIES, 1.0)}
    assert "Prefect, its server and a DVC for each stage add 6.0 s to DVC's own 2.2 s" in report.text(result)


@pytest.mark.slow
def test_stages_of_a_real_dvc_leave_true_stamps(root: Path, tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "SWIRL_RUN_ID"},
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
    }
    run = [sys.executable, "-m", "dvc"]
    subprocess.run([*run, "init", "--no-scm", "-q"], cwd=tmp_path, env=environment, check=True)
    began = time.time()
    subprocess.run([*run, "repro"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = time.time()
    found = stage_times.read(Layout(tmp_path))
    assert list(found) == ["one", "two"]
    one, two = found.values()
    assert one.run == two.run != ""
    for stage in (one, two):
        assert began - 0.3 < stage.run_started < one.process_started
    for stage in (one, two):
        assert stage.process_started < stage.ready <= stage.started < stage.ended <= stage.process_ended
        assert stage.ended - stage.started >= 0.4
    assert began < one.process_started < one.process_ended < two.process_started < two.process_ended < done
    row = overhead.breakdown(found, began, done - began)
    assert row["work"] == pytest.approx((one.ended - one.started) + (two.ended - two.started))
    assert row["runner_before"] > 0.2  # DVC itself takes time to start


@pytest.mark.slow
def test_a_flow_that_starts_a_dvc_a_stage_is_one_run_from_its_own_start(root: Path, tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    environment = {
        **os.environ,
        "SWIRL_RUN_ID": "flow",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
    }
    run = [sys.executable, "-m", "dvc"]
    subprocess.run([*run, "init", "--no-scm", "-q"], cwd=tmp_path, env=environment, check=True)
    for name in ("one", "two"):
        with Groups().lines([*run, "repro", "--single-item", name], tmp_path, environment) as (process, lines):
            said = list(lines)
        assert process.returncode == 0, said
    one, two = stage_times.read(Layout(tmp_path)).values()
    assert one.run == two.run == "flow"
    assert one.run_started == pytest.approx(psutil.Process().create_time(), abs=1.5)  # this process plays the flow
    assert two.run_started == pytest.approx(one.run_started, abs=0.3)


def test_a_stage_that_fails_leaves_no_stamps(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write(layout, {"judge": at(1, 2, 3, 4, 5)})

    def fail() -> None:
        with stage_times.record_times("judge", layout):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert stage_times.read(layout) == {}


def test_a_copy_holds_what_git_knows_or_would_add_and_links_stay_links(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "linked").mkdir(parents=True)
    for name, text in {".gitignore": "data\n", "code.py": "", "new.py": "", "data": "large"}.items():
        (project / name).write_text(text)
    (project / "linked/code.py").symlink_to("../code.py")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "code.py", "linked"], cwd=project, check=True)
    overhead.copy_project(project, tmp_path / "copy")
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert copied == {".gitignore", "code.py", "new.py", "linked/code.py"}
    assert os.readlink(tmp_path / "copy/linked/code.py") == "../code.py"


def test_outside_of_git_what_belongs_to_the_project_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(SwirlError, match="is no git repository"):
        overhead.copy_project(tmp_path, tmp_path / "copy")


def test_the_command_tells_the_last_run_as_json(
    root: Path, tmp_path: Path, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    write(Layout(tmp_path), a_run())
    done = swirl("bench", "overhead", "--last", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["overhead"] == 11.0
