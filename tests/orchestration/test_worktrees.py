"""Settings laid over params.yaml, the worktrees that run them, process groups, and helper functions of the flows."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import yaml

from flows.experiments import combinations, equal_arms, table
from flows.graph import direct, plan
from flows.pipeline import _params, _targets, store_of
from flows.retries import asks_network
from swirl.config.overrides import checked, lay_over, parsed, text, write
from swirl.config.params import load
from swirl.core.errors import DataError, ParamsError, SwirlError
from swirl.core.layout import Layout
from swirl.mlflow_store.stores import pages
from swirl.orchestration import worktrees
from swirl.orchestration.groups import Groups
from swirl.orchestration.worktrees import sweep, worktree

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = """
stages:
  one:
    cmd: cat tools/tool.txt official/rows.txt > one.txt
    deps: [tools, official/rows.txt]
    params: [filter]
    outs: [one.txt]
  two:
    cmd: cp one.txt two.json
    deps: [one.txt]
    outs: [two.json: {cache: false}]
"""


def run(project: Path, *command: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=project, env=env, check=True, capture_output=True, text=True).stdout


def dvc(project: Path, *arguments: str) -> str:
    return run(project, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "tools").mkdir(parents=True)
    (root / "official").mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    (root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (root / "tools/tool.txt").write_text("committed\n", encoding="utf-8")
    (root / "official/rows.txt").write_text("rows\n", encoding="utf-8")
    (root / ".gitignore").write_text(".swirl/\nofficial/\n", encoding="utf-8")
    (root / ".dvcignore").write_text(".swirl/\n", encoding="utf-8")
    run(root, "git", "init", "-q")
    dvc(root, "init", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=test", "-c", "user.email=t@localhost", "commit", "-qm", "a project")
    return root


def test_overrides_are_laid_over_and_checked() -> None:
    path = ROOT / "params.yaml"
    params = checked(path, {"filter.strategy": "outcome", "base_model.hops.1": 0.5, "train.methods": ["swirl"]})
    assert (params.filter.strategy, params.train.methods) == ("outcome", ["swirl"])
    for overrides, complaint in (
        ({"filter.strategy": "proces"}, "filter.strategy = 'proces': Input should be 'none', 'process'"),
        (
            {"filter.max_trajectories": ["none", "bth"]},
            "filter.max_trajectories: expected a number, 0 for no limit, or",
        ),
        ({"filter.max_trajectories": []}, "a list of none, process, outcome, both; got []"),
        ({"filter.max_trajectories": -1}, "a list of none, process, outcome, both; got -1"),
        ({"filter.stategy": "none"}, "filter.stategy: no such key; the keys here are strategy, max_trajectories"),
        ({"seed": "1"}, "seed = '1': Input should be a valid integer"),
        ({"train.swril.lr": 0.1}, "override train.swril.lr: params.yaml has no section train.swril"),
        ({"seed.x": 1}, "override seed.x: params.yaml has no section seed"),
    ):
        with pytest.raises(ParamsError) as refused:
            checked(path, overrides)
        assert complaint in str(refused.value)


def test_written_overrides_keep_comments_and_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    (tmp_path / "linked.yaml").symlink_to(path)
    write(tmp_path / "linked.yaml", {"filter.strategy": "both", "base_model.hops.1": 0.5})
    assert (tmp_path / "linked.yaml").is_symlink()
    before = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    after = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.read_text(encoding="utf-8").startswith("# The default: ")
    assert (before["filter"]["strategy"], after["filter"]["strategy"]) == ("process", "both")
    assert next(iter(after["base_model"]["hops"].items())) == (1, 0.5)
    lay_over(before, {"filter.strategy": "both", "base_model.hops.1": 0.5})
    assert after == before


def test_a_number_that_yaml_shares_stays_shared(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a:\n  seed: &s 5\n  k: 1\nb:\n  seed: *s\n", encoding="utf-8")
    write(path, {"a.k": 2})
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {"a": {"seed": 5, "k": 2}, "b": {"seed": 5}}


def test_an_override_of_a_shared_section_changes_no_other(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: &both {x: 1, in: {y: 2}}  # said\nb: *both\nc:\n  <<: *both\n  z: 3\n", encoding="utf-8")
    both = {"x": 1, "in": {"y": 2}}
    write(path, {"b.x": 5, "c.in.y": 6})
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "a": both,
        "b": {"x": 5, "in": {"y": 2}},
        "c": {"x": 1, "in": {"y": 6}, "z": 3},
    }
    write(path, {"a.in.y": 7})
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["b"]["in"] == {"y": 2}
    assert "# said" in path.read_text(encoding="utf-8")
    tree = {"a": both, "b": both}
    lay_over(tree, {"b.in.y": 9})
    assert tree == {"a": {"x": 1, "in": {"y": 2}}, "b": {"x": 1, "in": {"y": 9}}}


def test_what_is_written_is_what_was_checked(tmp_path: Path) -> None:
    """DVC writes YAML 1.2, in which 1e-05 is a number and `on` is a string."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("tools: [calculator]", "tools: [calculator, 'own:Other']"), encoding="utf-8")
    odd = {"a": "on", "b": "1:30", "c": "012", "d": "1e5", "e": ["null", "~", ""], "f": 1e-07, "g": "2020-01-01"}
    overrides = {"train.swirl.lr": 1e-05, "tasks.search.tools": ["own:Tool"], "tools.options": {"own:Tool": odd}}
    wanted = checked(path, overrides)
    write(path, overrides)
    assert load(path) == wanted
    assert wanted.tools.options["own:Tool"] == odd
    assert wanted.tasks["calculate"].tools == ["calculator", "own:Other"]


