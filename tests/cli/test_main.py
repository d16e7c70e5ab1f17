"""The command line, as a user sees it."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import proxy_bypass

import pytest
import yaml
from safetensors import SafetensorError

from swirl.cli import main, run_bench
from swirl.cli.run_stage import _alone, _timed
from swirl.config import presets
from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import OUTCOME, Action, Observation, Question, Step, Stop, Trajectory, Verdict
from swirl.pipeline import environment
from tests.servers import said, scripted

Swirl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A folder that `swirl` accepts as a project, with one judged trajectory."""
    layout = Layout(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    call = Action("calculate", "I add.\n<calculate>2 + 3</calculate>", "2 + 3")
    answer = Action("answer", "<answer>5</answer>", "5")
    seen = (Observation("5", False, "calculate", "2 + 3"), Observation("error: no", True, "calculate", "1 / 0"))
    steps = (
        Step(0, call, seen, (1, 2), (-0.1, -0.2), (3,)),
        Step(1, answer, (), (4,), (-0.3,), ()),
    )
    trajectory = Trajectory("t1", "q1", "mini-gsm8k", 0, "base", 7, (9,), steps, Stop.ANSWERED, "")
    verdicts = [
        Verdict("t1", 0, True, 0.91, "", "reward"),
        Verdict("t1", 1, None, None, "quota used up", "reward"),
        Verdict("t1", OUTCOME, False, 0.2, "", "reward"),
    ]
    question = Question("q1", "mini-gsm8k", "train", "What is two and three?", ("5", "five"), 1, ("calculate",))
    records.save([trajectory], Trajectory, layout.trajectories)
    records.save(verdicts, Verdict, layout.verdicts)
    records.save([question], Question, layout.questions)
    return layout


def test_help_names_every_command(swirl: Swirl) -> None:
    done = swirl("--help")
    assert done.returncode == 0
    assert set(re.findall(r"^\W{1,3}([a-z]+) {2,}\w", done.stdout, re.M)) == {
        "ask", "bench", "browse", "compare", "evaluate", "export", "import", "judge", "params", "plan", "preset",
        "report", "seeds", "show", "stage", "track",
    }  # fmt: skip


def test_the_version_is_said(swirl: Swirl) -> None:
    assert re.fullmatch(r"swirl \d+\.\d+\.\d+\n", swirl("--version").stdout)


def test_show_prints_steps_observations_and_verdicts(swirl: Swirl, project: Layout) -> None:
    done = swirl("show", "t1")
    assert done.stderr == ""
    assert done.stdout == (
        "trajectory  t1  (data/trajectories/trajectories.parquet)\n"
        "benchmark   mini-gsm8k, model base, sample 0\n"
        "question    What is two and three?\n"
        "accepted    5 | five\n"
        "\n"
        "step 1  calculator  [judge: good 0.91]\n"
        "  model  I add.\n"
        "         <calculate>2 + 3</calculate>\n"
        "  result 5\n"
        "  error  error: no\n"
        "\n"
        "step 2  answer  [judge: no verdict, quota used up]\n"
        "  model  <answer>5</answer>\n"
        "\n"
        "ended       answered\n"
        "answer      5  [judge: bad 0.20]\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "t2"), "no trajectory 't2' in data/trajectories/trajectories.parquet; an id looks like 't1'"),
        (("stage", "train"), "stage train needs --item sft or --item swirl\n"),
        (("stage", "train", "--item", "base"), "stage train needs --item sft or --item swirl, not 'base'"),
        (
            ("ask", "Why?", "--benchmark", "mini-gsm8k", "--model", "models/swirl"),
            "there is no model folder models/swirl; `dvc repro` makes models/swirl; a model is a folder, ",
        ),
        (("stage", "judge", "--item", "base"), "stage judge has no items; leave out --item base"),
    ],
)
def test_a_mistake_gets_one_sentence(arguments: tuple[str, ...], message: str, swirl: Swirl, project: Layout) -> None:
    done = swirl(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"swirl: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("stage trian", "there is no stage 'trian'; there are download, .*; did you mean train?"),
        ("stage evaluate --item swril", "stage evaluate needs .*, not 'swril'; did you mean swirl?"),
        ("stage train --item sf", "stage train needs --item sft or --item swirl, not 'sf'; did you mean sft?"),
        ("preset smolm", "there is no preset 'smolm'; there are .*; did you mean smoke?"),
        ("preset smollm", "there is no preset 'smollm'; there are .*; did you mean smollm2-135m?"),
    ],
)
def test_a_misspelt_name_gets_the_one_that_was_meant(arguments: str, message: str, swirl: Swirl, root: Path) -> None:
    done = swirl(*arguments.split(), cwd=root)
    assert done.returncode == 1
    assert re.fullmatch(f"swirl: {message}\n".replace("?", r"\?"), done.stderr)


