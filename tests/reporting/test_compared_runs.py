"""`swirl compare`: two runs in folders, git revisions or DVC experiments, paired by the questions that both asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swirl.config import yaml_text
from swirl.core import records
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.types import Prediction, Question, Stop
from swirl.pipeline.dvc_file import dvc_hash
from swirl.reporting.compared_runs import changed, compare, read
from tests.conftest import ROOT

Swirl = Callable[..., subprocess.CompletedProcess[str]]


def _run(folder: Path, right: dict[str, str], texts: dict[str, str] | None = None, seed: int = 0) -> Path:
    """A run's folder: by model, which of four questions are right, as `1101`."""
    layout = Layout(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    (folder / "dvc.yaml").write_text("stages: {}\n")
    names = [f"q{number}" for number in range(4)]
    asked = [
        Question(one, "mini-gsm8k", "evaluation", (texts or {}).get(one, f"What is {one}?"), ("5",), 1, ("calculate",))
        for one in names
    ]
    records.save(asked, Question, layout.questions)
    for model, marks in right.items():
        made = [
            Prediction(
                one, "mini-gsm8k", model, True, "5", mark == "1", 0.0, 0.0, 0.0, 0.0, None, None, 2, 0, Stop.ANSWERED,
                f"{one}/0",
            )
            for one, mark in zip(names, marks, strict=True)
        ]  # fmt: skip
        records.save(made, Prediction, layout.predictions(model))
    return folder


def test_the_same_model_of_two_runs_is_paired_by_question(tmp_path: Path) -> None:
    one = read(str(_run(tmp_path / "a", {"base": "1000", "swirl": "1100"})), tmp_path)
    other = read(str(_run(tmp_path / "b", {"base": "1000", "swirl": "1111"}, seed=3)), tmp_path)
    base, swirl = compare(one, other)
    assert (base.accuracy, base.difference, base.p, base.shared) == ((0.25, 0.25), 0.0, 1.0, 4)
    assert (swirl.accuracy, swirl.difference, swirl.p) == ((0.5, 1.0), 0.5, 0.5)
    assert swirl.low is not None and swirl.high is not None and 0.0 <= swirl.low < 0.5 < swirl.high <= 1.0
    assert changed(one, other) == [("seed", 0, 3)]


def test_two_models_of_one_run(tmp_path: Path) -> None:
    folder = str(_run(tmp_path / "a", {"base": "1000", "swirl": "0111"}))
    (row,) = compare(read(folder, tmp_path, ["base"]), read(folder, tmp_path, ["swirl"]), ("base", "swirl"))
    assert (row.models, row.accuracy, row.difference) == (("base", "swirl"), (0.25, 0.75), 0.5)


def test_questions_with_the_same_id_and_another_text_are_not_paired(tmp_path: Path) -> None:
    one = read(str(_run(tmp_path / "a", {"base": "1000"})), tmp_path)
    other = read(str(_run(tmp_path / "b", {"base": "1110"}, {"q0": "Another?", "q1": "Another?"})), tmp_path)
    (row,) = compare(one, other)
    assert (row.accuracy, row.shared, row.difference) == ((0.25, 0.75), 2, 0.5)
    none = read(str(_run(tmp_path / "c", {"base": "1110"}, {f"q{n}": "Another?" for n in range(4)})), tmp_path)
    (row,) = compare(one, none)
    assert (row.shared, row.difference, row.low, row.p) == (0, None, None, None)


def test_questions_that_were_made_anew_since_are_named(tmp_path: Path) -> None:
    folder = _run(tmp_path / "a", {"base": "1000"})
    layout = Layout(folder)
    kept = [one for one in records.load(Question, layout.questions) if one.id != "q2"]
    records.save(kept, Question, layout.questions)
    with pytest.raises(DataError, match=r"no question 'q2' in .*questions.parquet, and an answer .*: run `dvc repro`"):
        read(str(folder), tmp_path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with pytest.raises(ParamsError, match=r"^nothing is neither a project's folder \(with a params.yaml\) nor a git"):
        read("nothing", tmp_path)
    folder = _run(tmp_path / "a", {})
    with pytest.raises(DataError, match=r"has no evaluation of ceiling, base, sft, swirl; run `dvc repro` there$"):
        read(str(folder), tmp_path)
    layout = Layout(_run(tmp_path / "logs", {}))
    records.save([], Prediction, layout.predictions("base"))
    layout.state_actions("base").touch()
    with pytest.raises(DataError, match=r"was evaluated in the states of logged conversations alone, so it has no ans"):
        read(str(layout.root), tmp_path)


def test_the_command_prints_tables_and_json(tmp_path: Path, swirl: Swirl) -> None:
    _run(tmp_path / "a", {"base": "1000", "swirl": "0111"})
    other = _run(tmp_path / "b", {"base": "1100", "swirl": "1111"}, seed=1)
    done = swirl("compare", str(tmp_path / "a"), ".", cwd=other)
    assert done.stderr == ""
    assert "seed" in done.stdout and "+25.0 (" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    found = json.loads(swirl("compare", ".", ".", "--models", "base", "swirl", "--json", cwd=other).stdout)
    assert found["settings"] == []
    assert [row["accuracy"] for row in found["scores"]] == [[0.5, 1.0]]
    wrong = swirl("compare", ".", ".", "--models", "base", "swril", cwd=other)
    assert (
        wrong.stderr == "swirl: there is no model 'swril'; there are ceiling, base, sft, swirl; did you mean swirl?\n"
    )


def test_answers_of_other_settings_are_warned_of(tmp_path: Path, swirl: Swirl) -> None:
    there = _run(tmp_path / "a", {"base": "1000"})
    layout = Layout(there)
    records.save_json({}, layout.results)
    outs = [{"path": "reports/results.json", "md5": dvc_hash(layout.results)}]
    stages = {
        "evaluate": {"cmd": "true", "params": {"params.yaml": {"seed": 7}}},
        "report": {"cmd": "true", "outs": outs},
    }
    (there / "dvc.lock").write_text(yaml_text.dump({"schema": "2.0", "stages": stages}), encoding="utf-8")
    (there / "dvc.yaml").write_text("stages: {evaluate: {cmd: 'true'}, report: {cmd: 'true'}}\n", encoding="utf-8")
    done = swirl("compare", ".", ".", cwd=there)
    assert (
        done.stderr
        == "swirl: warning: .: its answers are not of its params.yaml: seed is 0 in params.yaml and was 7\n" * 2
    )
    assert done.returncode == 0 and "0.0" in done.stdout


def _does(folder: Path, *command: str) -> str:
    """What a command of git or DVC prints there."""
    who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = (sys.executable, "-m", *command) if command[0] == "dvc" else command
    done = subprocess.run(command, cwd=folder, check=True, env={**os.environ, **who}, capture_output=True, text=True)
    return done.stdout.strip()


def _kept(folder: Path) -> Path:
    """A run whose outputs are in DVC's cache and whose settings are committed."""
    _run(folder, {"base": "1000"})
    _does(folder, "git", "init", "-q")
    _does(folder, "dvc", "init", "-q")
    _does(folder, "dvc", "add", "-q", "data/questions", "data/predictions")
    _does(folder, "git", "add", "-A")
    _does(folder, "git", "commit", "-qm", "first")
    return folder


def _said(stderr: str) -> str:
    """What was said but for lines that say on a busy machine that files are being fetched."""
    return "".join(line for line in stderr.splitlines(True) if not line.startswith("fetching "))


@pytest.mark.slow
def test_a_git_revision_is_read_from_git_and_the_cache_of_dvc(tmp_path: Path, swirl: Swirl) -> None:
    folder = _kept(tmp_path / "project")
    shutil.rmtree(folder / "data/predictions")
    _run(folder, {"base": "1110"}, seed=2)
    done = swirl("compare", "HEAD", ".", "--json", cwd=folder)
    assert _said(done.stderr) == ""
    found = json.loads(done.stdout)
    assert found["settings"] == [{"key": "seed", "values": [0, 2]}]
    assert [row["accuracy"] for row in found["scores"]] == [[0.25, 0.75]]
    shutil.rmtree(folder / ".dvc/cache")
    lost = swirl("compare", "HEAD", ".", cwd=folder)
    assert lost.returncode == 1
    assert "data/questions is neither in git nor in DVC's cache here; `dvc pull`" in lost.stderr


@pytest.mark.slow
def test_a_clone_without_cache_is_told_what_to_run(tmp_path: Path, swirl: Swirl) -> None:
    folder, clone = _run(tmp_path / "project", {"base": "1000"}), tmp_path / "clone"
    (folder / "dvc.yaml").write_text(
        "stages: {made: {cmd: 'true', params: [seed], outs: [data/questions, data/predictions]}}\n"
    )
    _does(folder, "git", "init", "-q")
    _does(folder, "dvc", "init", "-q")
    _does(folder, "dvc", "commit", "-q", "-f")
    _does(folder, "git", "add", "-A")
    _does(folder, "git", "commit", "-qm", "first")
    _does(tmp_path, "git", "clone", "-q", str(folder), str(clone))
    assert "data/questions" in (clone / "dvc.lock").read_text()
    lost = swirl("compare", cwd=clone)
    assert (lost.returncode, lost.stdout) == (1, "")
    assert re.fullmatch(
        r"swirl: HEAD \(\w{10}\): data/questions is neither in git nor in DVC's cache here; `dvc pull` fetches it from "
        r"a remote, `git checkout \w{10}` and `dvc repro` make it again; or name a folder in which it ran\n",
        _said(lost.stderr),
    )


@pytest.mark.slow
def test_a_dvc_experiment_is_read_by_its_name(tmp_path: Path) -> None:
    folder = _kept(tmp_path / "project")
    _run(folder, {"base": "1110"}, seed=2)
    _does(folder, "dvc", "add", "-q", "data/predictions")
    _does(folder, "dvc", "exp", "save", "-q", "--name", "moody-boar")
    _run(folder, {"base": "0000"})
    one, other = read("HEAD", folder), read("moody-boar", folder)
    assert changed(one, other) == [("seed", 0, 2)]
    (row,) = compare(one, other)
    assert row.accuracy == (0.25, 0.75)
    ref = _does(folder, "git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/moody-boar")
    assert read(ref, folder).right == other.right
    another = "refs/exps/ab/cdef/moody-boar"
    _does(folder, "git", "update-ref", another, "HEAD")
    with pytest.raises(ParamsError, match=f"^2 DVC experiments are called moody-boar; give one of .*{another}"):
        read("moody-boar", folder)


@pytest.mark.parametrize("name", ["*", "moody-*", "moody-boa[r]", "boar", "--all", "--format=x", "../moody-boar"])
def test_the_name_of_an_experiment_is_no_pattern_and_no_option(name: str, tmp_path: Path) -> None:
    folder = tmp_path
    _does(folder, "git", "init", "-q")
    _does(folder, "git", "commit", "-q", "--allow-empty", "-m", "first")
    _does(folder, "git", "update-ref", "refs/exps/ab/cdef/moody-boar", "HEAD")
    with pytest.raises(ParamsError, match=rf"^{re.escape(name)} is neither .* nor a git revision or DVC experiment of"):
        read(name, folder)
    with pytest.raises(ParamsError, match=r"of this one; did you mean moody-boar\?$"):
        read("moody-baor", folder)