def test_settings_of_the_command_line_are_yaml() -> None:
    assert parsed(["a.lr=1e-4", "b=[1, x]", "c=", "d=a=b"]) == {"a.lr": 1e-4, "b": [1, "x"], "c": None, "d": "a=b"}
    for setting, said in (("a=[1", "a=.1: the value is not YAML: while parsing"), ("a", "a: expected KEY=VALUE")):
        with pytest.raises(ParamsError, match=said):
            parsed([setting])


def test_dvc_itself_may_set_a_small_number(tmp_path: Path) -> None:
    """`dvc exp run -S train.swirl.lr=1e-5` changes params.yaml with this function."""
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_overrides(path, ["train.swirl.lr=1e-5"])
    assert "lr: 1e-05" in path.read_text(encoding="utf-8")
    assert load(path).train.swirl.lr == 1e-5


def test_secrets_are_not_said() -> None:
    overrides = {"tools.options": {"web": {"token": "sk-1", "ask": ["x"]}}, "tools.options.own.api_key": "sk-2"}
    assert text(overrides) == (
        "tools.options={'web': {'token': '(not logged)', 'ask': ['x']}}, tools.options.own.api_key=(not logged)"
    )
    assert pages("https://me:p@ss@runs.example.org/mlflow/", Layout(ROOT)) == "https://runs.example.org/mlflow"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, "sqlite:////there/mlflow.db"),
        ("", "sqlite:////there/mlflow.db"),
        ("sqlite:///runs/all.db", "sqlite:////there/runs/all.db"),
        ("sqlite:////here/mlflow.db", "sqlite:////here/mlflow.db"),
        ("file:runs", "file:/there/runs"),
        ("file:///here", "file:///here"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_runs_go_to_one_store_wherever_a_stage_runs(
    given: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with store_of(Path("/there")):
        assert os.environ["MLFLOW_TRACKING_URI"] == used
        with store_of(Path("/there")):
            assert os.environ["MLFLOW_TRACKING_URI"] == used
    assert os.environ.get("MLFLOW_TRACKING_URI") == given


TWO_FILES = {
    "dvc.yaml": """
stages:
  one: {cmd: cp sub/s.txt one.txt, deps: [sub/s.txt], outs: [one.txt]}
  two: {cmd: cp one.txt two.txt, deps: [one.txt], outs: [two.txt]}
  three: {cmd: cp two.txt three.txt, deps: [two.txt], outs: [three.txt]}
""",
    "sub/dvc.yaml": """
stages:
  s: {cmd: echo s > s.txt, outs: [s.txt]}
  t: {foreach: [x], do: {cmd: echo t > t.txt, outs: [t.txt]}}
""",
}


@pytest.mark.parametrize(
    ("targets", "stages"),
    [
        ((), {"sub/dvc.yaml:s": [], "one": ["sub/dvc.yaml:s"], "two": [], "three": ["two"]}),
        (("three",), {"two": [], "three": ["two"]}),
        (("one",), {"sub/dvc.yaml:s": [], "one": ["sub/dvc.yaml:s"]}),
        (("sub/dvc.yaml:t",), {"sub/dvc.yaml:t@x": []}),
    ],
)
def test_the_plan_is_what_dvc_would_do(project: Path, targets: tuple[str, ...], stages: dict[str, list[str]]) -> None:
    (project / "sub").mkdir()
    for name, content in TWO_FILES.items():
        (project / name).write_text(content, encoding="utf-8")
    dvc(project, "repro", "--quiet", "sub/dvc.yaml", "dvc.yaml")
    dvc(project, "freeze", "two")
    assert plan(project, targets) == stages
    assert re.findall("Stage '(.+)' didn't change", dvc(project, "repro", *targets)) == list(stages)


def test_targets_are_the_stages_and_none_where_a_file_cannot_be_read(project: Path) -> None:
    assert _targets(ROOT)[:4] == ["download", "check_questions", "index", "base_model"]
    assert {"train", "train@sft", "train@swirl"} <= {*_targets(ROOT)}
    for broken in ("seed: [1", "- seed", "seed"):
        (project / "params.yaml").write_text(broken, encoding="utf-8")
        assert _targets(project) == []
    with pytest.raises(ParamsError, match=r"params.yaml holds no settings$"):
        _params(project)
    (project / "params.yaml").write_text("seed: 0", encoding="utf-8")
    for broken in ("- stage", "stages: [one]", "one"):
        (project / "dvc.yaml").write_text(broken, encoding="utf-8")
        assert _targets(project) == []


def test_the_graph_has_direct_edges_alone() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["a", "b", "c"], "e": ["a", "d"], "f": ["c"]}
    assert direct(needs) == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"], "f": ["c"]}


def test_an_unknown_target_is_refused(project: Path) -> None:
    with pytest.raises(DataError, match=r"^dvc.yaml has no stage 'three'; it has one, two$"):
        plan(project, ("three",))
    with pytest.raises(DataError, match=r"^dvc.yaml has no stage 'tow'; it has one, two; did you mean two\?$"):
        plan(project, ("tow",))
    with pytest.raises(DataError, match=r"; did you mean train\?$"):
        plan(ROOT, ("trian",))
    with pytest.raises(DataError, match=r"; did you mean train@swirl\?$"):
        plan(ROOT, ("train@swril",))


@pytest.mark.slow
def test_a_worktree_is_what_the_user_sees_and_leaves_the_cache(project: Path) -> None:
    """The worktree also has uncommitted changes, and files that a stage reads although git does not track them."""
    (project / "tools/tool.txt").write_text("changed\n", encoding="utf-8")
    (project / "tools/new.txt").write_text("new\n", encoding="utf-8")
    (project / "src").mkdir()
    (project / "src/new.py").write_text("source\n", encoding="utf-8")
    (project / "tools/source.py").symlink_to("../src/new.py")
    (project / "src/other.py").write_text("more\n", encoding="utf-8")
    (project / "tools/known.py").symlink_to("../src/other.py")  # git tracks the link, but not its target
    run(project, "git", "add", "tools/known.py")
    (project / "data/weights").mkdir(parents=True)
    (project.parent / "elsewhere/my-model").mkdir(parents=True)
    (project / "data/weights/my-model").symlink_to(project.parent / "elsewhere/my-model")
    (project / "data/weights/tiny.gguf").write_bytes(b"GGUF")
    (project / "data/weights/my-model/config.json").write_text("{}", encoding="utf-8")
    index, params = (project / ".git/index").read_bytes(), (project / "params.yaml").read_bytes()
    with worktree(project, {"filter.strategy": "outcome"}) as copy:
        dvc(copy.root, "repro", "-q")
        assert (copy.root / "one.txt").read_text(encoding="utf-8") == "changed\nrows\n"
        assert (copy.root / "tools/new.txt").exists()
        assert (copy.root / "data/weights/tiny.gguf").read_bytes() == b"GGUF"
        assert (copy.root / "data/weights/my-model/config.json").read_text(encoding="utf-8") == "{}"
        assert (copy.root / "tools/source.py").is_symlink()
        assert (copy.root / "tools/source.py").resolve() == (copy.root / "src/new.py").resolve()
        assert (copy.root / "tools/known.py").read_text(encoding="utf-8") == "more\n"
        assert "strategy: outcome" in (copy.root / "params.yaml").read_text(encoding="utf-8")
        copy.finished = True
        run(project, "git", "config", "user.name", "test")
        run(project, "git", "config", "user.email", "test@localhost")
        assert copy.save_experiment("kept") == ""
    assert not copy.root.exists()
    (experiment,) = [ref for ref in run(project, "git", "for-each-ref", "--format=%(refname)").split() if "kept" in ref]
    assert run(project, "git", "show", f"{experiment}:two.json") == "changed\nrows\n"
    assert "strategy: outcome" in run(project, "git", "show", f"{experiment}:params.yaml")
    assert run(project, "git", "worktree", "list").count("\n") == 1
    assert (project / "params.yaml").read_bytes() == params
    assert (project / ".git/index").read_bytes() == index
    assert not (project / "one.txt").exists()
    write(project / "params.yaml", {"filter.strategy": "outcome"})
    assert "Stage 'one' is cached - skipping run" in dvc(project, "repro")
    (project / "tools/more").symlink_to(project.parent / "elsewhere")
    with pytest.raises(DataError, match="tools/more is a link to a folder"), worktree(project, {"seed": 1}):
        pass


@pytest.mark.slow
def test_partial_work_waits_for_the_same_overrides_and_for_no_other(project: Path) -> None:
    def journal(overrides: dict[str, Any], finish: bool) -> list[str]:
        with worktree(project, overrides) as copy:
            folder = copy.root / ".swirl/journals"
            before = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"block{len(before)}").touch()
            copy.finished = finish
            return before

    assert journal({"seed": 1}, finish=False) == []
    assert journal({"seed": 2}, finish=False) == []
    assert journal({"seed": 1}, finish=False) == ["block0"]
    assert journal({"seed": 1}, finish=True) == ["block0", "block1"]
    assert journal({"seed": 1}, finish=True) == []


