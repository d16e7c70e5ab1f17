"""The paper's four filters over one table of verdicts: they decide which trajectories are trained on.

The decisions are made from columns; the trajectories' tokens are read again, by row group, for those that are kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from swirl.core.record_schemas import SCHEMAS
from swirl.core.records import read_table
from swirl.core.row_groups import tables
from swirl.core.seeds import generator
from swirl.core.types import OUTCOME, Stop, Strategy, SubTrajectory, Trajectory, Verdict

TOKENS = 2**28
"""Tokens of states beyond which a table ends with the trajectory that it has come to; Arrow's lists hold 2^31."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All trajectories of a file that have steps, by what their verdicts say; arrays over them, in order."""

    rows: np.ndarray
    """Their numbers in the file."""
    benchmarks: np.ndarray
    answered: np.ndarray
    starts: np.ndarray
    """Where each one's steps begin in `scores`, and the end of the last one's; one more than there are trajectories."""
    good: np.ndarray
    """Whether every step is judged GOOD."""
    right: np.ndarray
    """Whether the outcome is judged GOOD."""
    graded: np.ndarray
    """Whether the outcome is judged at all: not without a golden label."""
    scores: pa.Array
    """The judge's score of each step; null where it gave none."""

    def passes(self, strategy: Strategy) -> np.ndarray:
        """Which of them `strategy` keeps. A null verdict passes no filter that needs it."""
        passed = np.ones(len(self.rows), dtype=bool)
        if strategy in (Strategy.PROCESS, Strategy.BOTH):
            passed &= self.answered & self.good
        if strategy in (Strategy.OUTCOME, Strategy.BOTH):
            passed &= self.answered & self.right
        return passed


def join(trajectories: Path, verdicts: Path) -> Judged:
    """The trajectories of a file with the verdicts of another, read as columns.

    A trajectory's steps are numbered from 0, as the gate after synthesis requires. Raises `DataError` for a file that
    cannot be used.
    """
    heads = _heads(trajectories)
    rows = np.flatnonzero(heads["steps"].to_numpy() > 0)
    heads = heads.take(rows)
    counts = heads["steps"].to_numpy()
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    given = read_table(Verdict, verdicts, ["trajectory_id", "step", "good", "score"])
    owners = pc.index_in(given["trajectory_id"], heads["id"].combine_chunks())
    given, owner = given.filter(owners.is_valid()), owners.drop_null().to_numpy()
    step, said = given["step"].to_numpy(), pc.fill_null(given["good"], False).to_numpy()
    about = (step >= 0) & (step < counts[owner])
    place = starts[owner[about]] + step[about]
    good, source = np.zeros(starts[-1], dtype=bool), np.full(starts[-1], -1)
    good[place], source[place] = said[about], np.flatnonzero(about)
    right, graded = np.zeros(len(heads), dtype=bool), np.zeros(len(heads), dtype=bool)
    right[owner[step == OUTCOME]], graded[owner[step == OUTCOME]] = said[step == OUTCOME], True
    return Judged(
        rows,
        heads["benchmark"].to_numpy(),
        pc.equal(heads["stop"], Stop.ANSWERED.value).to_numpy(),
        starts,
        np.logical_and.reduceat(good, starts[:-1]) if len(heads) else right,
        right,
        graded,
        given["score"].combine_chunks().take(pa.array(source, mask=source < 0)),
    )


def _heads(path: Path) -> pa.Table:
    """Id, benchmark, stop and number of steps of each trajectory in a file."""
    schema = pa.schema([("id", pa.string()), ("benchmark", pa.string()), ("stop", pa.string()), ("steps", pa.int32())])
    groups = tables(Trajectory, path, schema.names)
    return pa.concat_tables(
        [
            schema.empty_table(),
            *(group.set_column(3, "steps", pc.list_value_length(group["steps"])) for group in groups),
        ]
    )


def keep(judged: Judged, strategy: Strategy, most: int, of_each: int, seed: int) -> np.ndarray:
    """The places in `judged` that `strategy` keeps, in order.

    Of more than `of_each` of a benchmark a random sample, and of more than `most` in all one of those (0: no limit).
    What `of_each` draws of a benchmark does not depend on the others.
    """
    passed = np.flatnonzero(judged.passes(strategy))
    if of_each:
        names = judged.benchmarks[passed]
        found = sorted(set(names.tolist()))
        parts = [_sample(passed[names == name], of_each, generator(seed, "filter", name)) for name in found]
        passed = np.sort(np.concatenate([passed[:0], *parts]))
    return _sample(passed, most, generator(seed, "filter"))


