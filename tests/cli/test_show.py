"""`swirl show` without an id: a random trajectory, a wrong one, one question by two models."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swirl.cli.main import app
from swirl.cli.show import evaluated as evaluated_models
from swirl.cli.show import show, show_random
from swirl.core import records
from swirl.core.errors import DataError, SwirlError
from swirl.core.layout import Layout
from swirl.core.types import Action, Prediction, Question, Step, Stop, Trajectory

Swirl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def evaluated(tmp_path: Path) -> Layout:
    """Two models on two benchmarks: base has q1 right, swirl q0 and q1."""
    layout = Layout(tmp_path)
    (layout.root / "dvc.yaml").write_text("stages: {}\n")
    kinds = {"q0": "mini-gsm8k", "q1": "mini-gsm8k", "q2": "mini-hotpotqa"}
    records.save(
        [Question(one, kind, "evaluation", f"What is {one}?", ("5",), 1, ()) for one, kind in kinds.items()],
        Question,
        layout.questions,
    )
    for model, right in (("base", {"q1"}), ("swirl", {"q0", "q1"})):
        made, rows = [], []
        for one, kind in kinds.items():
            said = "5" if one in right else "6"
            step = Step(0, Action("answer", f"<answer>{said}</answer>", said), (), (4,), (-0.3,), ())
            made.append(Trajectory(f"{one}/0", one, kind, 0, model, 7, (9,), (step,), Stop.ANSWERED, ""))
            rows += [
                Prediction(
                    one, kind, model, tools, said, tools and one in right, 0.0, 0.0, 0.0, 0.0, None, None, 1, 0,
                    Stop.ANSWERED, f"{one}/0",
                )
                for tools in (True, False)
            ]  # fmt: skip
        records.save(made, Trajectory, layout.prediction_trajectories(model))
        records.save(rows, Prediction, layout.predictions(model))
    return layout


def test_an_id_alone_shows_every_model_that_has_it(evaluated: Layout) -> None:
    said = show("q0/0", evaluated)
    assert [line.split("model ")[1].split(",")[0] for line in said.splitlines() if line.startswith("benchmark")] == [
        "base",
        "swirl",
    ]


def test_a_model_that_was_not_evaluated_is_said(evaluated: Layout) -> None:
    with pytest.raises(DataError, match=r"no evaluation of 'swrl'; there are base, swirl; did you mean swirl\?$"):
        show("q0/0", evaluated, "swrl")


def test_diff_shows_what_the_second_model_mended(evaluated: Layout) -> None:
    said = show_random(evaluated, ("base", "swirl"), None, False, None, diff=True)  # there is but one
    assert said.index("answer      6\ngraded      wrong") < said.index("answer      5\ngraded      right")
    assert said.count("graded") == 2  # how it did without tools is another trajectory's
    assert said.count("question    What is q0?") == 2
    with pytest.raises(DataError, match=r"^the evaluation of swirl and base has no question that only the second ans"):
        show_random(evaluated, ("swirl", "base"), None, False, None, diff=True)


def test_wrong_and_benchmark_choose_among_those(evaluated: Layout) -> None:
    assert "What is q2?" in show_random(evaluated, ("swirl",), None, True, None)
    assert "What is q2?" in show_random(evaluated, ("base",), "mini-hotpotqa", False, None)
    with pytest.raises(DataError, match=r"has no benchmark 'gsm8k'; there are mini-gsm8k, mini-hotpotqa; did you"):
        show_random(evaluated, ("base",), "gsm8k", False, None)
    with pytest.raises(DataError, match=r"there is no evaluation of 'sft'; there are base, swirl"):
        show_random(evaluated, ("sft",), None, False, None)


def test_a_seed_draws_the_same_one_again(evaluated: Layout) -> None:
    drawn = {show_random(evaluated, ("base",), None, False, seed) for seed in range(20)}
    assert len(drawn) == 3
    assert show_random(evaluated, ("base",), None, False, 4) == show_random(evaluated, ("base",), None, False, 4)


def test_on_the_command_line(evaluated: Layout, swirl: Swirl) -> None:
    done = swirl("show", "--diff", "base", "swirl", cwd=evaluated.root)
    assert done.stderr == "" and done.stdout.startswith("trajectory  q0/0  (data/predictions/base/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("q0/0 --random", "--random is for a trajectory drawn at random: leave out that, or q0/0"),
        ("q0/0 --seed 0", "--seed is for a trajectory drawn at random: leave out that, or q0/0"),
        ("q0/0 --wrong --benchmark mini-x", "--benchmark and --wrong are for a trajectory drawn at random: leave out "
         "that, or q0/0"),
        ("--diff base swirl --wrong", "--diff draws among questions that A has wrong and B has right: leave out "
         "--wrong"),
        ("--diff base swirl --model base", "--diff names both models itself: leave out --model"),
        ("models --model base", "models is a model's folder, which has no evaluation to look in: leave out --model"),
    ],
)  # fmt: skip
def test_options_of_which_one_would_not_count_are_refused(
    arguments: str, message: str, evaluated: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (evaluated.root / "models").mkdir()
    monkeypatch.chdir(evaluated.root)
    with pytest.raises(SwirlError, match=f"^{re.escape(message)}$"):
        CliRunner().invoke(app, ["show", *arguments.split()], catch_exceptions=False)


def test_without_a_model_all_answer_the_same_question(evaluated: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evaluated.root)

    def said(given: str) -> str:
        return CliRunner().invoke(app, ["show", *given.split()], catch_exceptions=False).output

    first = "drawn       from the evaluations of base, swirl; --model shows one of them alone\n\n"
    alone = [said(f"--seed 1 --model {model}") for model in ("base", "swirl")]
    assert all(one.startswith("trajectory  q") for one in alone)
    assert said("--seed 1") == said("--random --seed 1") == first + "\n\n".join(alone)
    wrong = {said(f"--wrong --seed {seed}") for seed in range(20)}
    assert {re.findall(r"What is (q\d)\?", one)[0] for one in wrong} == {"q0", "q2"}  # q1 is right by both


def test_a_question_that_one_model_alone_was_asked_is_shown_of_it(evaluated: Layout) -> None:
    rows = records.load(Prediction, evaluated.predictions("swirl"))
    records.save([row for row in rows if row.question_id != "q2"], Prediction, evaluated.predictions("swirl"))
    said = show_random(evaluated, ("base", "swirl"), "mini-hotpotqa", False, None)
    assert said.count("question    What is q2?") == 1 and "model base" in said


def test_without_any_evaluation_it_is_said_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no model has been evaluated yet: run `dvc repro`$"):
        evaluated_models(Layout(tmp_path))
    acted = Layout(tmp_path).state_actions("base")
    acted.parent.mkdir(parents=True)
    acted.touch()
    with pytest.raises(DataError, match=r"^this project was evaluated in the states of logged conversations alone, so"):
        evaluated_models(Layout(tmp_path))


def test_why_a_trajectory_ended_is_said_in_words(evaluated: Layout) -> None:
    path = evaluated.prediction_trajectories("base")
    made = [dataclasses.replace(one, steps=(), stop=Stop.STEP_LIMIT) for one in records.load(Trajectory, path)]
    records.save(made, Trajectory, path)
    assert "\nended       step limit\n" in show("q0/0", evaluated, "base")