def test_outside_of_a_project_it_says_so(swirl: Swirl, tmp_path: Path) -> None:
    done = swirl("show", "t1")
    assert done.returncode == 1
    assert done.stderr == f"swirl: no dvc.yaml in {tmp_path} or above it; run swirl inside the project\n"


def test_a_folder_inside_the_project_will_do(swirl: Swirl, project: Layout) -> None:
    assert swirl("show", "t1", cwd=project.root / "data").stdout.startswith("trajectory  t1  ")


def test_params_prints_what_the_stages_see(swirl: Swirl, root: Path) -> None:
    done = swirl("params", cwd=root)
    assert done.stderr == ""
    assert "\nruntime:\n" in "\n" + done.stdout


def test_a_typo_in_params_is_refused_before_a_stage_starts(swirl: Swirl, root: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    text = (root / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text + "\nsede: 1\n", encoding="utf-8")
    done = swirl("stage", "download")
    assert done.returncode == 1
    assert "sede" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_code_of_another_checkout_is_noticed(swirl: Swirl, project: Layout, root: Path) -> None:
    watched = project.root / "src/swirl"
    watched.mkdir(parents=True)
    (project.root / "params.yaml").write_text("seed: zero\n")
    first = swirl("stage", "download").stderr.splitlines()[0]
    assert first == (f"swirl: warning: running {root / 'src/swirl'}, while DVC watches {watched}; activate .venv here")


def test_a_library_of_another_version_than_the_one_written_down_is_noticed(
    swirl: Swirl, project: Layout, root: Path
) -> None:
    (project.root / "params.yaml").write_text("seed: zero\n")
    written = (root / "constraints-compute.txt").read_text()
    (project.root / "constraints-compute.txt").write_text(written)
    assert "is installed, while" not in swirl("stage", "index").stderr
    (project.root / "constraints-compute.txt").write_text(written.replace("bm25s==", "bm25s==0."))
    (line,) = [line for line in swirl("stage", "index").stderr.splitlines() if "is installed, while" in line]
    assert re.fullmatch(
        r"swirl: warning: bm25s [\d.]+ is installed, while constraints-compute.txt, which DVC watches, says 0[\d.]+: "
        r"install that one \(make venv\), or write [\d.]+ there",
        line,
    )


def test_torch_stages_run_in_a_process_started_with_the_allocator_settings() -> None:
    imports = "import os; from swirl.pipeline.environment import set_up_process"
    program = f"{imports}; set_up_process(3); print(os.getpid(), dict(os.environ))"
    clean = {k: v for k, v in os.environ.items() if k not in {*environment.ALLOCATOR, "SWIRL_RESTARTED"}}
    with subprocess.Popen([sys.executable, "-c", program], env=clean, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate(timeout=60)
    pid, _, variables = printed.partition(" ")
    assert int(pid) == process.pid
    for expected in ("'OMP_NUM_THREADS': '3'", "'MALLOC_TOP_PAD_': '268435456'", "'GOMP_SPINCOUNT': '0'"):
        assert expected in variables


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "intra.example, localhost"}, "intra.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*", "NO_PROXY": "x"}, "*"),
    ],
)
def test_no_proxy_stands_before_this_machine(
    before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**before, "http_proxy": "http://proxy.example:3128"}.items():
        monkeypatch.setenv(name, value)
    environment.bypass_proxy_for_localhost()
    assert (os.environ["NO_PROXY"], os.environ["no_proxy"]) == (after, after)
    assert all(proxy_bypass(host) for host in ("127.0.0.1", "127.0.0.1:4200", "localhost:5000"))
    assert bool(proxy_bypass("hub.example")) == (after == "*")


