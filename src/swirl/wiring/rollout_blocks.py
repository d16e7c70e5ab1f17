"""Rollouts in a journal's blocks, made by whichever engine params.yaml asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
from swirl.wiring.attempts import attempt_at, blocks, refuse_failures, sampling
from swirl.wiring.policies import load_policy, roll_out_any
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
        self._policy = load_policy(params, layout.model(recipe.model), recipe.model, recipe.server)

    def make(self, piece: RolloutBlock, done: Done) -> Made[Trajectory]:
        """Roll out a block's attempts."""
        params, prompts = self._recipe.params, self._recipe.prompts
        tools_of = self._toolbox.tools if piece.with_tools else None
        with self._lock:  # a tool is opened once, though several blocks are made at the same time
            todo = [attempt_at(params, prompts, *one, tools_of) for one in piece.samples]
        loop, drawn = params.rollout, sampling(params, self._recipe.temperature)
        return Made(roll_out_any(self._policy, todo, drawn, piece.seed, loop.max_malformed, loop.in_flight, done))

    def usage(self) -> dict[str, Counts]:
        """See `swirl.execution.blocks.Maker`."""
        return servers.usage()


def roll_out_in_blocks(
    recipe: Rollouts, questions: Iterable[Question], samples: int, seed: int, journal: Journal, label: str
) -> list[list[Trajectory]]:
    """Roll out `samples` attempts at each question, in blocks of `rollout.block_size`, under a progress bar.

    Returns the blocks, in order. Raises `DataError` as `check_rollouts` does.
    """
    params = recipe.params
    asked = [(question, sample) for question in questions for sample in range(samples)]
    pieces = [RolloutBlock(part, seed) for part in blocks(asked, params.rollout.block_size)]
    made: list[list[Trajectory]] = []
    with opened(params.execution, recipe) as engine, Progress(len(asked), label) as bar:
        for block in engine.blocks(journal, pieces, bar.update):
            made.append(block.records)
            answered = sum(trajectory.stop is Stop.ANSWERED for trajectory in block.records)
            bar.update(0, answered=answered / max(1, len(block.records)))
    check_rollouts(made, params, journal)
    return made


def roll_out_shares(
    engine: Engine[RolloutBlock, Trajectory],
    params: Params,
    asked: Sequence[tuple[Question, int]],
    size: int | None,
    seed: int,
    with_tools: bool,
    journal: Journal,
    done: Done,
) -> list[Trajectory]:
    """Roll out as `wiring.attempts.roll_out_all` does, with the same worker shares; a block is a share or a part.

    A part has at most `size` attempts. Trajectories come in the order of `asked`. Raises as `check_rollouts`
    does.
    """
    workers = params.runtime.workers
    shares = [asked[first::workers] for first in range(workers)]
    parts = [part for share in shares for part in blocks(share, size or max(1, len(share)))]
    pieces = [RolloutBlock(part, seed, with_tools) for part in parts]
    made = [block.records for block in engine.blocks(journal, pieces, done)]
    check_rollouts(made, params, journal)
    by_id = {trajectory.id: trajectory for block in made for trajectory in block}
    return [by_id[f"{question.id}/{sample}"] for question, sample in asked]


def check_rollouts(blocks: Sequence[Sequence[Trajectory]], params: Params, journal: Journal) -> None:
    """Raise `DataError` if more trajectories failed than the gate permits; `journal` then drops the blocks with any."""
    try:
        refuse_failures(
            [trajectory for block in blocks for trajectory in block],
            params,
            "; nothing is written, and the next run makes only the blocks that hold those again",
        )
    except DataError:
        journal.drop(number for number, block in enumerate(blocks) if any(trajectory.error for trajectory in block))
        raise