@pytest.mark.slow
def test_paid_answers_outlive_every_run_and_are_there_for_every_other(project: Path) -> None:
    def answers(overrides: dict[str, Any], new: str, finish: bool) -> list[str]:
        with worktree(project, overrides) as copy:
            folder = copy.root / ".swirl/answers"
            before = sorted(path.name for path in folder.rglob("*.json"))
            (folder / "ab").mkdir(exist_ok=True)
            (folder / f"ab/{new}.json").touch()
            copy.finished = finish
            return before

    assert answers({"seed": 1}, "one", finish=True) == []
    assert answers({"seed": 2}, "two", finish=False) == ["one.json"]
    (kept,) = (project / ".swirl/worktrees").glob("*.kept")
    (kept / "answers").unlink()
    (kept / "answers/ab").mkdir(parents=True)  # as before the project's own were shared
    (kept / "answers/ab/old.json").touch()
    assert answers({"seed": 2}, "three", finish=True) == ["old.json", "one.json", "two.json"]
    assert answers({"seed": 1}, "four", finish=True) == ["old.json", "one.json", "three.json", "two.json"]
    assert len(list((project / ".swirl/answers/ab").iterdir())) == 5


@pytest.mark.slow
def test_partial_work_outlives_a_run_that_ends_before_it_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worktree(project, {"seed": 1}) as copy:
        (copy.root / ".swirl/journal").touch()
    with monkeypatch.context() as patch:
        patch.setattr(worktrees, "_share_cache", lambda root, copy: 1 / 0)
        with pytest.raises(ZeroDivisionError), worktree(project, {"seed": 1}):
            pass
    with worktree(project, {"seed": 1}) as copy:
        assert (copy.root / ".swirl/journal").exists()


