"""evaluate: a prediction for every question and arm, and scores that are made of them."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from swirl.layout import Layout
from swirl.params import Params, validate
from swirl.presets import laid_over
from swirl.records import load, load_json
from swirl.types import Prediction, Question, Trajectory
from tests.stages.conftest import clone

SEARCHED = {"mini-hotpotqa", "mini-musique", "mini-cofca", "mini-beerqa"}
EVERY = SEARCHED | {"mini-gsm8k"}


@pytest.fixture(scope="module")
def evaluated(params: Params, project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = clone(project, tmp_path_factory.mktemp("evaluated") / "root")
    import_module("swirl.stages.evaluate").run(params, layout, "base")
    return layout


def test_every_question_is_predicted_in_each_of_its_arms(evaluated: Layout) -> None:
    rows = load(Prediction, evaluated.predictions("base"))
    questions = [q for q in load(Question, evaluated.questions) if q.split == "evaluation"]
    expected = Counter((q.id, True) for q in questions)
    expected.update((q.id, False) for q in questions if q.benchmark in SEARCHED)
    assert Counter((row.question_id, row.with_tools) for row in rows) == expected
    assert len(rows) == 5 * 12 + 4 * 12
    assert {row.model for row in rows} == {"base"}
    assert {row.benchmark for row in rows} == EVERY


def test_without_tools_there_is_one_step_and_no_call(evaluated: Layout) -> None:
    rows = [row for row in load(Prediction, evaluated.predictions("base")) if not row.with_tools]
    assert all(row.steps <= 1 and row.process_label_oracle is None for row in rows)


def test_trajectories_are_kept_for_the_predictions_with_tools(evaluated: Layout) -> None:
    rows = [row for row in load(Prediction, evaluated.predictions("base")) if row.with_tools]
    made = load(Trajectory, evaluated.prediction_trajectories("base"))
    assert [(t.id, t.answer, t.stop, len(t.steps)) for t in made] == [
        (row.trajectory_id, row.answer, row.stop, row.steps) for row in rows
    ]
    assert "7" in {t.answer for t in made}


def test_scores_are_the_means_of_the_predictions(evaluated: Layout) -> None:
    rows = load(Prediction, evaluated.predictions("base"))
    scores = load_json(evaluated.evaluation("base"))
    assert {(s["benchmark"], s["with_tools"]) for s in scores} == {
        *((name, True) for name in EVERY),
        *((name, False) for name in SEARCHED),
    }
    for score in scores:
        cell = [r for r in rows if (r.benchmark, r.with_tools) == (score["benchmark"], score["with_tools"])]
        assert (score["n"], score["model"], score["p_vs_base"]) == (12, "base", None)
        assert score["accuracy"] == pytest.approx(sum(r.correct for r in cell) / 12)
        assert score["f1"] == pytest.approx(sum(r.f1 for r in cell) / 12)
        assert score["ci_low"] <= score["accuracy"] <= score["ci_high"]


def test_metrics_are_flat_and_named_after_the_benchmark(evaluated: Layout) -> None:
    metrics = load_json(evaluated.metrics("evaluate-base"))
    for name in EVERY:
        assert {f"{name}.{key}" for key in ("accuracy", "ci_low", "ci_high", "f1", "steps")} <= metrics.keys()
    assert {name.split(".without_tools")[0] for name in metrics if ".without_tools." in name} == SEARCHED
    assert sum(value for name, value in metrics.items() if name.startswith("stop.")) == pytest.approx(1.0)


def test_without_the_arm_without_tools(params: Params, project: Layout, tmp_path: Path) -> None:
    """One benchmark, for speed: the arm is left out when params say so, and greedy answers are the same again."""
    layout = clone(project, tmp_path / "root")
    tree = laid_over(params.model_dump(), {"evaluate": {"without_tools": False}})
    import_module("swirl.stages.evaluate").run(validate(tree, "tests"), layout, "ceiling")
    rows = load(Prediction, layout.predictions("ceiling"))
    assert (len(rows), {row.with_tools for row in rows}, {row.model for row in rows}) == (60, {True}, {"ceiling"})


def test_accuracy_by_hops_is_told_apart_and_averaged(evaluated: Layout) -> None:
    questions = {q.id: q for q in load(Question, evaluated.questions)}
    rows = [
        r for r in load(Prediction, evaluated.predictions("base")) if r.with_tools and r.benchmark == "mini-musique"
    ]
    groups: dict[int, list[bool]] = {}
    for row in rows:
        groups.setdefault(questions[row.question_id].hops, []).append(row.correct)
    assert set(groups) == {3, 4}
    metrics = load_json(evaluated.metrics("evaluate-base"))
    means = {hops: sum(right) / len(right) for hops, right in groups.items()}
    assert {h: metrics[f"mini-musique.hops_{h}.accuracy"] for h in groups} == means
    assert metrics["mini-musique.mean_of_hops.accuracy"] == pytest.approx((means[3] + means[4]) / 2)
    assert "mini-hotpotqa.mean_of_hops.accuracy" not in metrics  # two hops all of them
