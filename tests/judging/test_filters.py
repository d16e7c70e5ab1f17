"""The four filters over one hand-made table of verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swirl.core import parquet
from swirl.core.records import load, save
from swirl.core.row_groups import save_tables
from swirl.core.types import OUTCOME, Action, Step, Stop, Strategy, SubTrajectory, Trajectory, Verdict
from swirl.judging import filters
from swirl.judging.filters import Judged, join, keep, sub_trajectories


def attempt(name: str, stop: Stop = Stop.ANSWERED, steps: int = 2) -> Trajectory:
    """Prompt tokens 1, 2; step k: action 10k+10, 10k+11, observation 10k+12, 10k+13 (none after the last step)."""
    made = tuple(
        Step(
            k,
            Action("answer" if k == steps - 1 and stop is Stop.ANSWERED else "search", "", "x"),
            (),
            (10 * k + 10, 10 * k + 11),
            (-0.5, -0.5),
            () if k == steps - 1 else (10 * k + 12, 10 * k + 13),
        )
        for k in range(steps)
    )
    return Trajectory(name, f"q-{name}", "mini-hotpotqa", 0, "base", 0, (1, 2), made, stop, "")


def verdicts(name: str, *good: bool | None, outcome: bool | None) -> list[Verdict]:
    """One verdict per step and one on the outcome; the score is 0.75 if good, 0.25 if bad, else None."""
    scores = {True: 0.75, False: 0.25, None: None}
    table = [*enumerate(good), (OUTCOME, outcome)]
    return [Verdict(name, step, word, scores[word], "", "judge") for step, word in table]


TRAJECTORIES = [
    attempt("all-good"),
    attempt("wrong-answer"),
    attempt("one-bad"),
    attempt("null-step"),
    attempt("null-outcome"),
    attempt("unanswered", Stop.STEP_LIMIT),
    attempt("step-not-judged"),
]
VERDICTS = [
    *verdicts("all-good", True, True, outcome=True),
    *verdicts("wrong-answer", True, True, outcome=False),
    *verdicts("one-bad", False, True, outcome=True),
    *verdicts("null-step", True, None, outcome=True),
    *verdicts("null-outcome", True, True, outcome=None),
    # Even a judge that calls everything good does not make an unanswered trajectory pass.
    *verdicts("unanswered", True, True, outcome=True),
    *verdicts("step-not-judged", True, outcome=True),
]


def judged(folder: Path, trajectories: list[Trajectory], table: list[Verdict]) -> Judged:
    """What the filters make of these, with the trajectories in `folder`/t.parquet."""
    save(trajectories, Trajectory, folder / "t.parquet")
    save(table, Verdict, folder / "v.parquet")
    return join(folder / "t.parquet", folder / "v.parquet")


def kept(folder: Path, strategy: Strategy, most: int = 0, seed: int = 0) -> list[str]:
    places = keep(judged(folder, TRAJECTORIES, VERDICTS), strategy, most, 0, seed)
    return [TRAJECTORIES[place].id for place in places]


def states(folder: Path, trajectories: list[Trajectory], table: list[Verdict]) -> list[SubTrajectory]:
    """All sub-trajectories, written and read."""
    all_of_them = judged(folder, trajectories, table)
    made = sub_trajectories(folder / "t.parquet", all_of_them, np.arange(len(all_of_them.rows)))
    save_tables(made, SubTrajectory, folder / "s.parquet")
    return load(SubTrajectory, folder / "s.parquet")


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (Strategy.NONE, [trajectory.id for trajectory in TRAJECTORIES]),
        (Strategy.PROCESS, ["all-good", "wrong-answer", "null-outcome"]),
        (Strategy.OUTCOME, ["all-good", "one-bad", "null-step", "step-not-judged"]),
        (Strategy.BOTH, ["all-good"]),
    ],
)
def test_what_each_strategy_keeps(strategy: Strategy, names: list[str], tmp_path: Path) -> None:
    assert kept(tmp_path, strategy) == names


def test_max_trajectories_makes_arms_equal_and_repeatable(tmp_path: Path) -> None:
    arms = [kept(tmp_path, strategy, 3, 5) for strategy in (Strategy.NONE, Strategy.PROCESS, Strategy.OUTCOME)]
    assert [len(arm) for arm in arms] == [3, 3, 3]
    assert arms[0] == kept(tmp_path, Strategy.NONE, most=3, seed=5)
    order = [trajectory.id for trajectory in TRAJECTORIES]
    assert sorted(arms[0], key=order.index) == arms[0]
    assert len({tuple(kept(tmp_path, Strategy.NONE, most=3, seed=seed)) for seed in range(10)}) > 1
    assert kept(tmp_path, Strategy.BOTH, most=3) == ["all-good"]


def test_what_is_drawn_of_a_benchmark_does_not_depend_on_the_others(tmp_path: Path) -> None:
    many = [replace(attempt(f"a{i}"), benchmark="hotpotqa") for i in range(20)]
    others = [replace(attempt(f"b{i}"), benchmark="aime") for i in range(9)]
    alone, beside = (judged(tmp_path, [*many, *more], []) for more in ([], others))
    first = keep(alone, Strategy.NONE, 0, 4, 0).tolist()
    assert first == [place for place in keep(beside, Strategy.NONE, 0, 4, 0).tolist() if place < 20]


def test_no_benchmark_keeps_more_than_max_per_benchmark(tmp_path: Path) -> None:
    many = [replace(attempt(f"a{i}"), benchmark="gsm8k") for i in range(6)]
    few = [replace(attempt(f"b{i}"), benchmark="hotpotqa") for i in range(2)]
    table = judged(tmp_path, [*many[:3], *few, *many[3:]], [])
    drawn = {
        tuple(int(place) for place in keep(table, Strategy.NONE, most, 3, seed))
        for seed in range(20)
        for most in (0, 4)
    }
    assert {len(places) for places in drawn} == {4, 5}
    assert all(list(places) == sorted(places) for places in drawn)
    assert all(sum(place in (3, 4) for place in places) == 2 for places in drawn if len(places) == 5)
    assert {place for places in drawn for place in places} == set(range(8))


def test_a_trajectory_without_steps_is_left_out(tmp_path: Path) -> None:
    empty = attempt("empty", Stop.CONTEXT_FULL, steps=0)
    assert judged(tmp_path, [empty], []).rows.tolist() == []
    assert judged(tmp_path, [empty, attempt("t"), empty], verdicts("empty", True, outcome=True)).rows.tolist() == [1]


def test_verdicts_on_what_there_is_not_change_nothing(tmp_path: Path) -> None:
    """Their rows come between the others, in any order."""
    other = [*verdicts("elsewhere", True, True, outcome=True), Verdict("t", 2, True, 1.0, "", "judge")]
    table = verdicts("t", True, False, outcome=True)
    mixed = [other[0], *table[::-1], *other[1:]]
    alone, beside = (states(tmp_path, [attempt("t")], some) for some in (table, mixed))
    assert alone == beside and [state.score for state in alone] == [0.75, 0.25]
    found = judged(tmp_path, [attempt("t")], mixed)
    assert (found.good.tolist(), found.right.tolist()) == ([False], [True])


def test_sub_trajectories_are_exact_prefixes_and_their_actions(tmp_path: Path) -> None:
    table = [
        Verdict("t", 0, True, 0.75, "", "judge"),
        Verdict("t", 1, None, None, "", "judge"),
        Verdict("t", OUTCOME, True, 1.0, "", "judge"),
    ]
    assert states(tmp_path, [attempt("t", steps=3)], table) == [
        SubTrajectory("t", "q-t", "mini-hotpotqa", 0, (1, 2), (10, 11), 0.75),
        SubTrajectory("t", "q-t", "mini-hotpotqa", 1, (1, 2, 10, 11, 12, 13), (20, 21), None),
        SubTrajectory("t", "q-t", "mini-hotpotqa", 2, (1, 2, 10, 11, 12, 13, 20, 21, 22, 23), (30, 31), None),
    ]


@pytest.mark.parametrize(("rows", "tokens"), [(1, 2**28), (3, 2**28), (7, 2**28), (7, 50), (1000, 1)])
def test_the_bytes_are_those_of_the_records_whatever_the_row_groups_and_tables(
    rows: int, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13 trajectories of 0 to 4 steps, which lie across row groups in other ways than their states do."""
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", rows)
    every = [attempt(f"t{n}", steps=n % 5, stop=Stop.ANSWERED if n % 5 else Stop.CONTEXT_FULL) for n in range(13)]
    table = [one for t in every for one in verdicts(t.id, *[True, False, None, True][: len(t.steps)], outcome=None)]
    scores = {(one.trajectory_id, one.step): one.score for one in table}
    expected = [
        SubTrajectory(t.id, t.question_id, t.benchmark, k, t.state_ids(k), step.token_ids, scores[t.id, k])
        for t in every
        for k, step in enumerate(t.steps)
    ]
    monkeypatch.setattr(filters, "TOKENS", tokens)
    assert states(tmp_path, every, table) == expected
    save(expected, SubTrajectory, tmp_path / "expected.parquet")
    assert (tmp_path / "s.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_a_table_ends_where_its_states_have_many_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row group; a trajectory of 3 steps has 2 + 6 + 10 tokens of states, and is counted as 3 times 12."""
    monkeypatch.setattr(filters, "TOKENS", 80)
    table = judged(tmp_path, [attempt(f"t{n}", steps=3) for n in range(5)], [])
    made = list(sub_trajectories(tmp_path / "t.parquet", table, np.arange(5)))
    assert [len(one) for one in made] == [6, 6, 3]
    assert [one["trajectory_id"].to_pylist()[0] for one in made] == ["t0", "t2", "t4"]
