"""Rollouts in a journal's blocks, made by whichever engine params.yaml asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swirl.config.params import Params
from swirl.config.served import Served
from swirl.core.errors import DataError
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.types import Question, Stop, Trajectory
from swirl.endpoints.requests import Counts
from swirl.execution.blocks import Done, Made, Sharing
from swirl.execution.engines import Engine, opened
from swirl.models.prompts import Prompts
from swirl.pipeline.progress import Progress
from swirl.wiring import servers
from swirl.wiring.attempts import attempt_at, blocks, flight_of, fly, refuse_failures, sampling
from swirl.wiring.policies import load_policy
from swirl.wiring.tools import Toolbox


@dataclass(frozen=True, slots=True)
class RolloutBlock:
    """Attempts that are rolled out together: a block."""

    samples: Sequence[tuple[Question, int]]
    """Each question, with the number of the sample."""
    seed: int
    with_tools: bool = True

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """How a model's rollouts are made anywhere: a recipe (`swirl.execution.blocks.Recipe`)."""

    params: Params
    layout: Layout
    prompts: Prompts
    """As they were when the stage began."""
    stage: str
    model: str
    """Name of the model in the layout, such as base."""
    server: Served | None
    """The server that has it, if params.yaml names one."""
    temperature: float
    most: int
    """Attempts of the largest block."""

    @property
    def record_type(self) -> type[Trajectory]:
        """Trajectories."""
        return Trajectory

    @property
    def at_once(self) -> int:
        """`runtime.workers`."""
        return self.params.runtime.workers

    @property
    def threads(self) -> int:
        """`runtime.threads`."""
        return self.params.runtime.threads

    @property
    def cpus(self) -> int:
        """`runtime.threads`: a block is rolled out on one thread."""
        return self.params.runtime.threads

    def open(self, sharing: Sharing | None) -> RollingOut:
        """Load the policy."""
        return RollingOut(self, sharing)

    def add_usage(self, usage: dict[str, Counts]) -> None:
        """See `swirl.execution.blocks.Recipe`."""
        servers.add_usage(usage)


class RollingOut:
    """A policy and its tools, which make the rollouts of one recipe."""

    def __init__(self, recipe: Rollouts, sharing: Sharing | None) -> None:
        servers.share_limits(sharing)
        params, layout = recipe.params, recipe.layout
        self._recipe, self._toolbox, self._lock = recipe, Toolbox(params, layout), threading.Lock()
        self._at_once = 1 if sharing else recipe.at_once  # a worker beside others makes one block at a time
        self._policy = load_policy(params, layout.model(recipe.model), recipe.model, recipe.server)

    def begin(self, flight: Path) -> None:
        """Plan a flight; go on with the one in the file `flight` if that was smaller."""
        self._flight = flight_of(self._recipe.params, self._policy, self._recipe.most, at_once=self._at_once)
        self._flight.resume(flight)

    def make(self, piece: RolloutBlock, done: Done) -> Made[Trajectory]:
        """Roll out a block's attempts."""
        params, prompts = self._recipe.params, self._recipe.prompts
        tools_of = self._toolbox.tools if piece.with_tools else None
        with self._lock:  # a tool is opened once, though several blocks are made at the same time
            todo = [attempt_at(params, prompts, *one, tools_of) for one in piece.samples]
        drawn = sampling(params, self._recipe.temperature)
        return Made(fly(self._flight, params, self._policy, todo, drawn, piece.seed, done))

    def usage(self) -> dict[str, Counts]:
        """See `swirl.execution.blocks.Maker`."""
        return servers.usage()


def roll_out_in_blocks(
    recipe: Rollouts, questions: Iterable[Question], samples: int, seed: int, journal: Journal, label: str
) -> int:
    """Roll out `samples` attempts at each question, in blocks of `recipe.most`, under a progress bar.

    The trajectories stay in the journal; returns the number of its blocks. Raises `DataError` as `check_rollouts` does.
    """
    params = recipe.params
    asked = [(question, sample) for question in questions for sample in range(samples)]
    pieces = [RolloutBlock(part, seed) for part in blocks(asked, recipe.most)]
    errors: list[list[str]] = []
    with opened(params.execution, recipe) as engine, Progress(len(asked), label) as bar:
        for number, _ in enumerate(engine.blocks(journal, pieces, bar.update, bar.already)):
            made = journal.columns(number, Trajectory, ["stop", "error"])
            errors.append(made["error"].to_pylist())
            bar.update(0, answered=made["stop"].to_pylist().count(Stop.ANSWERED) / max(1, len(made)))
    check_rollouts(errors, params, journal)
    return len(pieces)


def share_size(params: Params, asked: int, size: int | None) -> int:
    """Attempts of the largest block of a worker's share of `asked` attempts, in parts of at most `size`."""
    share = max(1, -(-asked // params.runtime.workers))
    return min(size or share, share)


def roll_out_shares(
    engine: Engine[RolloutBlock, Trajectory],
    params: Params,
    asked: Sequence[tuple[Question, int]],
    size: int | None,
    seed: int,
    with_tools: bool,
    journal: Journal,
    bar: Progress,
) -> list[Trajectory]:
    """Roll out as `wiring.attempts.roll_out_all` does, with the same worker shares; a block is a share or a part.

    A part has at most `size` attempts. Trajectories come in the order of `asked`. Raises as `check_rollouts`
    does.
    """
    workers = params.runtime.workers
    shares = [asked[first::workers] for first in range(workers)]
    parts = [part for share in shares for part in blocks(share, size or max(1, len(share)))]
    pieces = [RolloutBlock(part, seed, with_tools) for part in parts]
    numbers = [number for number, _ in enumerate(engine.blocks(journal, pieces, bar.update, bar.already))]
    made = [journal.records(number, Trajectory) for number in numbers]
    check_rollouts([[trajectory.error for trajectory in block] for block in made], params, journal)
    by_id = {trajectory.id: trajectory for block in made for trajectory in block}
    return [by_id[f"{question.id}/{sample}"] for question, sample in asked]


def check_rollouts(errors: Sequence[Sequence[str]], params: Params, journal: Journal) -> None:
    """Raise `DataError` if more trajectories failed than the gate permits; `journal` then drops the blocks with any.

    `errors` are the `error` of each trajectory, by block.
    """
    try:
        refuse_failures(
            [error for block in errors for error in block],
            params,
            "; nothing is written, and the next run makes only the blocks that hold those again",
        )
    except DataError:
        journal.drop(number for number, block in enumerate(errors) if any(block))
        raise
