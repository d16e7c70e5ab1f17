"""The agent loop of SWiRL: a model acts, a tool answers, until an answer or the step limit (paper, section 3.1).

Many trajectories are in flight on one model; every sampled token is kept exactly as it was sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swirl.actions import parse
from swirl.models.chat import Chat
from swirl.rollout.sampler import Conversations, Sampled, Sampling
from swirl.seeds import derive
from swirl.tools.base import Observation, Tool, call
from swirl.types import Action, ActionKind, Question, Step, Stop, Trajectory

MALFORMED_REPLY = "error: give one call or one answer"
"""The observation after an action that is neither one call nor one answer."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A local model ready to act."""

    name: str
    model: Any
    chat: Chat
    context: int
    """Longest conversation in tokens."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory to be made."""

    question: Question
    sample: int
    prompt: str
    tools: Mapping[str, Tool]
    """Tools by the kind of action that calls them; empty when the model must answer without."""
    max_steps: int


@dataclass(slots=True)
class _Flight:
    """A trajectory in the making."""

    attempt: Attempt
    prompt_ids: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    length: int = 0
    malformed_in_a_row: int = 0
    stop: Stop | None = None
    error: str = ""


def roll_out(
    policy: Policy, attempts: Sequence[Attempt], sampling: Sampling, seed: int, max_malformed: int
) -> list[Trajectory]:
    """Work through all attempts together and return their trajectories in the same order.

    Step k of sample m on question q draws from the seed derived from (`seed`, q, m, k) alone. A trajectory ends as
    MALFORMED after `max_malformed` malformed actions in a row (0: never), as CONTEXT_FULL when another action might not
    fit. All of a call's attempts share their batches, so make calls of a fixed size and bytes are repeatable.
    """
    flights = [_Flight(attempt, policy.chat.prompt(attempt.prompt)) for attempt in attempts]
    for flight in flights:
        flight.length = len(flight.prompt_ids)
        if flight.length + sampling.max_tokens > policy.context:
            flight.stop = Stop.CONTEXT_FULL
    active = [flight for flight in flights if flight.stop is None]
    if active:
        conversations = Conversations(policy.model, [flight.prompt_ids for flight in active])
        while active:
            seeds = [derive(seed, f.attempt.question.id, f.attempt.sample, len(f.steps)) for f in active]
            sampled = conversations.act(seeds, sampling, policy.chat.end_ids)
            unread = _advance(policy, active, sampled, sampling, max_malformed)
            keep = [index for index, flight in enumerate(active) if flight.stop is None]
            active = [active[index] for index in keep]
            if active:
                if len(keep) < len(unread):
                    conversations.select(keep)
                conversations.read([unread[index] for index in keep])
    return [_trajectory(policy, flight, seed) for flight in flights]


def _advance(
    policy: Policy, active: Sequence[_Flight], sampled: Sequence[Sampled], sampling: Sampling, max_malformed: int
) -> list[tuple[int, ...]]:
    """Record one action a flight and the environment's answer; returns the tokens each flight must read next."""
    chat = policy.chat
    actions = []
    for flight, drawn in zip(active, sampled, strict=True):
        tags = {tool.tag: kind for kind, tool in flight.attempt.tools.items()}
        actions.append(parse(chat.text(drawn.ids), tags))
    observations = _respond(active, actions)
    unread = []
    for flight, drawn, action, seen in zip(active, sampled, actions, observations, strict=True):
        closed = drawn.ids[-1] in chat.end_ids
        turn = chat.turn(seen.text, closed) if seen else ()
        malformed = action.kind == ActionKind.MALFORMED
        flight.malformed_in_a_row = flight.malformed_in_a_row + 1 if malformed else 0
        flight.length += len(drawn.ids) + len(turn)
        if action.kind == ActionKind.ANSWER:
            flight.stop = Stop.ANSWERED
        elif len(flight.steps) + 1 >= flight.attempt.max_steps:
            flight.stop = Stop.STEP_LIMIT
        elif malformed and flight.malformed_in_a_row == max_malformed:
            flight.stop = Stop.MALFORMED
        elif flight.length + sampling.max_tokens > policy.context:
            flight.stop = Stop.CONTEXT_FULL
        last = flight.stop is not None
        flight.steps.append(
            Step(
                index=len(flight.steps),
                action=action,
                observation=seen.text if seen else "",
                token_ids=drawn.ids,
                logprobs=drawn.logprobs,
                observation_ids=() if last else turn,
                tool_error=bool(seen and seen.error and not malformed),
            )
        )
        unread.append((drawn.ids[-1], *turn))
    return unread


def _respond(active: Sequence[_Flight], actions: Sequence[Action]) -> list[Observation | None]:
    """What each action is answered with; None after an answer."""
    replies: list[Observation | None] = []
    for flight, action in zip(active, actions, strict=True):
        if action.kind == ActionKind.ANSWER:
            replies.append(None)
        elif action.kind == ActionKind.MALFORMED:
            replies.append(Observation(MALFORMED_REPLY, True))
        else:
            result = call(flight.attempt.tools[action.kind], action.payload)
            replies.append(Observation(f"{action.payload} -> {result.text}", result.error))
    return replies


def _trajectory(policy: Policy, flight: _Flight, seed: int) -> Trajectory:
    question = flight.attempt.question
    assert flight.stop is not None
    return Trajectory(
        id=f"{question.id}/{flight.attempt.sample}",
        question_id=question.id,
        benchmark=question.benchmark,
        sample=flight.attempt.sample,
        model=policy.name,
        seed=derive(seed, question.id, flight.attempt.sample),
        prompt_ids=flight.prompt_ids,
        steps=tuple(flight.steps),
        stop=flight.stop,
        error=flight.error,
    )