def _sample(places: np.ndarray, most: int, rng: random.Random) -> np.ndarray:
    """At most `most` of the places (0: no limit), in order."""
    if not most or len(places) <= most:
        return places
    return places[sorted(rng.sample(range(len(places)), most))]


def sub_trajectories(trajectories: Path, judged: Judged, kept: np.ndarray) -> Iterator[pa.Table]:
    """The sub-trajectories of the kept trajectories: K pairs (state, action) for K actions (paper, section 3.1).

    They are columns of `SubTrajectory`, a table for each row group of trajectories, or several where their states are
    long. `kept` are places in `judged`, in order. Raises `DataError` for a file that cannot be used.
    """
    first = 0
    for group in tables(Trajectory, trajectories, ["id", "question_id", "benchmark", "prompt_ids", "steps"]):
        begin, end = np.searchsorted(judged.rows[kept], [first, first + len(group)])
        here = kept[begin:end]
        if len(here):
            whole = group.take(judged.rows[here] - first)
            ends = [*np.flatnonzero(np.diff(np.cumsum(_most_tokens(whole)) // TOKENS)) + 1, len(here)]
            for start, stop in pairwise([0, *ends]):
                of_steps = (slice(*judged.starts[i : i + 2]) for i in here[start:stop])
                yield _cut(whole.slice(start, stop - start), pa.concat_arrays([judged.scores[one] for one in of_steps]))
        first += len(group)


def _most_tokens(whole: pa.Table) -> np.ndarray:
    """Of each trajectory, as many tokens as all its states have together, or more."""
    lists, prompts = whole["steps"].combine_chunks(), whole["prompt_ids"].combine_chunks()
    parents, steps = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    parts = (pc.struct_field(steps, name) for name in ("token_ids", "observation_ids", "rewritten_ids"))
    longest: np.ndarray = prompts.value_lengths().to_numpy().astype(np.int64)
    for part in parts:
        np.add.at(longest, parents, part.value_lengths().to_numpy())
    longest *= lists.value_lengths().to_numpy()
    return longest


def _cut(whole: pa.Table, scores: pa.Array) -> pa.Table:
    """Whole trajectories, and the scores of all their steps, as sub-trajectories."""
    lists = whole["steps"].combine_chunks()
    parents, steps = pc.list_parent_indices(lists), pc.list_flatten(lists)
    actions, observations = pc.struct_field(steps, "token_ids"), pc.struct_field(steps, "observation_ids")
    rewritten = pc.struct_field(steps, "rewritten_ids")
    states = _states(whole["prompt_ids"].combine_chunks(), parents.to_numpy(), actions, observations, rewritten)
    pieces = _pieces(parents.to_numpy(), rewritten)
    columns = [*whole.select(["id", "question_id", "benchmark"]).take(parents).columns]
    columns += [pc.struct_field(steps, "index"), states, actions, scores, pieces]
    schema = SCHEMAS[SubTrajectory]
    return pa.Table.from_arrays(columns, schema.names).cast(schema)


def _states(
    prompts: pa.Array, parents: np.ndarray, actions: pa.Array, observations: pa.Array, rewritten: pa.Array
) -> pa.Array:
    """The state of each step: its trajectory's prompt, and all actions and observations before it.

    Where the state was rewritten, it is as it was rewritten, and later ones go on from it.
    """
    made, before = list[np.ndarray](), -1
    of_step = (parents, *map(_parts, (actions, observations, rewritten)))
    for parent, action, observation, anew in zip(*of_step, strict=True):
        if parent != before:
            trunk, before = [prompts[int(parent)].values.to_numpy()], parent
        if len(anew):
            trunk = [anew]
        made.append(np.concatenate(trunk))
        trunk += [action, observation]
    offsets = np.cumsum([0, *map(len, made)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(made), pa.int32()))


def _pieces(parents: np.ndarray, rewritten: pa.Array) -> pa.Array:
    """The number of each step's piece in its trajectory."""
    begun = np.cumsum(rewritten.value_lengths().to_numpy() > 0)
    first = np.r_[True, parents[1:] != parents[:-1]] if len(parents) else np.zeros(0, dtype=bool)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(parents)), 0))
    return pa.array(begun - begun[starts], pa.int32())


def _parts(lists: pa.Array) -> list[np.ndarray]:
    """Each list of numbers as an array, without a copy."""
    return np.split(lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy())[:-1])
