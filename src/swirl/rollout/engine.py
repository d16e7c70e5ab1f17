"""The agent loop of SWiRL: a model acts and a tool responds, until an answer or the step limit (paper, section 3.1).

Many trajectories are in flight on one model; every sampled token is kept exactly as it was sampled.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from swirl.comb.sampling import Sampling, choose, uniforms
from swirl.comb.slots import Slots
from swirl.core.seeds import derive
from swirl.core.types import Action, ActionKind, Observation, Question, Step, Stop, Trajectory
from swirl.models.chat import Chat
from swirl.models.native_chat import AnyChat
from swirl.rollout.reading import AnyReader, reader_of, reply_to
from swirl.tools.base import Tool, call

READ_AT_ONCE = 16384
"""Maximum number of new tokens per forward pass, unless one conversation alone has more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A local model ready to act."""

    name: str
    model: Any
    chat: AnyChat
    context: int
    """Longest conversation in tokens."""

    @property
    def tagged(self) -> Chat:
        """The chat, whose format is tags. Raises `TypeError` for another."""
        if not isinstance(self.chat, Chat):
            raise TypeError("the policy acts in its own tool format, not in tags")
        return self.chat


@dataclass(frozen=True, slots=True)
class Calls:
    """How the tools are called in one rollout."""

    in_flight: int
    """At the same time, at most; no trajectory depends on it."""
    passes: int
    """Forward passes that the other conversations make before a result is read, at least one: after these they wait
    for it, however long it takes. Where no other has anything to read, a result is read as soon as it is there."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory to be made."""

    question: Question
    sample: int
    prompt: str
    tools: Mapping[str, Tool]
    """Tools by the kind of action that calls them; empty when the model must answer without tools."""
    max_steps: int
    thoughts: bool = False
    """Whether a thought without call or answer is a step of kind `think`, not malformed."""
    system: str = ""
    """The system turn, in the model's own tool format; empty for none."""


@dataclass(slots=True)
class _Flight:
    """A trajectory in progress."""

    number: int
    attempt: Attempt
    prompt_ids: tuple[int, ...]
    slot: int
    length: int
    reader: AnyReader
    unread: tuple[int, ...] = ()
    """Tokens that the model has not read yet; none while a tool is at work."""
    draws: Any = ()
    ids: list[int] = field(default_factory=list)
    """The action so far."""
    logprobs: list[float] = field(default_factory=list)
    complete: bool = False
    """Whether it is whole, so that it goes on by an end of turn at most."""
    left: tuple[int, ...] = ()
    """Tokens of the whole action that the model has not read."""
    action: Action | None = None
    """The action that waits for its observation."""
    replies: Sequence[Future[Observation]] = ()
    """One for each of its calls, in order, or one."""
    rejoins: int = 0
    """The tick at which the observation is read."""
    steps: list[Step] = field(default_factory=list)
    anew: tuple[int, ...] = ()
    """The state of the next step, if it was written anew."""
    faulty_in_a_row: int = 0
    stop: Stop | None = None


def roll_out(
    policy: Policy,
    attempts: Sequence[Attempt],
    sampling: Sampling,
    seed: int,
    max_malformed: int,
    in_flight: int,
    calls: Calls,
    done: Callable[[int], None] = lambda count: None,
) -> list[Trajectory]:
    """Work through all attempts, `in_flight` at a time, and return their trajectories in the same order.

    A trajectory that ends makes room for the next attempt; while a tool works for one, the others decode. Step k of
    sample m on question q draws from the seed derived from (`seed`, q, m, k) alone, and which conversations share a
    forward pass depends on token counts and `calls.passes`, never on how long a tool took, so the same call gives the
    same bytes. An
    action ends with its end of turn; after a whole call or answer, any other token that is drawn is dropped. A
    trajectory ends as MALFORMED after `max_malformed` malformed or cut actions in a row (0: never), and as CONTEXT_FULL
    when another action might not fit. `done(1)` is called after each trajectory.
    """
    tools = ThreadPoolExecutor(calls.in_flight)
    try:
        return _Engine(policy, sampling, seed, max_malformed, tools, calls.passes).run(attempts, in_flight, done)
    finally:
        tools.shutdown(wait=False, cancel_futures=True)  # who gives up waits for no tool


