"""The gate before training: verdicts that are fit to filter by, and states with exactly their trajectories' tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from swirl.core.layout import Layout
from swirl.core.row_groups import RowGroups
from swirl.core.types import OUTCOME, Question, SubTrajectory, Trajectory, Verdict
from swirl.quality import expect
from swirl.quality.tables import (
    data_columns,
    gathered,
    only,
    presence,
    read,
    read_groups,
    read_trajectories,
    training_problem,
    trajectory_frames,
)
from swirl.quality.validation import Report, Table, examine

_KEY = ("row", "trajectory_id", "step")
_OF_TRAJECTORIES = ("id", "question_id", "benchmark", "prompt_ids", "steps")
_KEPT = (*_KEY, "benchmark", "score", "question_id_problem", "state_ids_problem", "action_ids_problem")
_JUDGED = (*_KEY, "score", "good_step", "step_problem", "good_problem")
"""The columns of kept steps and of verdicts that are looked at in all row groups together."""

Trunk = tuple[np.ndarray, list[int], list[int], list[int]]
"""A trajectory's trunk (all its tokens, (tokens,)), and of each step where its state starts in it, and its action
starts and ends. A state that was rewritten starts a new stretch of the trunk."""


def check(
    layout: Layout, *, max_null_rate: float, min_good_share: float, max_good_share: float, min_rows: int
) -> Report:
    """Validate the kept steps and all verdicts against the trajectories that they are about, by row group.

    At most `max_null_rate` of the scores are null; the share of good verdicts on steps, before any filter, lies in
    [`min_good_share`, `max_good_share`]; at least `min_rows` steps are kept. Raises `DataError` for a file that cannot
    be read.
    """
    questions = read(Question, layout.questions)
    (steps,) = gathered(read_groups(SubTrajectory, layout.steps), presence(*_KEY))
    (verdicts,) = gathered(read_groups(Verdict, layout.verdicts), presence(*_KEY))
    groups = read_trajectories(layout.trajectories, _OF_TRAJECTORIES)
    heads, tokens = gathered((group[:2] for group in groups), _head, presence("row", "trajectory_id"))
    complete = [
        Table("steps", steps, _KEY, expect.present(data_columns(steps, "score"))),
        Table("verdicts", verdicts, _KEY, expect.present(data_columns(verdicts, "good", "score"))),
        Table("trajectories", heads, ("row", "id"), expect.present(_OF_TRAJECTORIES)),
        Table("tokens", tokens, ("row", "trajectory_id"), expect.present(["token_ids", "observation_ids"])),
        Table("questions", questions, ("row", "id"), expect.present(["id", "split"])),
    ]

    def derive() -> tuple[list[Table], dict[str, float]]:
        trunks = _Trunks(layout.trajectories, heads)
        splits = dict(zip(questions["id"], questions["split"], strict=True))
        lengths = dict(zip(heads["id"], heads["steps"], strict=True))
        examined = ((_with_problems(group, trunks, splits),) for (group,) in read_groups(SubTrajectory, layout.steps))
        (kept,) = gathered(examined, only(_KEPT))
        about = ((_with_verdict_problems(group, lengths),) for (group,) in read_groups(Verdict, layout.verdicts))
        (judged,) = gathered(about, only(_JUDGED))
        mix = _mix(kept, heads)
        good = f"between {min_good_share:.1%} and {max_good_share:.1%} of the judged steps are good"
        balance = expect.mean_between("good_step", min_good_share, max_good_share, good)
        tables = [
            Table("steps", kept, _KEY, _on_steps(min_rows, max_null_rate)),
            Table("verdicts", judged, _KEY, [*_on_verdicts(max_null_rate), balance]),
            Table("mix", mix, ("benchmark",), [expect.between("rows", 1, None, "every benchmark keeps steps")]),
        ]
        return tables, _statistics(kept, judged, mix)

    return examine("steps", complete, derive)


def _head(trajectories: pd.DataFrame) -> pd.DataFrame:
    """The trajectories without their tokens."""
    return presence(*(name for name in trajectories.columns if name != "prompt_ids"))(trajectories)


def _scores(max_null_rate: float) -> list[expect.Expectation]:
    return [
        expect.between("score", 0, 1, "a score lies in [0, 1]"),
        expect.mostly_present("score", max_null_rate, f"at most {max_null_rate:.1%} of the scores are null"),
    ]


def _on_steps(min_rows: int, max_null_rate: float) -> list[expect.Expectation]:
    return [
        expect.at_least(min_rows, f"there are at least {min_rows} steps to train on"),
        expect.unique(["trajectory_id", "step"], "no step is kept twice"),
        expect.no_problem("question_id_problem", "every step is of its trajectory's question, from the train split"),
        expect.no_problem("state_ids_problem", "a state has exactly its trajectory's tokens up to the step"),
        expect.no_problem("action_ids_problem", "an action has exactly its trajectory's tokens of the step"),
        *_scores(max_null_rate),
    ]


def _on_verdicts(max_null_rate: float) -> list[expect.Expectation]:
    return [
        expect.at_least(1, "there are verdicts"),
        expect.unique(["trajectory_id", "step"], "no step and no outcome is judged twice"),
        expect.no_problem("step_problem", "every verdict is about a step, or the outcome, of a trajectory"),
        expect.no_problem("good_problem", "a verdict and its score are given or missing together"),
        *_scores(max_null_rate),
    ]


class _Trunks:
    """The trunks of all trajectories of a file, of which those of a few row groups are in memory."""

    def __init__(self, path: Path, heads: pd.DataFrame) -> None:
        self.asked = dict(zip(heads["id"], heads["question_id"], strict=True))
        """The question of each trajectory, by id."""
        self._rows = dict(zip(heads["id"], heads["row"], strict=True))
        self._groups = RowGroups(Trajectory, path, _trunks, _OF_TRAJECTORIES)

    def of(self, trajectory: str) -> Trunk:
        """The trajectory's trunk; one without steps if there is no such trajectory."""
        if trajectory not in self._rows:
            return np.empty(0, dtype=np.int32), [], [], []
        number, place = self._groups.place(self._rows[trajectory])
        return self._groups[number][place]


