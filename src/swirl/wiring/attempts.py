"""From params and questions to attempts, and from attempts to trajectories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from swirl.comb.sampling import Sampling
from swirl.config.params import Params
from swirl.core.errors import DataError
from swirl.core.flights import Flight
from swirl.core.layout import Layout
from swirl.core.threads import spread
from swirl.core.types import LOGGED, Question, Trajectory
from swirl.models import room
from swirl.models.prompts import Prompts, fill
from swirl.rollout.engine import READ_AT_ONCE, Attempt, Calls
from swirl.rollout.remote import RemotePolicy
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
    asked = [(question, sample) for question in questions for sample in range(samples)]
    prompts = read_prompts(params, layout) if asked else None  # logged conversations alone need none
    return (
        []
        if prompts is None
        else [attempt_at(params, prompts, question, sample, tools_of) for question, sample in asked]
    )


def attempt_at(
    params: Params,
    prompts: Prompts,
    question: Question,
    sample: int,
    tools_of: Callable[[Question], Mapping[str, Tool]] | None,
) -> Attempt:
    """One attempt at a question, as `attempts_with` makes it."""
    if question.task == LOGGED:
        raise DataError(f"question {question.id} is of {question.benchmark}, which is logs: its tools do not run here")
    if question.task not in params.tasks:
        known = ", ".join(params.tasks)
        raise DataError(f"question {question.id} is of task {question.task!r}; params.yaml has tasks {known}")
    limit = params.tasks[question.task].max_steps if tools_of else 1
    template = prompts.tasks[question.task] if tools_of else prompts.closed_book
    tools = tools_of(question) if tools_of else {}
    prompt = fill(template, question.text, limit, listed(tools.values()))
    thoughts = tools_of is not None and params.actions.thought_only == "allow"
    return Attempt(question, sample, prompt, tools, limit, thoughts, prompts.system)


def roll_out_all(
    params: Params,
    policy: AnyPolicy,
    todo: Sequence[Attempt],
    temperature: float,
    seed: int,
    done: Callable[[int], None] = lambda count: None,
    flight: Flight | None = None,
) -> list[Trajectory]:
    """Roll out all attempts on `runtime.workers` threads; trajectories come in the order of `todo`.

    `done(1)` is called after each trajectory, from any of the threads. Without a `flight`, one is planned.
    """
    drawn, workers = sampling(params, temperature), params.runtime.workers
    flown = flight or flight_of(params, policy, -(-len(todo) // workers))
    shares = spread(
        lambda first: fly(flown, params, policy, todo[first::workers], drawn, seed, done), range(workers), workers
    )
    made = {trajectory.id: trajectory for share in shares for trajectory in share}
    return [made[f"{attempt.question.id}/{attempt.sample}"] for attempt in todo]


def flight_of(params: Params, policy: AnyPolicy, most: int, ahead: float = 0.0, at_once: int | None = None) -> Flight:
    """The flight of `rollout.in_flight` conversations a worker, smaller if the policy's device cannot hold as many.

    A worker has `most` conversations to begin with. `ahead` are bytes that something else will take on the device.
    There are `at_once` workers in this process, as many as `runtime.workers` unless that is given.
    """
    asked, run = params.rollout.in_flight, params.runtime
    if isinstance(policy, RemotePolicy):
        return Flight("rollout.in_flight", asked)
    return room.conversations(policy.model, asked, most, policy.context, at_once or run.workers, READ_AT_ONCE, ahead)


def fly(
    flight: Flight,
    params: Params,
    policy: AnyPolicy,
    part: Sequence[Attempt],
    drawn: Sampling,
    seed: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[Trajectory]:
    """Roll out `part` with as many in flight as `flight` says; once more with half as many if memory runs out.

    `done` is as in `roll_out_all`; trajectories that are lost with the memory are taken back by a negative number.
    """

    def rolled(size: int) -> list[Trajectory]:
        counted = 0

        def count(number: int) -> None:
            nonlocal counted
            counted += number
            done(number)

        try:
            return roll_out_any(
                policy, part, drawn, seed, params.rollout.max_malformed, size, tool_calls(params), count
            )
        except Exception:
            done(-counted)
            raise

    return flight.run(rolled)


def sampling(params: Params, temperature: float) -> Sampling:
    """The sampling settings of `params.rollout`, at this temperature."""
    loop = params.rollout
    return Sampling(temperature, loop.top_p, loop.top_k, loop.max_action_tokens)


def tool_calls(params: Params) -> Calls:
    """How tools are called in a rollout."""
    return Calls(params.tool_calls.in_flight, params.rollout.tool_passes)


def blocks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, in blocks of `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def refuse_failures(errors: Sequence[str], params: Params, what_now: str = "") -> None:
    """Raise `DataError` if more trajectories failed than the gate permits; `what_now` is part of its message.

    `errors` are the `error` of each trajectory, empty if it did not fail.
    """
    failed = [error for error in errors if error]
    limit = params.check_trajectories.max_failed_rate
    if len(failed) > limit * len(errors):
        raise DataError(
            f"{len(failed)} of {len(errors)} trajectories failed at the server, more than "
            f"check_trajectories.max_failed_rate {limit:.1%}{what_now}. The first: {failed[0]}"
        )