class _Engine:
    """One call of `roll_out`."""

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        seed: int,
        max_malformed: int,
        tools: ThreadPoolExecutor,
        tool_passes: int,
    ) -> None:
        self._policy, self._sampling, self._seed, self._max_malformed = policy, sampling, seed, max_malformed
        self._tools, self._tool_passes = tools, tool_passes
        self._slots = Slots(policy.model, policy.context)
        self._tick = 0

    def run(self, attempts: Sequence[Attempt], in_flight: int, done: Callable[[int], None]) -> list[Trajectory]:
        """All trajectories, in the order of `attempts`."""
        waiting = deque(enumerate(attempts))
        finished: dict[int, Trajectory] = {}
        flights: list[_Flight] = []
        free: list[int] = []
        while waiting or flights:
            while waiting and len(flights) < in_flight:
                slot = free.pop() if free else self._slots.open()
                flights.append(self._take_off(*waiting.popleft(), slot))
            if not any(flight.unread for flight in flights):  # all wait for tools
                self._tick = max(self._tick, min(flight.rejoins for flight in flights))
            for flight in flights:
                if flight.replies and flight.rejoins <= self._tick:
                    self._complete(flight, [reply.result() for reply in flight.replies])
            if reading := _within_budget([flight for flight in flights if flight.unread]):
                self._forward(reading)
            self._tick += 1
            for flight in [flight for flight in flights if flight.stop]:
                finished[flight.number] = self._trajectory(flight)
                self._slots.clear(flight.slot)
                free.append(flight.slot)
                done(1)
            flights = [flight for flight in flights if not flight.stop]
            if not waiting and flights and len(free) >= len(flights):
                self._slots.keep([flight.slot for flight in flights])
                for slot, flight in enumerate(flights):
                    flight.slot = slot
                free = []
        return [finished[number] for number in range(len(attempts))]

    def _take_off(self, number: int, attempt: Attempt, slot: int) -> _Flight:
        reader = reader_of(self._policy.chat, attempt.tools, attempt.thoughts)
        prompt = reader.prompt(attempt.prompt, attempt.system)
        flight = _Flight(number, attempt, prompt, slot, len(prompt), reader)
        self._go_on(flight, prompt)
        return flight

    def _go_on(self, flight: _Flight, unread: tuple[int, ...]) -> None:
        """Begin the next step after the tokens `unread`, or stop if another action might not fit into the context."""
        if flight.length + self._sampling.max_tokens > self._policy.context:
            flight.stop = Stop.CONTEXT_FULL
            return
        question, sample = flight.attempt.question.id, flight.attempt.sample
        seed = derive(self._seed, question, sample, len(flight.steps))
        flight.draws = uniforms(seed, self._sampling.max_tokens)
        flight.unread, flight.ids, flight.logprobs, flight.complete = unread, [], [], False

    def _forward(self, reading: Sequence[_Flight]) -> None:
        """Read the unread tokens of these conversations, and draw one token for each."""
        import torch

        logits = self._slots.read([(flight.slot, flight.unread) for flight in reading])
        draws = torch.tensor([flight.draws[len(flight.ids)] for flight in reading], dtype=torch.float64)
        tokens, logprobs = choose(logits, draws.to(logits.device), self._sampling)
        for flight, token, logprob in zip(reading, tokens.tolist(), logprobs.tolist(), strict=True):
            ended = token in self._policy.chat.end_ids
            if flight.complete and not ended:  # what follows a call or an answer is no part of it
                flight.unread = ()
                self._act(flight)
                continue
            flight.ids.append(token)
            flight.logprobs.append(logprob)
            flight.unread = (token,)
            if ended or len(flight.ids) == self._sampling.max_tokens:
                self._act(flight)
            else:
                flight.complete = flight.reader.complete(flight.ids)

    def _act(self, flight: _Flight) -> None:
        """Parse a complete action and start its tools."""
        action = flight.reader.read(tuple(flight.ids))
        flight.left, flight.unread, flight.action = flight.unread, (), action
        flight.rejoins = self._tick + 2  # whatever it was: one pass of the others is between
        if action.kind == ActionKind.ANSWER:
            self._complete(flight, [])
        elif reply := reply_to(action, len(flight.ids)):
            said: Future[Observation] = Future()
            said.set_result(reply)
            flight.replies = [said]
        else:
            flight.rejoins = self._tick + 1 + self._tool_passes
            tools, reader = flight.attempt.tools, flight.reader
            flight.replies = [
                self._tools.submit(observe, tools[kind], payload, reader.shown)
                for kind, payload in reader.calls(action)
            ]

    def _complete(self, flight: _Flight, seen: Sequence[Observation]) -> None:
        """Record the step with its observations, and continue or stop the trajectory."""
        chat, action = self._policy.chat, flight.action
        assert action is not None
        turn = flight.reader.turn(action, seen, flight.ids[-1] in chat.end_ids) if seen else ()
        flight.faulty_in_a_row = flight.faulty_in_a_row + 1 if action.faulty else 0
        flight.length += len(flight.ids) + len(turn)
        step = Step(
            index=len(flight.steps),
            action=action,
            observations=tuple(seen),
            token_ids=tuple(flight.ids),
            logprobs=tuple(flight.logprobs),
            observation_ids=turn,
            rewritten_ids=flight.anew,
        )
        flight.steps.append(step)
        flight.action, flight.replies, flight.anew = None, (), ()
        if action.kind == ActionKind.ANSWER:
            flight.stop = Stop.ANSWERED
        elif len(flight.steps) >= flight.attempt.max_steps:
            flight.stop = Stop.STEP_LIMIT
        elif action.faulty and flight.faulty_in_a_row == self._max_malformed:
            flight.stop = Stop.MALFORMED
        else:
            attempt = flight.attempt
            flight.anew = flight.reader.anew(attempt.prompt, attempt.system, flight.steps)
            if flight.anew:
                self._slots.clear(flight.slot)
                flight.length = len(flight.anew)
            self._go_on(flight, flight.anew or (*flight.left, *turn))
        if flight.stop or flight.anew:  # nothing follows the last action of a piece
            flight.steps[-1] = dataclasses.replace(step, observation_ids=())

    def _trajectory(self, flight: _Flight) -> Trajectory:
        question = flight.attempt.question
        assert flight.stop is not None
        return Trajectory(
            id=f"{question.id}/{flight.attempt.sample}",
            question_id=question.id,
            benchmark=question.benchmark,
            sample=flight.attempt.sample,
            model=self._policy.name,
            seed=derive(self._seed, question.id, flight.attempt.sample),
            prompt_ids=flight.prompt_ids,
            steps=tuple(flight.steps),
            stop=flight.stop,
            error="",
        )


def observe(tool: Tool, payload: str, shown: Callable[[str, str], str] = "{} -> {}".format) -> Observation:
    """Call a tool and return what the model is shown, made of payload and result: by default `QUERY -> RESULT`."""
    result = call(tool, payload)
    return Observation(shown(payload, result.text), result.error, tool.kind, payload)


def _within_budget(flights: Sequence[_Flight]) -> list[_Flight]:
    """The first of `flights` whose unread tokens fit into one forward pass; at least one."""
    chosen: list[_Flight] = []
    tokens = 0
    for flight in flights:
        tokens += len(flight.unread)
        if chosen and tokens > READ_AT_ONCE:
            break
        chosen.append(flight)
    return chosen