KILLED = """
import sys, time
from pathlib import Path
from swirl.orchestration.worktrees import worktree
with worktree(Path(sys.argv[1]), {"seed": 1}) as copy:
    (copy.root / ".swirl/journal").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_killed_run_is_cleared_away_by_the_next_and_a_living_one_is_not(project: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(project)], env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with pytest.raises(SwirlError, match="another run has the same overrides .seed=1."), worktree(project, {"seed": 1}):
        pass
    sweep(project)
    (folder,) = [path for path in (project / ".swirl/worktrees").iterdir() if path.suffix == ""]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.is_dir()
    sweep(project)
    assert not folder.exists()
    assert folder.with_name(f"{folder.name}.kept").joinpath("journal").exists()
    assert run(project, "git", "worktree", "list").count("\n") == 1


@pytest.mark.slow
def test_a_sweep_beside_it_does_not_refuse_a_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep takes each free lock for a moment; a run that begins just then waits for the lock."""
    with worktree(project, {"seed": 1}):
        pass
    swept = threading.Event()
    lock = worktrees._lock

    def slow(path: Path) -> IO[str] | None:
        held = lock(path)
        if threading.current_thread() is sweeper:
            swept.set()
            time.sleep(1)
        return held

    monkeypatch.setattr(worktrees, "_lock", slow)
    sweeper = threading.Thread(target=sweep, args=(project,))
    sweeper.start()
    assert swept.wait(60)
    with worktree(project, {"seed": 1}) as copy:
        assert copy.root.is_dir()
    sweeper.join()