def _trunks(table: pa.Table) -> list[Trunk]:
    trajectories, steps, _ = trajectory_frames(table)
    parts: list[list[np.ndarray]] = [[prompt] for prompt in trajectories["prompt_ids"]]
    begins: list[list[int]] = [[] for _ in parts]
    places: list[tuple[list[int], list[int]]] = [([], []) for _ in parts]
    sizes = [len(prompt) for prompt in trajectories["prompt_ids"]]
    columns = (steps[name] for name in ("row", "token_ids", "observation_ids", "rewritten_ids"))
    for row, action, observation, rewritten in zip(*columns, strict=True):
        begins[row].append(sizes[row] if len(rewritten) else begins[row][-1] if begins[row] else 0)
        start = sizes[row] + len(rewritten)
        places[row][0].append(start)
        places[row][1].append(start + len(action))
        parts[row] += [rewritten, action, observation]
        sizes[row] = start + len(action) + len(observation)
    return [(np.concatenate(one), first, *both) for one, first, both in zip(parts, begins, places, strict=True)]


def _with_problems(steps: pd.DataFrame, trunks: _Trunks, splits: Mapping[str, str]) -> pd.DataFrame:
    """The kept steps with helper columns that say what is wrong with each."""
    problems: dict[str, list[str | None]] = {
        "question_id_problem": [],
        "state_ids_problem": [],
        "action_ids_problem": [],
    }
    columns = ("trajectory_id", "question_id", "step", "state_ids", "action_ids")
    for trajectory, question, step, state, action in zip(*(steps[name] for name in columns), strict=True):
        expected = trunks.asked.get(trajectory, question)
        other = None if question == expected else f"{question}, but its trajectory tries {expected}"
        problems["question_id_problem"].append(other or training_problem(question, splits))
        trunk, begins, starts, ends = trunks.of(trajectory)
        if 0 <= step < len(starts):
            start, end = starts[step], ends[step]
            problems["state_ids_problem"].append(_difference(state, trunk[begins[step] : start]))
            problems["action_ids_problem"].append(_difference(action, trunk[start:end]))
        else:
            problems["state_ids_problem"].append(f"trajectory {trajectory} has no {_numbered(step)}")
            problems["action_ids_problem"].append(None)
    return steps.assign(**{name: pd.Series(values, dtype=object) for name, values in problems.items()})


def _difference(stored: np.ndarray, expected: np.ndarray) -> str | None:
    if len(stored) != len(expected):
        return f"{len(stored)} tokens, the trajectory has {len(expected)}"
    differs = stored != expected
    if not differs.any():
        return None
    first = int(differs.argmax())
    return f"token {first} is {stored[first]}, the trajectory has {expected[first]}"


def _with_verdict_problems(verdicts: pd.DataFrame, lengths: Mapping[str, int]) -> pd.DataFrame:
    """The verdicts with helper columns that say what is wrong; `lengths` are numbers of steps by trajectory."""
    about = zip(verdicts["trajectory_id"], verdicts["step"], strict=True)
    half_given = verdicts["good"].isna() != verdicts["score"].isna()
    problems = {
        "step_problem": [_step_problem(trajectory, step, lengths.get(trajectory)) for trajectory, step in about],
        "good_problem": ["one of good and score is null" if half else None for half in half_given],
    }
    good_step = verdicts["good"].astype("boolean").astype("Float64").where(verdicts["step"] != OUTCOME)
    return verdicts.assign(good_step=good_step, **{k: pd.Series(v, dtype=object) for k, v in problems.items()})


def _step_problem(trajectory: str, step: int, steps: int | None) -> str | None:
    """What is wrong with the step of a verdict on a trajectory of `steps` steps; None: there is no such trajectory."""
    if steps is None:
        return f"there is no trajectory {trajectory}"
    return None if OUTCOME <= step < steps else f"{trajectory} has no {_numbered(step)}"


def _numbered(step: int) -> str:
    """A step as sentences count it, from 1; a number that no step has is shown as it stands in the file."""
    return f"step {step + 1}" if step >= 0 else f"step of the number {step}"


def _mix(steps: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Number of kept steps of each benchmark that has trajectories."""
    expected = sorted(set(trajectories["benchmark"]))
    rows = steps["benchmark"].value_counts().reindex(expected, fill_value=0)
    return pd.DataFrame({"benchmark": expected, "rows": rows.to_numpy()})


def _statistics(steps: pd.DataFrame, verdicts: pd.DataFrame, mix: pd.DataFrame) -> dict[str, float]:
    statistics = {f"steps/{name}": float(rows) for name, rows in zip(mix["benchmark"], mix["rows"], strict=True)}
    for what, frame in (("steps", steps), ("verdicts", verdicts)):
        if len(frame):
            statistics[f"null_rate/{what}"] = float(frame["score"].isna().mean())
    if verdicts["good_step"].notna().any():
        statistics["good_share"] = float(verdicts["good_step"].mean())
    return statistics
