"""From params and questions to attempts, and from attempts to trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from swirl.comb.sampling import Sampling
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.threads import spread
from swirl.core.types import Question, Trajectory
from swirl.models.prompts import Prompts, fill
from swirl.rollout.engine import Attempt
from swirl.tools.base import Tool, listed
from swirl.wiring.policies import AnyPolicy, roll_out_any
from swirl.wiring.prompts import read_prompts
from swirl.wiring.tools import Toolbox

Item = TypeVar("Item")


def attempts(
    params: Params, layout: Layout, questions: Iterable[Question], samples: int, with_tools: bool = True
) -> list[Attempt]:
    """`samples` attempts at each question, in order, with tools (if any) that use the stored indices."""
    return attempts_with(params, layout, questions, samples, Toolbox(params, layout).tools if with_tools else None)


def attempts_with(
    params: Params,
    layout: Layout,
    questions: Iterable[Question],
    samples: int,
    tools_of: Callable[[Question], Mapping[str, Tool]] | None,
) -> list[Attempt]:
    """`samples` attempts at each question; if `tools_of` is None, with the closed-book prompt and one action."""
    prompts = read_prompts(params, layout)
    asked = [(question, sample) for question in questions for sample in range(samples)]
    return [attempt_at(params, prompts, question, sample, tools_of) for question, sample in asked]


def attempt_at(
    params: Params,
    prompts: Prompts,
    question: Question,
    sample: int,
    tools_of: Callable[[Question], Mapping[str, Tool]] | None,
) -> Attempt:
    """One attempt at a question, as `attempts_with` makes it."""
    if question.task not in params.tasks:
        known = ", ".join(params.tasks)
        raise DataError(f"question {question.id} is of task {question.task!r}; params.yaml has tasks {known}")
    limit = params.tasks[question.task].max_steps if tools_of else 1
    template = prompts.tasks[question.task] if tools_of else prompts.closed_book
    tools = tools_of(question) if tools_of else {}
    prompt = fill(template, question.text, limit, listed(tools.values()))
    thoughts = tools_of is not None and params.actions.thought_only == "allow"
    return Attempt(question, sample, prompt, tools, limit, thoughts)


def roll_out_all(
    params: Params,
    policy: AnyPolicy,
    todo: Sequence[Attempt],
    temperature: float,
    seed: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[Trajectory]:
    """Roll out all attempts on `runtime.workers` threads; trajectories come in the order of `todo`.

    `done(1)` is called after each trajectory, from any of the threads.
    """
    loop, drawn, workers = params.rollout, sampling(params, temperature), params.runtime.workers
    shares = spread(
        lambda first: roll_out_any(policy, todo[first::workers], drawn, seed, loop.max_malformed, loop.in_flight, done),
        range(workers),
        workers,
    )
    made = {trajectory.id: trajectory for share in shares for trajectory in share}
    return [made[f"{attempt.question.id}/{attempt.sample}"] for attempt in todo]


def sampling(params: Params, temperature: float) -> Sampling:
    """The sampling settings of `params.rollout`, at this temperature."""
    loop = params.rollout
    return Sampling(temperature, loop.top_p, loop.top_k, loop.max_action_tokens)


def blocks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, in blocks of `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def refuse_failures(made: Sequence[Trajectory], params: Params, what_now: str = "") -> None:
    """Raise `DataError` if more trajectories failed than the gate permits; `what_now` is part of its message."""
    failed = [trajectory for trajectory in made if trajectory.error]
    limit = params.check_trajectories.max_failed_rate
    if len(failed) > limit * len(made):
        raise DataError(
            f"{len(failed)} of {len(made)} trajectories failed at the server, more than "
            f"check_trajectories.max_failed_rate {limit:.1%}{what_now}. The first: {failed[0].error}"
        )