def test_without_a_commit_there_are_no_overrides(tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "-q")
    with pytest.raises(DataError, match="a git repository with at least one commit"), worktree(tmp_path, {"seed": 1}):
        pass


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(0 if "leave" in sys.argv else 60)
sys.exit(3)
"""
HOLDER = """
import sys, time
from pathlib import Path
from swirl.orchestration.groups import Groups
with Groups().lines([sys.executable, "-c", sys.argv[1]], Path.cwd(), {}) as (process, lines):
    print(next(lines), flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_command_ends_with_all_that_it_started(tmp_path: Path) -> None:
    groups = Groups()
    with groups.lines([sys.executable, "-c", FAMILY, "leave"], tmp_path, dict(os.environ)) as (process, lines):
        said = list(lines)
    assert process.returncode == 3
    assert [alive(int(pid)) for pid in said[0].split()] == [False, False]
    with groups.lines([sys.executable, "-c", FAMILY], tmp_path, dict(os.environ)) as (process, lines):
        pids = [int(pid) for pid in next(lines).split()]
        assert [alive(pid) for pid in pids] == [True, True]
        groups.stop()
        assert [alive(pid) for pid in pids] == [False, False]
    with groups.lines([sys.executable, "-c", FAMILY], tmp_path, dict(os.environ)) as (process, lines):
        assert len(list(lines)) <= 1  # after stop, whatever starts is ended at once
    assert process.returncode not in (0, 3)  # 3 would mean that it ended by itself


DAEMON = """
import os, sys, time
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.write(tell, b"!")
        time.sleep(60)
        print("ended by itself", flush=True)
    os._exit(0)
os.wait()
os.read(ready, 1)
time.sleep(0 if "leave" in sys.argv else 60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a daemon has no parent that could find it")
def test_a_daemon_that_holds_the_output_ends_with_its_command(tmp_path: Path) -> None:
    groups = Groups()
    with groups.lines([sys.executable, "-c", DAEMON, "leave"], tmp_path, dict(os.environ)) as (process, lines):
        (pid,) = lines
    assert (process.returncode, alive(int(pid))) == (0, False)
    with groups.lines([sys.executable, "-c", DAEMON], tmp_path, dict(os.environ)) as (_, lines):
        pid = next(lines)
        groups.stop()
        assert (list(lines), alive(int(pid))) == ([], False)


def test_what_a_killed_flow_has_started_ends_too() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, FAMILY], env=env, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    pids = [int(pid) for pid in holder.stdout.readline().split()]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    wait(lambda: not any(alive(pid) for pid in pids))


# Both write into one pipe: a line at once, so that neither parts the other's.
APART = """
import subprocess, sys, time
from pathlib import Path
from swirl.core.layout import Layout
from swirl.tracking import stage_run
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
with stage_run("filter", {}, Layout(Path.cwd())):
    sys.stdout.write(f"{child.pid}\\n")
    sys.stdout.flush()
    time.sleep(600)
"""
LATE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))
sys.stdout.write("ready\\n")
sys.stdout.flush()
time.sleep(600)
"""


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_what_is_in_a_session_of_its_own_ends_too_but_tracking_tells_the_end(tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SWIRL", "MLFLOW"))}
    env = {**kept, "PYTHONPATH": str(ROOT / "src")}
    running = Groups()
    with running.lines([sys.executable, "-c", APART, LATE], tmp_path, env) as (_, lines):
        pid, ready = sorted([next(lines), next(lines)])
        assert (alive(int(pid)), ready) == (True, "ready")
        running.stop()
        assert not alive(int(pid))

    def recorded() -> list[tuple[str, str]]:
        with sqlite3.connect(tmp_path / "mlflow.db") as database, contextlib.suppress(sqlite3.OperationalError):
            return list(database.execute("SELECT name, status FROM runs WHERE name = 'filter'"))
        return []

    wait(lambda: recorded() == [("filter", "KILLED")])


def test_stages_that_ask_the_network_are_tried_again() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
    assert not asks_network("synthesize", params, ROOT)
    params["synthesize"]["server"] = server
    assert asks_network("synthesize", params, ROOT) and not asks_network("judge", params, ROOT)
    assert not asks_network("synthesize", {"x": 1}, ROOT)  # params that are refused are refused again


def test_a_grid_is_every_combination() -> None:
    assert combinations({"a": [1, 2], "b": [], "c": ["x", "y"]}) == [
        {"a": 1, "c": "x"},
        {"a": 1, "c": "y"},
        {"a": 2, "c": "x"},
        {"a": 2, "c": "y"},
    ]
    assert combinations({}) == [{}]


def test_runs_of_different_filters_are_as_large_as_the_smallest_of_them() -> None:
    def limits(*runs: dict[str, Any]) -> list[dict[str, Any]]:
        return equal_arms([checked(ROOT / "params.yaml", one) for one in runs])

    grid = combinations({"filter.strategy": ["none", "outcome"], "seed": [0, 1]})
    assert limits(*grid) == [{"filter.max_trajectories": ["none", "outcome"]}] * 4
    assert limits({"seed": 0}, {"seed": 1}) == [{}, {}]
    mixed = [{}, {"filter.strategy": "both", "filter.max_trajectories": 50}, {"filter.strategy": "both"}]
    both = {"filter.max_trajectories": ["process", "both"]}
    assert limits(*mixed) == [both, {}, both]
    assert checked(ROOT / "params.yaml", {**grid[0], **both}).filter.max_trajectories == ["process", "both"]


def test_the_table_has_what_differed_best_first_failures_last() -> None:
    def results(accuracy: float) -> dict[str, Any]:
        score = {"benchmark": "b", "model": "swirl", "with_tools": True, "accuracy": accuracy}
        other = [{**score, "model": "base", "accuracy": 1.0}, {**score, "with_tools": False, "accuracy": 1.0}]
        scores = [score, {**score, "benchmark": "c", "accuracy": 0.0}, *other]
        seen = {"swirl": {"kept": 9, "visited": 6, "passes": accuracy * 2 / 3}}
        return {"scores": scores, "filters": {"kept": {"trajectories": int(100 * accuracy)}}, "coverage": seen}

    same = {"judge.threshold": 0.5, "train.methods": ["swirl"]}
    runs = [
        ("x-1", {"seed": 1, **same}, results(0.25)),
        ("x-2", {"seed": 2, **same}, None),
        ("x-3", {"seed": 3, **same}, results(0.75)),
    ]
    own = [("y-1", {"train.methods": ["base"], "judge.threshold": 0.5}, results(0.25))]
    assert [(row["method"], row["mean accuracy"]) for row in table(own, ["swirl"])] == [("base", 1.0)]
    assert table(runs, ["swirl"]) == [
        {
            "seed": 3,
            "trajectories": 75,
            "method": "swirl",
            "passes": 0.5,
            "mean accuracy": 0.375,
            "b": 0.75,
            "c": 0.0,
            "experiment": "x-3",
        },
        {
            "seed": 1,
            "trajectories": 25,
            "method": "swirl",
            "passes": 0.17,
            "mean accuracy": 0.125,
            "b": 0.25,
            "c": 0.0,
            "experiment": "x-1",
        },
        {
            "seed": 2,
            "trajectories": None,
            "method": "",
            "passes": None,
            "mean accuracy": None,
            "experiment": "x-2 failed",
        },
    ]
