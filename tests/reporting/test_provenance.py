"""Whose results are shown: in a small git repository with a lock file, settings and results that are written here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from swirl.cli.main import app
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.pipeline.dvc_file import dvc_hash
from swirl.reporting import provenance
from swirl.reporting.provenance import found, note, write

COMMIT = "2026-03-04T05:06:07+01:00"
RESULTS = "reports/results.json"


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Layout:
    """A project as one gets it: settings, lock file and results are committed, and nothing else is there."""
    layout = Layout(tmp_path)
    shutil.copytree(root / "presets", tmp_path / "presets")
    shutil.copy(root / "presets/mini.yaml", tmp_path / "params.yaml")
    stages = {
        "train": {"cmd": "true", "params": ["seed", "train.swirl"], "outs": ["models/swirl"]},
        "report": {"cmd": "true", "params": ["seed", "report"], "deps": ["models/swirl"], "outs": [RESULTS]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    save_json({"accuracy": 0.5}, layout.results)
    lock(layout)
    git(layout, "init", "-q")
    commit(layout)
    return layout


def test_answers_of_other_settings_are_told_apart_where_dvc_recorded_them(clone: Layout) -> None:
    assert provenance.stale(clone) == ()
    lock(clone, trained="bb")  # the report has not read it, but who evaluated it may have
    assert provenance.stale(clone) == ()
    change(clone, "\nseed: 0\n", "\nseed: 5\n")
    assert provenance.stale(clone) == ("seed is 5 in params.yaml and was 0",)
    save_json({"accuracy": 0.6}, clone.results)  # made by hand, of which dvc.lock knows nothing
    assert provenance.stale(clone) == ()
    (clone.root / "dvc.lock").unlink()
    assert provenance.stale(clone) == ()


def lock(layout: Layout, trained: str = "aa", read: str = "aa") -> None:
    """Write dvc.lock as DVC does after a run with the present params.yaml; `report` has read the model `read`."""
    params = yaml.safe_load((layout.root / "params.yaml").read_text())
    shared = {"seed": params["seed"]}
    stages = {
        "train": {
            "params": {"params.yaml": {**shared, "train.swirl": params["train"]["swirl"]}},
            "outs": [{"path": "models/swirl", "md5": trained}],
        },
        "report": {
            "deps": [{"path": "models/swirl", "md5": read}, {"path": "src/swirl/core", "md5": "cc"}],
            "params": {"params.yaml": {**shared, "report": params["report"]}},
            "outs": [{"path": RESULTS, "md5": dvc_hash(layout.results)}],
        },
    }
    (layout.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def git(layout: Layout, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    env = {"GIT_COMMITTER_DATE": COMMIT, "PATH": "/usr/bin:/bin", "HOME": str(layout.root)}
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=layout.root, env=env, capture_output=True, text=True, check=True).stdout.strip()


def commit(layout: Layout) -> None:
    git(layout, "add", "-A")
    git(layout, "commit", "-qm", "results")


def change(layout: Layout, old: str, new: str) -> None:
    """Edit params.yaml."""
    path = layout.root / "params.yaml"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))


def facts(layout: Layout) -> dict[str, str]:
    return {what: value for what, value, _ in found(layout).facts}


def test_a_fresh_clone_shows_the_committed_results(clone: Layout) -> None:
    assert found(clone).whose == "These are the committed results."
    assert facts(clone) == {
        "commit": git(clone, "rev-parse", "--short", "HEAD"),
        "committed": "2026-03-04 04:06 UTC",
        "preset": "mini",
        "seed": "0",
    }


def test_results_that_differ_from_git_are_yours(clone: Layout) -> None:
    save_json({"accuracy": 0.6}, clone.results)
    lock(clone)
    assert found(clone).whose == "These are your own results, not committed ones."
    assert facts(clone) == {"preset": "mini", "seed": "0"}  # of which commit is not known
    git(clone, "add", "-A")
    assert not found(clone).committed
    commit(clone)
    assert found(clone).committed


def test_results_of_no_repository_are_yours(clone: Layout) -> None:
    shutil.rmtree(clone.root / ".git")
    assert found(clone).whose == "These are your own results, not committed ones."


def test_other_settings_make_results_stale(clone: Layout) -> None:
    change(clone, "seed: 0", "seed: 3")
    assert found(clone).whose == (
        "These are the committed results. They are stale: seed is 3 in params.yaml and was 0. `dvc repro` makes them "
        "anew."
    )
    assert facts(clone)["seed"] == "0"
    change(clone, "seed: 3", "seed: 0")
    change(clone, "    compared: all\n", "")
    assert found(clone).stale == ("train.swirl.compared is not set in params.yaml and was all",)
    lock(clone)
    assert found(clone).stale == ()
    change(clone, "traces: ", "traces: 1")  # no stage depends on it
    assert found(clone).stale == ()


def test_results_that_dvc_has_not_recorded_are_stale(clone: Layout) -> None:
    save_json({"accuracy": 0.6}, clone.results)
    assert found(clone).stale == ("dvc.lock does not record them",)
    (clone.root / "dvc.lock").unlink()
    assert found(clone).stale == ("dvc.lock does not record them",)


def test_a_stage_that_has_not_read_the_newest_model_makes_results_stale(clone: Layout) -> None:
    lock(clone, trained="bb", read="aa")
    assert found(clone).stale == ("report has not read the present models/swirl",)


def test_a_run_is_known_by_its_results_alone(clone: Layout) -> None:
    """`note` is called before DVC writes its lock file; afterwards the run is known until other results come."""
    before = git(clone, "rev-parse", "--short", "HEAD")
    change(clone, "seed: 0", "seed: 3")
    save_json({"accuracy": 0.6}, clone.results)
    for stage, seconds in (("train-swirl", 200.0), ("report", 10.0)):
        save_json({"seconds": seconds, "peak_rss_mb": 1.0, "started": 1.0}, clone.timing(stage))
    note(clone, "http://127.0.0.1:5000/#/experiments/1/runs/ab")
    script = (clone.root / "reports/provenance.js").read_text()
    assert "These are your own results, not committed ones." in script and "stale" not in script
    lock(clone)
    shown = facts(clone)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", shown.pop("made"))
    assert shown == {
        "commit": f"{before} and uncommitted changes",
        "preset": "mini",
        "seed": "3",
        "duration": "3.5 min in 2 stages",
        "MLflow": "this run",
    }
    assert found(clone).facts[-1] == ("MLflow", "this run", "http://127.0.0.1:5000/#/experiments/1/runs/ab")
    commit(clone)
    assert found(clone).whose == "These are the committed results, and a run here gave the same."
    save_json({"accuracy": 0.7}, clone.results)
    assert "made" not in facts(clone)


def test_a_run_s_record_of_another_version_is_as_if_there_were_none(clone: Layout) -> None:
    lock(clone)
    record = clone.root / ".swirl/provenance.json"
    for text in ('{"results": "ab"}', "{"):
        record.parent.mkdir(exist_ok=True)
        record.write_text(text)
        assert "made" not in facts(clone)


def test_the_results_of_a_project_that_cannot_be_written_are_read(
    clone: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError("provenance.js.partial: Permission denied")

    clone.page.write_text("the page")
    monkeypatch.chdir(clone.root)
    monkeypatch.setattr(provenance, "write", denied)
    done = CliRunner().invoke(app, ["report"])
    assert (done.exit_code, done.stdout) == (0, f"{clone.page}\n")


def test_what_a_run_itself_writes_is_no_uncommitted_change(clone: Layout) -> None:
    save_json({"accuracy": 0.6}, clone.results)
    lock(clone)
    note(clone)
    assert facts(clone)["commit"] == git(clone, "rev-parse", "--short", "HEAD")


def test_other_keys_of_a_preset_are_counted(clone: Layout) -> None:
    change(clone, "report:\n  samples: ", "report:\n  samples: 1")
    (clone.root / "presets/own.yaml").write_text("no section: 1\n")  # none to compare with
    lock(clone)
    assert facts(clone)["preset"] == "mini with 1 key changed"


def test_the_file_of_the_pages_is_one_call_with_a_string(clone: Layout) -> None:
    write(clone, found(clone))
    script = (clone.root / "reports/provenance.js").read_text()
    given = json.loads(script[script.rindex("('") + 2 : script.rindex("')")])
    assert given["parts"][0] == ["", "These are the committed results.", ""]
    assert len(given["results"]) == 64


def test_git_ignores_the_file(root: Path) -> None:
    assert "reports/provenance.js" in (root / ".gitignore").read_text().splitlines()
