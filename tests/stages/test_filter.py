"""filter: the steps of one strategy, and the funnel of all four."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.config.params import Params, load
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.records import load as records
from swirl.core.records import load_json, save
from swirl.core.types import OUTCOME, Action, Step, Stop, SubTrajectory, Trajectory, Verdict
from swirl.stages import filter as stage

PARAMS = load(Path(__file__).parents[2] / "params.yaml")


def attempt(name: str, benchmark: str, stop: Stop = Stop.ANSWERED) -> Trajectory:
    steps = (
        Step(0, Action("search", "", "x"), (), (11, 12), (-0.5, -0.5), (13,)),
        Step(1, Action("answer" if stop is Stop.ANSWERED else "search", "", "x"), (), (14,), (-0.5,), ()),
    )
    return Trajectory(name, f"q-{name}", benchmark, 0, "base", 1, (1, 2, 3), steps, stop, "")


def verdicts(name: str, first: bool, second: bool, outcome: bool) -> list[Verdict]:
    table = ((0, first), (1, second), (OUTCOME, outcome))
    return [Verdict(name, step, good, 0.75 if good else 0.25, "", "reward") for step, good in table]


def params(strategy: str, most: int | list[str] = 0, of_each: int = 0) -> Params:
    changed = {"strategy": strategy, "max_trajectories": most, "max_per_benchmark": of_each}
    section = PARAMS.filter.model_copy(update=changed)
    return PARAMS.model_copy(update={"filter": section})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    trajectories = [
        attempt("both", "mini-hotpotqa"),
        attempt("process", "mini-hotpotqa"),
        attempt("outcome", "mini-gsm8k"),
        attempt("unanswered", "mini-gsm8k", Stop.STEP_LIMIT),
    ]
    table = [
        *verdicts("both", True, True, True),
        *verdicts("process", True, True, False),
        *verdicts("outcome", True, False, True),
        *verdicts("unanswered", True, True, False),
    ]
    save(trajectories, Trajectory, layout.trajectories)
    save(table, Verdict, layout.verdicts)
    return layout


def test_the_steps_of_the_strategy_are_written(layout: Layout) -> None:
    stage.run(params("both"), layout)
    assert records(SubTrajectory, layout.steps) == [
        SubTrajectory("both", "q-both", "mini-hotpotqa", 0, (1, 2, 3), (11, 12), 0.75),
        SubTrajectory("both", "q-both", "mini-hotpotqa", 1, (1, 2, 3, 11, 12, 13), (14,), 0.75),
    ]


def test_the_funnel_counts_all_four_whatever_is_chosen(layout: Layout) -> None:
    stage.run(params("process"), layout)
    report = load_json(layout.filters)
    process = {"trajectories": 2, "steps": 4, "correct": 0.5, "by_benchmark": {"mini-hotpotqa": 2}}
    assert report == {
        "strategy": "process",
        "trajectories": 4,
        "kept": process,
        "strategies": {
            "none": {
                "trajectories": 4,
                "steps": 8,
                "correct": 0.5,
                "by_benchmark": {"mini-gsm8k": 2, "mini-hotpotqa": 2},
            },
            "process": process,
            "outcome": {
                "trajectories": 2,
                "steps": 4,
                "correct": 1.0,
                "by_benchmark": {"mini-gsm8k": 1, "mini-hotpotqa": 1},
            },
            "both": {"trajectories": 1, "steps": 2, "correct": 1.0, "by_benchmark": {"mini-hotpotqa": 1}},
        },
    }
    metrics = load_json(layout.metrics("filter"))
    assert len(metrics) == 13
    assert (metrics["none.steps"], metrics["outcome.correct"], metrics["kept.trajectories"]) == (8, 1.0, 2)
    stage.run(params("none"), layout)
    assert load_json(layout.filters)["strategies"] == report["strategies"]


def test_max_trajectories_equalises_arms(layout: Layout) -> None:
    for strategy in ("none", "process", "outcome", "both"):
        stage.run(params(strategy, most=1), layout)
        assert load_json(layout.filters)["kept"]["trajectories"] == 1
        assert len(records(SubTrajectory, layout.steps)) == 2


@pytest.mark.parametrize(
    ("compared", "kept"),
    [
        (["none", "process", "outcome", "both"], {"none": 1, "process": 1, "outcome": 1, "both": 1}),
        (["none", "outcome"], {"none": 2, "outcome": 2}),
        (["none"], {"none": 4}),
        (["none", "process"], {"both": 1}),
    ],
)
def test_arms_are_as_large_as_the_smallest_of_those_compared(
    compared: list[str], kept: dict[str, int], layout: Layout
) -> None:
    for strategy, number in kept.items():
        stage.run(params(strategy, most=compared), layout)
        assert load_json(layout.filters)["kept"]["trajectories"] == number
        assert len(records(SubTrajectory, layout.steps)) == 2 * number


def test_arms_are_equal_where_each_benchmark_is_limited(layout: Layout) -> None:
    """Process keeps two of one benchmark, and none two of each."""
    for strategy in ("none", "process"):
        stage.run(params(strategy, most=["none", "process"], of_each=1), layout)
        assert load_json(layout.filters)["kept"]["trajectories"] == 1


def test_no_arm_can_be_as_large_as_one_that_keeps_nothing(layout: Layout) -> None:
    save([], Verdict, layout.verdicts)
    with pytest.raises(DataError, match=r"filter.max_trajectories = \['none', 'both'\]: both keeps none of the traj"):
        stage.run(params("none", most=["none", "both"]), layout)


def test_the_same_params_give_the_same_bytes(layout: Layout) -> None:
    stage.run(params("none", most=2), layout)
    first = layout.steps.read_bytes()
    stage.run(params("none", most=2), layout)
    assert layout.steps.read_bytes() == first


def test_a_strategy_that_keeps_nothing_writes_an_empty_table(layout: Layout) -> None:
    save([], Verdict, layout.verdicts)
    stage.run(params("both"), layout)
    assert records(SubTrajectory, layout.steps) == []
    assert load_json(layout.filters)["kept"] == {"trajectories": 0, "steps": 0, "correct": None, "by_benchmark": {}}
