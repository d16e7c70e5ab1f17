"""`swirl seeds`: runs that differ in their seed alone are pooled, and all others refused with a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swirl.config import yaml_text
from swirl.core import records
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.types import (
    Action,
    JudgeRole,
    Observation,
    Passage,
    Prediction,
    Question,
    Step,
    Stop,
    Support,
    Trajectory,
)
from swirl.evaluation.scoring import score
from swirl.pipeline.dvc_file import dvc_hash
from swirl.reporting.kept_runs import keep, read_kept
from swirl.reporting.pooled_runs import PooledRuns, pooled, read, to_json
from swirl.reporting.pooled_text import markdown
from swirl.reporting.results import Arm, Funnel, Results, load
from swirl.reporting.results import to_json as results_to_json
from swirl.reporting.text import show_pooled

BENCHMARKS = {
    "hotpotqa": {"source": "file", "files": {"train": "h.jsonl"}, "train": 5, "evaluation": 4},
    "musique": {"source": "file", "files": {"evaluation": "m.jsonl"}, "evaluation": "all"},
}
RIGHT = {0: {"base": 1, "sft": 2, "swirl": 3}, 1: {"base": 1, "sft": 1, "swirl": 4}}
"""Seed -> model -> how many of the four questions of hotpotqa it gets right; of musique none ever."""
ADA = "Ada was born in Oslo."


def made_up_run(root: Path, seed: int) -> Layout:
    """What the stages leave of a run with this seed."""
    layout = Layout(root)
    root.mkdir()
    settings = yaml_text.read(Path(__file__).parents[2] / "presets/mini.yaml") | {"seed": seed}
    settings["download"] |= {"benchmarks": BENCHMARKS}
    (root / "params.yaml").write_text(yaml_text.dump(settings), encoding="utf-8")
    numbered = [(benchmark, i) for benchmark in BENCHMARKS for i in (3, 1, 0, 2)]  # as files have them: in no order
    asked = [Question(f"{b}/{i}", b, "evaluation", f"Who is {i}?", ("Ada",), 2, ("search",)) for b, i in numbered]
    records.save(asked, Question, layout.questions)
    records.save([Support("hotpotqa/0", ("p",))], Support, layout.support)
    records.save([Passage("p", "Ada", ADA)], Passage, layout.corpus("hotpotqa", "evaluation"))
    scores = []
    for model, right in RIGHT[seed % 2].items():
        rows = [
            prediction(one, model, i < right and name == "hotpotqa", True)
            for one, (name, i) in zip(asked, numbered, strict=True)
        ]
        rows += [prediction(one, model, False, False) for one in asked if one.benchmark == "musique"]
        records.save(rows, Prediction, layout.predictions(model))
        found = [trajectory(row, seen=ADA if model == "swirl" else "no result") for row in rows if row.with_tools]
        records.save(found, Trajectory, layout.prediction_trajectories(model))
        for cell in (("hotpotqa", True), ("musique", True), ("musique", False)):
            of_cell = [row for row in rows if (row.benchmark, row.with_tools) == cell]
            scores.append(score(of_cell, "reward", JudgeRole.REWARD))
    arms = {name: Arm(1, 2, 0.5, {"hotpotqa": 1}) for name in ("none", "process", "outcome", "both")}
    results = Results(tuple(scores), Funnel("process", 1, arms, arms["process"]), {}, {})
    records.save_json(results_to_json(results), layout.results)
    return layout


def prediction(question: Question, model: str, right: bool, with_tools: bool) -> Prediction:
    share, name = float(right), f"{question.id}/{'tools' if with_tools else 'none'}"
    stop = Stop.ANSWERED if right or model == "swirl" else Stop.STEP_LIMIT
    return Prediction(
        question.id, question.benchmark, model, with_tools, "Ada", right, share, share, share, share, None, None, 2, 0,
        stop, name,
    )  # fmt: skip


def trajectory(row: Prediction, seen: str) -> Trajectory:
    """A search, and an action that is malformed unless the answer is right."""
    steps = (
        Step(0, Action("search", "", "Ada"), (Observation(seen, False, "search", "Ada"),), (1,), (0.0,), (2,)),
        Step(1, Action("answer" if row.correct else "malformed", "", "Ada"), (), (1,), (0.0,), ()),
    )
    return Trajectory(row.trajectory_id, row.question_id, row.benchmark, 0, row.model, 0, (1,), steps, row.stop, "")


def test_answers_of_other_settings_than_params_yaml_has_are_not_pooled(pair: tuple[Layout, Layout]) -> None:
    """As where a run was copied, its seed changed, and `dvc repro` has not run since."""
    there = pair[1].root
    outs = [{"path": "reports/results.json", "md5": dvc_hash(pair[1].results)}]

    def lock(answers: dict[str, Any], report: dict[str, Any]) -> None:
        stages = {"evaluate@base": {"params": {"params.yaml": answers}}, "report": {"outs": outs, **report}}
        (there / "dvc.lock").write_text(yaml_text.dump({"schema": "2.0", "stages": stages}), encoding="utf-8")

    lock({"seed": 1}, {"params": {"params.yaml": {"report.samples": 99}}})  # shapes no answer
    assert read(there).seed == 1
    lock({"seed": 0}, {})
    with pytest.raises(DataError, match=r"one: its answers are not of its params.yaml: seed is 1 .* was 0; run `dvc"):
        read(there)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return made_up_run(folder / "zero", 0).root, made_up_run(folder / "one", 1).root


@pytest.fixture
def pair(both: tuple[Path, Path], tmp_path: Path) -> tuple[Layout, Layout]:
    """A copy of both runs, which a test may change."""
    shutil.copytree(both[0].parent, tmp_path / "runs")
    return Layout(tmp_path / "runs/zero"), Layout(tmp_path / "runs/one")


@pytest.fixture(scope="module")
def results(both: tuple[Path, Path]) -> PooledRuns:
    return pooled([read(folder) for folder in both])


def test_means_over_seeds_and_differences_from_the_base(results: PooledRuns) -> None:
    rows = {(row.benchmark, row.measure): row for row in results.rows}
    assert list(rows)[:6] == [
        ("hotpotqa", name) for name in ("accuracy", "em", "f1", "answered", "malformed", "new_support")
    ]
    assert ("musique", "accuracy") in rows and ("musique", "new_support") not in rows
    accuracy = rows["hotpotqa", "accuracy"]
    assert {model: one.value for model, one in accuracy.models.items()} == {"base": 0.25, "sft": 0.375, "swirl": 0.875}
    assert {model: one.value for model, one in accuracy.over.items()} == {"sft": 0.125, "swirl": 0.625}
    assert (accuracy.n, accuracy.trained, rows["musique", "f1"].trained) == (4, True, False)
    malformed = rows["hotpotqa", "malformed"]
    assert {model: one.value for model, one in malformed.models.items()} == {
        "base": 6 / 16, "sft": 5 / 16, "swirl": 1 / 16
    }  # fmt: skip
    assert rows["hotpotqa", "answered"].models["swirl"].value == 1.0
    support = rows["hotpotqa", "new_support"]
    assert (support.n, support.models["base"].value, support.over["swirl"].value) == (1, 0.0, 1.0)
    assert rows["musique", "accuracy"].over["swirl"].p == 1.0
    assert rows["musique", "accuracy"].over["swirl"].p_holm is None
    assert accuracy.over["swirl"].p_holm == accuracy.over["swirl"].p == 0.25, "one benchmark was trained on"


def test_the_json_has_the_scores_of_results_json_over_all_seeds(
    results: PooledRuns, both: tuple[Path, Path], tmp_path: Path
) -> None:
    content = to_json(results)
    assert list(content) == ["seeds", "settings", "scores", "pooled", "runs"]
    assert content["seeds"] == [0, 1]
    assert "seed" not in content["settings"] and content["settings"]["train"]["methods"] == ["sft", "swirl"]
    runs = [json.loads((folder / "reports/results.json").read_text(encoding="utf-8")) for folder in both]
    assert json.loads(json.dumps(content["runs"])) == [
        {"seed": seed, "scores": run["scores"]} for seed, run in enumerate(runs)
    ]
    records.save_json({**runs[0], "scores": content["scores"]}, tmp_path / "results.json")
    cells = {(one.benchmark, one.model, one.with_tools): one for one in load(tmp_path / "results.json").scores}
    swirl, accuracy = cells["hotpotqa", "swirl", True], results.rows[0]
    assert (swirl.n, swirl.accuracy, swirl.em, swirl.steps) == (4, 0.875, 0.875, 2.0)
    assert (swirl.ci_low, swirl.ci_high) == (accuracy.models["swirl"].low, accuracy.models["swirl"].high)
    assert swirl.p_vs_base == accuracy.over["swirl"].p
    assert cells["hotpotqa", "base", True].p_vs_base is None
    assert cells["musique", "sft", False].accuracy == 0.0


def test_markdown_and_terminal_show_the_same(results: PooledRuns, capsys: pytest.CaptureFixture[str]) -> None:
    lines = markdown(results).splitlines()
    head = "| benchmark | measure | questions | Base | SFT | SWiRL | SWiRL - Base | p | Holm | SFT - Base | p | Holm |"
    assert lines[0] == head
    assert lines[2].startswith("| hotpotqa | Accuracy | 4 | 25.0 (0.0 to 75.0) | 37.5 (")
    nothing, same = "0.0 (0.0 to 0.0)", "+0.0 (+0.0 to +0.0) | 1 | –"
    assert lines[3] == f"| musique | Accuracy | 4 | {nothing} | {nothing} | {nothing} | {same} | {same} |"
    assert "means over seeds 0, 1. Intervals" in lines[-1]
    assert lines[-1].endswith(
        "over the benchmarks that RL trained on, hotpotqa. Of fewer than 5 seeds, p is too small where they differ "
        "much from one another."
    )
    show_pooled(results)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    shown = [" ".join(line.split()) for line in printed.splitlines()]
    assert "Searches that bring a new supporting page, %" in shown
    assert any(re.match(r"hotpotqa 25.0 ±37.5 37.5 ±\d+.\d 87.5 ±\d+.\d \+62.5 ±", line) for line in shown)
    assert "hotpotqa 0.0 ±0.0 0.0 ±0.0 100.0 ±0.0 +100.0 ±0.0 1 1 +0.0 ±0.0 1" in shown
    assert "…" not in printed and " ".join(shown).endswith("Questions: 4 of hotpotqa, 4 of musique.")


def test_others_can_be_set_against_sft(both: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    runs = [read(folder) for folder in both]
    results, before = pooled(runs, "sft"), pooled(runs)
    assert {model: one.value for model, one in results.rows[0].over.items()} == {"base": -0.125, "swirl": 0.5}
    assert results.scores == before.scores, "p_vs_base is of the base"
    assert {row["against"] for row in to_json(results)["pooled"]} == {"sft"}
    head = "| benchmark | measure | questions | Base | SFT | SWiRL | SWiRL - SFT | p | Holm | Base - SFT | p | Holm |"
    assert markdown(results).splitlines()[0] == head
    show_pooled(results)
    assert "SWiRL - SFT" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"has no model 'dpo' to set others against, but base, sft, swirl$"):
        pooled(runs, "dpo")


def test_one_run_is_a_bootstrap_over_questions(both: tuple[Path, Path]) -> None:
    alone = pooled([read(both[0])])
    assert alone.seeds == (0,)
    assert alone.rows[0].over["swirl"].value == 0.5
    words = "in percent, seed 0. Intervals (95%) and p (two-sided) are of a bootstrap over questions, 10,000 draws"
    assert words in markdown(alone)


def _refused(pair: tuple[Layout, Layout], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        pooled([read(one.root) for one in pair])
    assert str(caught.value).replace(str(pair[0].root.parent), "runs") == message


def test_other_settings_are_refused(pair: tuple[Layout, Layout]) -> None:
    path = pair[1].root / "params.yaml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("kl_coefficient: 0.2", "kl_coefficient: 0.05"), encoding="utf-8")
    message = "runs/one/params.yaml: train.swirl.kl_coefficient is 0.05, but 0.2 in runs/zero/params.yaml; only seed "
    _refused(pair, ParamsError, message + "may differ")
    path.write_text(whole.replace("seed: 1", "seed: 0"), encoding="utf-8")
    _refused(pair, ParamsError, "runs/one/params.yaml: seed is 0, as in runs/zero/params.yaml")


WHY = "; runs are pooled over the same questions, which the same base_seed draws"


def test_other_questions_are_refused(pair: tuple[Layout, Layout]) -> None:
    rows = records.load(Question, pair[1].questions)
    other = [Question(one.id, one.benchmark, one.split, "Where?", one.answers, 2, one.tools) for one in rows]
    records.save(other, Question, pair[1].questions)
    where = "runs/one/data/questions/questions.parquet: question 'hotpotqa/0' has another text, or other answers,"
    _refused(pair, DataError, f"{where} than in runs/zero{WHY}")
    records.save(other[1:], Question, pair[1].questions)
    message = "no question 'hotpotqa/3', which runs/one/data/predictions/base answers"
    _refused(pair, DataError, f"runs/one/data/questions/questions.parquet: {message}")


@pytest.mark.parametrize(
    "file",
    [
        "data/predictions/swirl/predictions.parquet",
        "data/predictions/sft/trajectories.parquet",
        "data/questions/questions.parquet",
        "data/questions/support.parquet",
        "data/corpus/hotpotqa.evaluation.parquet",
        "reports/results.json",
    ],
)
def test_a_stage_that_has_not_run_is_named_by_its_file(pair: tuple[Layout, Layout], file: str) -> None:
    (pair[1].root / file).unlink()
    _refused(pair, DataError, f"runs/one/{file} does not exist; run `dvc repro` to make it")


def test_a_model_that_was_trained_must_be_evaluated(pair: tuple[Layout, Layout]) -> None:
    records.save([], Prediction, pair[0].predictions("swirl"))
    message = "runs/zero/data/predictions/swirl/predictions.parquet holds no prediction; run `dvc repro evaluate@swirl`"
    _refused(pair, DataError, f"{message} there")


def test_results_of_other_predictions_are_refused(pair: tuple[Layout, Layout]) -> None:
    shutil.copytree(pair[1].predictions("base").parent, pair[1].predictions("swirl").parent, dirs_exist_ok=True)
    predictions = "runs/one/data/predictions/swirl/predictions.parquet"
    message = f"of swirl on hotpotqa with tools it is not what {predictions} says, 0.2500 right of 4"
    _refused(pair, DataError, f"runs/one/reports/results.json: {message}; run `dvc repro report` there")


def test_the_command(
    both: tuple[Path, Path], tmp_path: Path, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = swirl("seeds", *map(str, both), "--json", "made/seeds.json", "--markdown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("| benchmark | measure | questions | Base | SFT | SWiRL | SWiRL - ")
    assert json.loads((tmp_path / "made/seeds.json").read_text(encoding="utf-8"))["seeds"] == [0, 1]
    kept = swirl("seeds", str(both[0]), "--keep", ".")
    again = swirl("seeds", "seed-0.json", "--json", "seed-0.json")
    assert (kept.returncode, again.returncode) == (0, 1)
    assert again.stderr == "swirl: --json seed-0.json is one of the runs, and would be overwritten; name another file\n"
    assert swirl("seeds", "seed-0.json").returncode == 0
    lost = swirl("seeds", str(both[0]), "nowhere")
    assert (lost.returncode, lost.stdout) == (1, "")
    what = "a run is a project's folder, or a file that --keep made of one"
    assert lost.stderr == f"swirl: nowhere does not exist; {what}\n"
    (tmp_path / "empty").mkdir()
    other = swirl("seeds", "empty")
    what = "a run is a project's folder, in which the pipeline has run, or a file that `swirl seeds --keep` made of one"
    assert other.stderr == f"swirl: empty holds no params.yaml; {what}\n"


def test_files_of_runs_stand_in_for_their_folders(
    both: tuple[Path, Path], tmp_path: Path, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folders = swirl("seeds", *map(str, both), "--json", "folders.json", "--keep", "kept")
    files = swirl("seeds", "kept/seed-0.json", "kept/seed-1.json", "--json", "files.json", "--keep", "again")
    mixed = swirl("seeds", str(both[0]), "kept/seed-1.json", "--json", "mixed.json")
    assert (folders.returncode, files.returncode, mixed.returncode) == (0, 0, 0), files.stderr + mixed.stderr
    whole = (tmp_path / "folders.json").read_bytes()
    assert (tmp_path / "files.json").read_bytes() == whole == (tmp_path / "mixed.json").read_bytes()
    for name in ("seed-0.json", "seed-1.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
    assert "Who is" not in (tmp_path / "kept/seed-0.json").read_text(encoding="utf-8"), "no text of a question"
    twice = swirl("seeds", "kept/seed-0.json", str(both[0]))
    assert twice.stderr == f"swirl: {both[0]}/params.yaml: seed is 0, as in kept/seed-0.json\n"


ONE = "cells, 0, models, sft"


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (lambda one: one.pop("asked"), "asked: Field required"),
        (lambda one: one.update(seed=True), "seed: Input should be a valid integer"),
        (lambda one: one.update(cells=None), "cells: Input should be a valid list"),
        (lambda one: cell(one).update(questions=[[1]]), "cells, 0, questions, 0: Input should be a valid string"),
        (lambda one: cell(one).update(with_tools="false"), "cells, 0, with_tools: Input should be a valid boolean"),
        (lambda one: cell(one)["questions"].__setitem__(0, "x"), "cells, 0, questions: 'x' is not in asked"),
        (lambda one: cell(one)["questions"].__setitem__(0, "hotpotqa/1"), "cells, 0, questions: one stands there "),
        (lambda one: cell(one)["models"].pop("base"), "cells, 0, models, sft, accuracy: not of the "),
        (lambda one: sft(one).pop("accuracy"), f"{ONE}, accuracy: not of the questions that base's is of"),
        (lambda one: sft(one).update(f2=sft(one)["f1"]), f"{ONE}: no measure 'f2'; there are accuracy, em, f1, "),
        (lambda one: sft(one)["f1"][0].pop(), f"{ONE}, f1: not two lists of 4 numbers, one per question"),
        (lambda one: sft(one)["f1"][1].__setitem__(2, -1), f"{ONE}, f1, 1, 2: Input should be greater "),
        (lambda one: sft(one)["f1"][0].__setitem__(2, 3.0), f"{ONE}, f1, 'hotpotqa/0': 3.0 of 1.0 is no share"),
        (lambda one: sft(one)["f1"][0].__setitem__(2, None), f"{ONE}, f1, 'hotpotqa/0': None of 1.0 is no share"),
        (lambda one: sft(one)["f1"][0].__setitem__(2, 10**400), f"{ONE}, f1, 0, 2: Input should be "),
        (lambda one: cell(one)["models"]["base"]["accuracy"][1].__setitem__(0, 2.0), "cells, 0, models, base, "
         "accuracy: not one number per question"),
        (lambda one: sft(one)["accuracy"][0].__setitem__(0, 1.0), "the score of sft on hotpotqa with tools is "),
        (lambda one: one["cells"].pop(), "a score of base on musique without tools, and no cell of it"),
        (lambda one: one["cells"].append(cell(one)), "cells: two of one benchmark"),
        (lambda one: one["scores"].append(one["scores"][0]), "scores: two of one benchmark and model"),
        (lambda one: one.update({"\x1b[31m" + 200 * "k": 1}), "\ufffd[31m" + 75 * "k" + ": Extra inputs are"),
    ],
)  # fmt: skip
def test_a_broken_file_of_a_run_is_named(
    both: tuple[Path, Path], tmp_path: Path, broken: Callable[[Any], Any], what: str
) -> None:
    path = tmp_path / "seed-0.json"
    keep(read(both[0]), path)
    content = json.loads(path.read_text(encoding="utf-8"))
    broken(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_kept(path)
    assert str(caught.value).startswith(
        f"{path} is no file that `swirl seeds FOLDER --keep DIR` wrote, or it was changed: {what}"
    )


def cell(content: Any) -> Any:
    return content["cells"][0]


def sft(content: Any) -> Any:
    return cell(content)["models"]["sft"]


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "seed: 0"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"params\.yaml is (not JSON|no file that .* wrote, or it was changed): "):
        read_kept(path)


def test_a_folder_is_needed_to_keep_runs_in(
    both: tuple[Path, Path], tmp_path: Path, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "kept").write_text("", encoding="utf-8")
    done = swirl("seeds", str(both[0]), "--keep", "kept")
    assert done.returncode == 1
    assert done.stderr.startswith("swirl: kept/seed-0.json cannot be written: ")
    assert done.stderr.endswith("; --keep wants a folder\n")
    (tmp_path / "results").mkdir()
    done = swirl("seeds", str(both[0]), "--json", "results")
    assert done.returncode == 1
    assert done.stderr.startswith("swirl: results cannot be written: ")
    assert "hotpotqa" in done.stdout  # what was computed is shown all the same


def test_a_number_that_is_none_is_not_kept(both: tuple[Path, Path], tmp_path: Path) -> None:
    run = dataclasses.replace(read(both[0]), settings={"tools": {"options": {"mine": {"limit": math.nan}}}})
    with pytest.raises(DataError, match="has a number in its settings or scores that is none: "):
        keep(run, tmp_path / "seed-0.json")
    assert not list(tmp_path.glob("seed-*"))


def test_a_measure_that_another_run_has_not_is_named(both: tuple[Path, Path]) -> None:
    first, second = (read(folder) for folder in both)
    for measured in second.tallies["hotpotqa", True].values():
        measured.pop("new_support")
    message = (
        "one/data/predictions/base/predictions.parquet: no new_support of a prediction on hotpotqa with tools, unlike"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        pooled([first, second])
