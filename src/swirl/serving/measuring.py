"""An agent's predictions on a file of rows, made as the stage `evaluate` makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swirl.core.seeds import derive
from swirl.core.types import Prediction, Trajectory
from swirl.evaluation.scoring import predict
from swirl.judging.rationale import RationaleJudge
from swirl.serving.agent import Agent
from swirl.serving.bundle import Placed
from swirl.wiring.attempts import attempts, refuse_failures, roll_out_all
from swirl.wiring.given_rows import GivenRows
from swirl.wiring.graders import graded


@dataclass(frozen=True, slots=True)
class Drawing:
    """How trajectories are drawn."""

    samples: int
    """Trajectories a question."""
    temperature: float
    """0: greedy."""
    seed: int


def measure(
    agent: Agent,
    name: str,
    rows: GivenRows,
    drawing: Drawing,
    grader: RationaleJudge | None,
    done: Callable[[int], None],
) -> tuple[list[Trajectory], list[Prediction]]:
    """The agent's trajectories with tools, and one prediction each, by the order of the questions; `name` is its own.

    `grader` compares the answers, None: as text or number. `done(1)` is called after each trajectory. Raises
    `DataError` when more trajectories failed at a server than the gate permits.
    """
    params, questions = agent.params, rows.questions(agent.params)
    index = rows.index(params, agent.layout.root)
    todo = attempts(params, Placed(agent.layout.root, {rows.benchmark: str(index)}), questions, drawing.samples)
    seed = derive(drawing.seed, "evaluate", str(True))
    made = roll_out_all(params, agent.policy, todo, drawing.temperature, seed, done)
    refuse_failures([trajectory.error for trajectory in made], params)
    table = {question.id: question for question in questions}
    outcomes = graded(grader, made, table) if grader else {}
    return made, predict(name, made, table, {}, [], True, outcomes)