def test_a_stage_that_still_runs_is_not_started_beside_itself(tmp_path: Path) -> None:
    with _alone("judge", tmp_path / "judge"):
        program = (
            "import sys, pathlib; from swirl.cli.run_stage import _alone\n"
            "with _alone('judge', pathlib.Path(sys.argv[1])): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "judge")], capture_output=True, text=True, check=False
        )
    pid = os.getpid()
    assert second.stderr.splitlines()[-1].endswith(
        f"SwirlError: stage judge is still running as process {pid}; wait for it or stop it: kill {pid}"
    )
    with _alone("judge", tmp_path / "judge"):
        assert (tmp_path / "judge").read_text() == f"{pid}\n"


def test_timing_is_written_only_for_a_stage_that_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), _timed(tmp_path / "broken.json"):
        raise ValueError("broken")
    assert not (tmp_path / "broken.json").exists()
    with _timed(tmp_path / "done.json"):
        pass
    timing = json.loads((tmp_path / "done.json").read_text())
    assert timing.keys() == {"started", "seconds", "peak_rss_mb"}
    assert 0 <= timing["seconds"] < 10
    assert 10 < timing["peak_rss_mb"] < 10_000


def test_preset_writes_params_and_keeps_the_old_ones(swirl: Swirl, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert "presets holds no preset; give a YAML file of your own" in swirl("preset", cwd=tmp_path).stderr
    shutil.copytree(root / "presets", tmp_path / "presets")
    assert "there is no preset ''" in swirl("plan", "--preset", "", cwd=tmp_path).stderr
    listed = swirl("preset", cwd=tmp_path).stdout.splitlines()
    assert listed[0].startswith("mini          The default: an embedded world, which runs offline in minutes")
    named = [line.split()[0] for line in listed if not line.startswith(" ")]
    assert named == presets.names(root)
    assert all(len(line) <= 100 and (line[:14].isspace() or line[:14].strip() in named) for line in listed)
    dry = swirl("preset", "smoke", "--dry-run", cwd=tmp_path).stdout
    assert "download.worlds: 3 -> 1\n" in dry
    assert (tmp_path / "params.yaml").read_bytes() == (root / "params.yaml").read_bytes()
    said = swirl("preset", "smoke", cwd=tmp_path).stdout
    assert said.splitlines()[:-1] == dry.splitlines()[:-1]
    assert re.search(r"^params.yaml would become preset smoke: \d+ keys would change$", dry, re.MULTILINE)
    assert re.search(r"^params.yaml is now preset smoke: \d+ keys changed; .*params.yaml.before$", said, re.MULTILINE)
    assert (tmp_path / "params.yaml.before").read_bytes() == (root / "params.yaml").read_bytes()
    assert " keys changed; " in swirl("preset", "mini", cwd=tmp_path).stdout
    assert (tmp_path / "params.yaml").read_bytes() == (root / "params.yaml").read_bytes()


@pytest.mark.parametrize(
    ("text", "why"), [("seed: [", " is not YAML: "), ("- seed\n", " holds no settings; "), ("", " holds no settings; ")]
)
def test_preset_replaces_a_broken_file_and_keeps_it(
    text: str, why: str, swirl: Swirl, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "presets", tmp_path / "presets")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text(text)
    done = swirl("preset", "smoke")
    assert done.returncode == 0
    assert done.stderr.startswith(f"swirl: warning: {tmp_path}/params.yaml{why}")
    assert done.stderr.endswith("; it is replaced as a whole\n")
    assert "\nparams.yaml is now preset smoke: " in done.stdout
    assert (tmp_path / "params.yaml.before").read_text() == text
    assert swirl("params").returncode == 0


def test_a_file_system_that_takes_nothing_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(number: int, *where: str) -> str:
        def command() -> None:
            raise OSError(number, os.strerror(number), *where)

        monkeypatch.setattr(main, "app", command)
        with pytest.raises(SystemExit, match="1"):
            main.main()
        return capsys.readouterr().err

    assert fails(errno.EROFS, "/no/params.yaml") == "swirl: /no/params.yaml cannot be written: Read-only file system\n"
    assert fails(errno.ENOSPC) == "swirl: a file cannot be written: No space left on device\n"
    assert fails(errno.EACCES, "/no/rows.jsonl") == "swirl: /no/rows.jsonl: Permission denied\n", "to be read, perhaps"
    with pytest.raises(FileNotFoundError):
        fails(errno.ENOENT, "/no/params.yaml")


def test_a_full_disk_is_said_in_a_sentence_by_safetensors_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["I/O error: No space left on device (os error 28)", "invalid header"]

    def command() -> None:
        raise SafetensorError(f"Error while serializing: {said.pop(0)}")

    monkeypatch.setattr(main, "app", command)
    with pytest.raises(SystemExit, match="1"):
        main.main()
    assert capsys.readouterr().err == "swirl: a file cannot be written: No space left on device\n"
    with pytest.raises(SafetensorError, match="invalid header"):
        main.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("paper-scale --model x --kl 0.04", "--model and --kl would not count: paper-scale takes only --json"),
        ("scaling --json --kl 0.1", "--kl would not count: scaling takes --rounds, --repeats, --cores"),
        ("overhead --last --rounds 2", "--last runs nothing: leave out that, or --rounds"),
        ("scalling", "there is no benchmark 'scalling'; there are rl-step, .*; did you mean scaling?"),
    ],
)
def test_an_option_that_would_not_count_for_a_benchmark_is_refused(
    arguments: str, message: str, swirl: Swirl, root: Path
) -> None:
    done = swirl("bench", *arguments.split(), cwd=root)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"swirl: {message}\n".replace("?", r"\?"), done.stderr)


