"""The agent loop with a model behind an endpoint: what `swirl.rollout.engine` does, action by action over HTTP.

With the completions protocol, states are sent as token ids, and actions come back as token ids and log-probabilities if
the server supports this (vLLM does). Otherwise, and with the chat protocol, an action's text is encoded again by the
local tokenizer, its log-probabilities are empty, and the trajectory is marked as `retokenised`.

Servers are asked to stop at the closing tag of a call or an answer, unless a thought may name it; what one says beyond
it is left out. An action whose token ids stop there has no end of turn, which was not sampled: the template closes the
turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from threading import Semaphore

from swirl.comb.sampling import Sampling
from swirl.core.endings import cut_short
from swirl.core.seeds import derive
from swirl.core.threads import Pool, end_if_given_up
from swirl.core.types import ActionKind, Step, Stop, Trajectory
from swirl.endpoints.client import Answer, Ask, Client, ContextError, EndpointError, Message, UnavailableError
from swirl.models.chat import THOUGHT
from swirl.rollout.engine import Attempt, Calls, observe
from swirl.rollout.reading import Readable, reader_of, reply_to

_LOOK_S = 0.5
"""How often a conversation that waits for the server looks whether somebody still waits for it."""


@dataclass(frozen=True, slots=True)
class RemotePolicy:
    """A model behind an open client, and the tokenizer that its server uses."""

    name: str
    client: Client
    chat: Readable
    context: int
    """Longest conversation in tokens."""


def roll_out_remote(
    policy: RemotePolicy,
    attempts: Sequence[Attempt],
    sampling: Sampling,
    seed: int,
    max_malformed: int,
    in_flight: int,
    calls: Calls,
    done: Callable[[int], None] = lambda count: None,
) -> list[Trajectory]:
    """Work through all attempts as `swirl.rollout.engine.roll_out` does, and return their trajectories in order.

    Each action's seed is derived as there; whether sampling is repeatable depends on the server, and nothing on
    `calls.passes`, since no conversation waits for another. A request that fails
    for good ends its trajectory as TOOL_FAILED with the reason in `error`, or as CONTEXT_FULL when the server's context
    is shorter than `policy.context`. Raises `UnavailableError` when every request would fail. Ctrl-C gives up all
    conversations in flight, their requests included.
    """

    room = Semaphore(calls.in_flight)

    def work(attempt: Attempt) -> Trajectory:
        made = _Attempt(policy, attempt, sampling, seed, max_malformed, room).run()
        done(1)
        return made

    with Pool(in_flight) as pool:
        futures = [pool.submit(work, attempt) for attempt in attempts]
        return [future.result() for future in futures]


class _Attempt:
    """One trajectory in progress."""

    def __init__(
        self,
        policy: RemotePolicy,
        attempt: Attempt,
        sampling: Sampling,
        seed: int,
        max_malformed: int,
        room: Semaphore,
    ) -> None:
        self._policy, self._attempt, self._sampling = policy, attempt, sampling
        self._seed, self._max_malformed = seed, max_malformed
        self._room = room
        """Held while a tool is called."""
        self._reader = reader_of(policy.chat, attempt.tools, attempt.thoughts)
        self._ids = list(self._reader.prompt(attempt.prompt, attempt.system))
        self._turns = [Message("user", attempt.prompt)]
        self._steps: list[Step] = []
        self._anew: tuple[int, ...] = ()
        """The state of the next step, if it was written anew."""
        self._retokenised = False

    def run(self) -> Trajectory:
        """Act until the trajectory ends."""
        prompt_ids, question = tuple(self._ids), self._attempt.question
        try:
            stop, error = self._act_until_end(), ""
        except UnavailableError:
            raise
        except ContextError:
            stop, error = Stop.CONTEXT_FULL, ""
        except EndpointError as failure:
            stop, error = Stop.TOOL_FAILED, str(failure)
        if self._steps:  # nothing follows the last action
            self._steps[-1] = dataclasses.replace(self._steps[-1], observation_ids=())
        return Trajectory(
            id=f"{question.id}/{self._attempt.sample}",
            question_id=question.id,
            benchmark=question.benchmark,
            sample=self._attempt.sample,
            model=self._policy.name,
            seed=derive(self._seed, question.id, self._attempt.sample),
            prompt_ids=prompt_ids,
            steps=tuple(self._steps),
            stop=stop,
            error=error,
            retokenised=self._retokenised,
        )

    def _act_until_end(self) -> Stop:
        faulty_in_a_row = 0
        while len(self._ids) + self._sampling.max_tokens <= self._policy.context:
            step = self._step()
            faulty_in_a_row = faulty_in_a_row + 1 if step.action.faulty else 0
            if step.action.kind == ActionKind.ANSWER:
                return Stop.ANSWERED
            if len(self._steps) >= self._attempt.max_steps:
                return Stop.STEP_LIMIT
            if step.action.faulty and faulty_in_a_row == self._max_malformed:
                return Stop.MALFORMED
        return Stop.CONTEXT_FULL

    def _step(self) -> Step:
        """Take one action, and record it with its observations."""
        chat, reader, tools = self._policy.chat, self._reader, self._attempt.tools
        ask = self._ask()
        answer = self._answer(ask)
        ids, logprobs = self._tokens(ask, answer)
        action = reader.read(ids)
        reply = reply_to(action, max(len(ids), answer.completion_tokens))  # without a tokenizer, all is one token
        seen = [reply] if reply else []
        for kind, payload in reader.calls(action):
            with self._room:
                seen.append(observe(tools[kind], payload, reader.shown))
        step = Step(
            index=len(self._steps),
            action=action,
            observations=tuple(seen),
            token_ids=ids,
            logprobs=logprobs,
            observation_ids=reader.turn(action, seen, ids[-1] in chat.end_ids) if seen else (),
            rewritten_ids=self._anew,
        )
        self._steps.append(step)
        self._ids += [*step.token_ids, *step.observation_ids]
        self._anew = reader.anew(self._attempt.prompt, self._attempt.system, self._steps) if seen else ()
        if self._anew:
            self._ids = list(self._anew)
            self._steps[-1] = dataclasses.replace(step, observation_ids=())
        self._turns += [Message("assistant", action.text), Message("user", step.observation)]
        return step

    def _ask(self) -> Ask:
        chat, sampling, question = self._policy.chat, self._sampling, self._attempt.question
        return Ask(
            messages=tuple(self._turns),
            max_tokens=sampling.max_tokens,
            text=self._reader.markup([(turn.role, turn.content) for turn in self._turns], self._ids),
            ids=tuple(self._ids),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=derive(self._seed, question.id, self._attempt.sample, len(self._steps)),
            stop_ids=tuple(sorted(chat.end_ids)),
            stops=self._reader.stops,
            thoughts=chat.thinking,
        )

    def _answer(self, ask: Ask) -> Answer:
        """The server's answer. Raises `GivenUpError`, and waits no longer, when nobody waits for the trajectory."""
        end_if_given_up()
        future = self._policy.client.submit(ask)
        try:
            while not wait([future], _LOOK_S).done:
                end_if_given_up()
        finally:
            future.cancel()  # does nothing to one that is done
        return future.result()

    def _tokens(self, ask: Ask, answer: Answer) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The server's ids and log-probabilities of the action, or else the ids of its text and no log-probabilities.

        Raises `EndpointError` for an answer without any token.
        """
        chat, reader, limit = self._policy.chat, self._reader, self._sampling.max_tokens
        ids = answer.ids and reader.upto(answer.ids)
        if ids and (ids[-1] in chat.end_ids or reader.complete(ids) or answer.finish == "length"):
            self._retokenised |= answer.logprobs is None
            return ids, (answer.logprobs or ())[: len(ids)]
        self._retokenised = True
        if reader.needs_ids and not ids:
            raise EndpointError(
                f"{self._policy.client.endpoint.url} gives no token ids, and this model's calls are told by special "
                "tokens, which its text does not show: use a server that gives them, or actions.format: tags"
            )
        # Some servers return ids without that of the end of turn. Some return text that is not part of the reply: the
        # whole conversation before it, and the end of turn.
        given = self._with_thought(answer, answer.text.removeprefix(ask.text).split(chat.end_text)[0])
        text = reader.written(given if cut_short(answer.finish) else reader.closed(given))
        goes_on = given[len(text) :].strip() != ""
        # llama.cpp's server leaves the tokens of the string that it stopped at out of its ids, too.
        said = ids if ids and not reader.whole(text) else chat.encode(text)[:limit]
        # A server that stopped at the limit may have sampled the end of turn as the last token, unseen in the text.
        cut = cut_short(answer.finish) and not len(said) == limit - 1 == answer.completion_tokens - 1
        if not (cut or goes_on) and len(said) < limit:
            said = (*said, chat.end_id)
        if not said:
            raise EndpointError(f"{self._policy.client.endpoint.url} gave an empty answer ({answer.finish})")
        return said, ()

    def _with_thought(self, answer: Answer, said: str) -> str:
        """What was said, after the thought that the server gave apart, in tags; it is left open if it was cut off."""
        if not answer.thought:
            return said
        whole = self._policy.chat.thinks(answer.thought, said)
        return whole if said.strip() or not cut_short(answer.finish) else whole.rpartition(THOUGHT)[0]