def test_every_option_of_the_benchmarks_counts_for_one_of_them() -> None:
    options = {*inspect.signature(run_bench.bench).parameters} - {"context", "name", "as_json"}
    assert options == {one for taken in run_bench.OPTIONS.values() for one in taken}


def test_plan_tells_of_a_preset_without_choosing_it(swirl: Swirl, root: Path) -> None:
    said = swirl("plan", "--preset", "gemma-2-27b", cwd=root).stdout
    assert "points to google/gemma-2-27b-it, about 27.2 billion parameters" in said
    assert "623,650" in said
    assert "\n  states without a signal     0.8%    5.8%   43.0%   66.3%\n" in said  # P(GOOD) .5, .7, .9, .95; G = 8


@pytest.mark.slow
def test_judges_behind_servers_are_calibrated_before_any_stage(swirl: Swirl, root: Path, tmp_path: Path) -> None:
    """Neither models/base nor models/reward exists yet."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copytree(root / "src/swirl/prompts", tmp_path / "src/swirl/prompts")
    step = {"question": "where", "conversation": "any text", "action": "<answer>Oslo</answer>", "label": "GOOD"}
    outcome = {"question": "where", "answer": "Oslo", "golden": "Oslo", "label": "YES"}
    for name, row in (("steps", step), ("outcomes", outcome)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    with scripted(said("It helps.\nGOOD"), said("The same.\nNO")) as server:
        served = {"url": server.url, "model": "m", "api": "chat", "key_env": ""}
        served["chat_template_kwargs"] = {"enable_thinking": False}
        tree = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        tree["reward_model"] = {"source": "endpoint", "max_tokens": 8, "votes": 1, "temperature": 0.0, "server": served}
        tree["judge"] |= {"outcome": "model", "grader": served}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        judged = swirl("judge", "calibrate", "steps.jsonl")
        graded = swirl("judge", "calibrate", "outcomes.jsonl", "--grader", "--json")
    assert judged.stderr == graded.stderr == ""
    assert [body["chat_template_kwargs"] for body in server.bodies] == [{"enable_thinking": False}] * 2
    assert judged.stdout.startswith("1 row, 0 without a verdict\naccuracy: 100.0%, 95% from 20.7% to 100.0% (of 1)\n")
    assert json.loads(graded.stdout)["fnr"]["value"] == 1.0


@pytest.mark.slow
def test_our_own_warning_is_one_line(swirl: Swirl, root: Path, tmp_path: Path) -> None:
    rows = tmp_path / "data/official/gsm8k.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"question": "1 + 1?", "answer": "<<1+1=2>>2\\n#### 2"}\n')
    shutil.copytree(root / "presets", tmp_path / "presets")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    own = tmp_path / "rows.yaml"
    own.write_text("download: {benchmarks: {gsm8k: {source: file, files: {train: gsm8k.jsonl}, train: 1}}}\n")
    assert swirl("preset", str(own), cwd=tmp_path).returncode == 0
    said = swirl("stage", "download", cwd=tmp_path)
    assert said.returncode == 0
    assert f"swirl: warning: {rows} has 1 rows; the official file of gsm8k train has 7,473\n" in said.stderr
