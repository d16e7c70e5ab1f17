"""One client for any OpenAI-compatible server: `with Client(endpoint) as client: client.complete_many(asks)`.

Requests run on an event loop in the client's own thread, so any thread may submit them. The openai package sends and
retries them (exponential back-off with jitter, Retry-After up to two minutes); rate limits, bounds on responses, the
cache, equal requests in flight and the error messages are this package's. The key is read from the environment when the
client is made, and is in no message, file or repr.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from swirl.endpoints import wire
from swirl.endpoints.cache import Cache
from swirl.endpoints.failures import REFUSAL, BadRequest, Failures
from swirl.endpoints.in_flight import InFlight
from swirl.endpoints.request_pace import Pace, Pacer
from swirl.endpoints.requests import (
    Answer,
    Ask,
    ContextError,
    Counts,
    Endpoint,
    EndpointError,
    Message,
    RefusedError,
    UnavailableError,
)

if TYPE_CHECKING:
    import httpx2

__all__ = ["Answer", "Ask", "Client", "ContextError", "Counts", "Endpoint", "EndpointError", "Message"]
__all__ += ["RefusedError", "UnavailableError"]

MAX_ANSWER = 2**24
"""Bytes of one response; a longer one is not read to its end."""

_CONNECT_S = 20.0
_PATIENCE = 8
"""Failures in a row (or twice the concurrency, if that is more) after which no request is sent for `_PAUSE_S`."""
_PAUSE_S = 60.0
"""Seconds: long enough for a batch to give up, and short enough for an agent server to notice a recovery."""


class Client:
    """Asks one endpoint. Use it as a context manager; inside, its methods may be called from any thread.

    Raises `UnavailableError` when the endpoint names an environment variable that holds no usable key.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: Path | None = None,
        pace: Callable[[str, float], Pacer] = lambda name, per_minute: Pace(per_minute),
    ) -> None:
        """`cache` is a folder of stored answers, which are never requested again; None stores none.

        `pace` makes the pace of a limit from its name, which says the server too, and its number per minute.
        """
        self._pace = pace
        self.endpoint = endpoint
        self._cache = Cache(cache) if cache else None
        self._counts, self._lock = Counts(), threading.Lock()
        self._refused: frozenset[str] = frozenset()
        self._ids_work = True
        self._in_a_row = 0
        """Requests that failed for good at the server since the last success; refusals are not among them."""
        self._out: UnavailableError | None = None
        self._out_until = 0.0
        self._known = threading.Event()
        """Set once the first request is over: by then it is known which fields the server accepts."""
        self._key = _key(endpoint)
        self._failures = Failures(endpoint, self._key)

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r})"

    def __enter__(self) -> Client:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def counts(self) -> Counts:
        """Requests, tokens and cost so far."""
        with self._lock:
            return self._counts

    @property
    def refused(self) -> frozenset[str]:
        """Optional request fields that the server has refused.

        `prompt` is among them when it takes no token ids, and `top_k = -1` when it wants 0 instead.
        """
        return self._refused if self._ids_work else self._refused | {"prompt"}

    def complete(self, ask: Ask) -> Answer:
        """The answer to one request. Raises `EndpointError` when it failed for good."""
        return self.submit(ask).result()

    def submit(self, ask: Ask) -> Future[Answer]:
        """Ask without waiting; the future's result is the answer, or raises `EndpointError`.

        An equal request that is in flight already is not sent again: both get its answer, or its error.
        """
        return asyncio.run_coroutine_threadsafe(self._complete(ask), self._loop)

    def complete_many(
        self, asks: Sequence[Ask], done: Callable[[int], None] = lambda count: None
    ) -> list[Answer | EndpointError]:
        """All answers in order, an `EndpointError` for each that failed for good; calls `done(1)` after each.

        Raises `UnavailableError` when no request can succeed.
        """
        futures = [self.submit(ask) for ask in asks]
        answers: list[Answer | EndpointError] = []
        try:
            for future in futures:
                try:
                    answers.append(future.result())
                except UnavailableError:
                    raise
                except EndpointError as error:
                    answers.append(error)
                done(1)
        finally:
            for future in futures:
                future.cancel()
        return answers

    # From here on, everything runs on the loop.

    async def _open(self) -> None:
        from openai import AsyncOpenAI, Omit, Timeout

        from swirl.endpoints.bounded import Timed

        endpoint = self.endpoint
        self._places = asyncio.Semaphore(endpoint.concurrency)
        self._in_flight = InFlight[Answer]()
        self._first = asyncio.Lock()
        whose = f"{endpoint.url}#{endpoint.model}"
        self._attempt_pace = self._pace(f"requests {whose}", endpoint.requests_per_minute)
        self._token_pace = self._pace(f"tokens {whose}", endpoint.tokens_per_minute)
        here = re.match(r"https?://(localhost|127\.[\d.]+|\[::1\])(:|/|$)", endpoint.url) is not None
        hooks: Any = {"request": [self._before_attempt], "response": [self._bound, self._find_junk]}
        headers: dict[str, Any] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        headers |= {"Accept-Encoding": "identity"}
        self._openai = AsyncOpenAI(
            base_url=endpoint.url,
            api_key=self._key or "none",
            max_retries=endpoint.retries,
            default_headers=headers,
            # A server on this machine is reached directly, never through a proxy that the environment names.
            http_client=Timed(event_hooks=hooks, follow_redirects=False, trust_env=not here),
            # Connecting ends before the whole attempt would, so that it is told apart.
            timeout=Timeout(endpoint.timeout_s, connect=min(_CONNECT_S, 0.9 * endpoint.timeout_s)),
        )

    async def _close(self) -> None:
        await self._openai.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _before_attempt(self, request: httpx2.Request) -> None:
        from swirl.endpoints.bounded import LIMIT

        self._count(retries=int(request.headers.get("x-stainless-retry-count", "0") != "0"))
        if not self._key:
            del request.headers["authorization"]
        await self._attempt_pace.wait(1)
        request.extensions[LIMIT].reschedule(self._loop.time() + self.endpoint.timeout_s)

    async def _bound(self, response: httpx2.Response) -> None:
        """Limit the body's size, and refuse a compressed body, whose real size does not show."""
        from swirl.endpoints.bounded import Bounded, TooLarge

        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise TooLarge("compressed, which it was asked not to be")
        response.stream = Bounded(cast("httpx2.AsyncByteStream", response.stream), MAX_ANSWER)

    async def _find_junk(self, response: httpx2.Response) -> None:
        """Raise `Junk` for an answer that is none, so that it is tried again as an answer of 500 is.

        An answer of 500 that refuses a field is marked as a refusal, and is not tried again.
        """
        from swirl.endpoints.bounded import Junk

        if response.request.method != "POST" or not (response.is_success or response.status_code == 500):
            return
        payload = await response.aread()
        if response.status_code == 500:
            if wire.refuses(payload, response.request.content):
                response.headers["x-should-retry"] = "false"  # which the openai package obeys
                response.extensions[REFUSAL] = True
            return
        if self._holds_key(payload):
            return  # `_send` refuses it
        try:
            wire.read(self.endpoint, payload)
        except EndpointError as error:
            raise Junk(str(error)) from None

    async def _complete(self, ask: Ask) -> Answer:
        if self._cache and (stored := self._cache.get(self.endpoint, ask)):
            self._count(cached=1)
            return stored
        if ask in self._in_flight:
            self._count(shared=1)
        return await self._in_flight.result(ask, lambda: self._request(ask))

    async def _request(self, ask: Ask) -> Answer:
        """The server's answer, counted and kept in the cache."""
        self._check_out()
        async with self._places:
            self._check_out()
            expected = ask.max_tokens + (len(ask.ids) or sum(len(turn.content) for turn in ask.messages) // 4)
            await self._token_pace.wait(expected)
            self._count(requests=1)
            try:
                answer = await self._ask_first(ask)
            except EndpointError as error:
                self._count(failures=1)
                raise self._last_straw(error) from None
        self._in_a_row, self._out = 0, None
        used = answer.prompt_tokens + answer.completion_tokens
        self._token_pace.correct(used - expected if used else 0)
        self._count(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=answer.prompt_tokens / 1e6 * self.endpoint.cost_per_million_input
            + answer.completion_tokens / 1e6 * self.endpoint.cost_per_million_output,
        )
        if self._cache:
            self._cache.put(self.endpoint, ask, answer)
        return answer

    def _last_straw(self, error: EndpointError) -> EndpointError:
        """The error to raise: after many failures in a row (no credit left, a broken server), `UnavailableError`.

        A request that is refused for what is in it says nothing about the server.
        """
        if isinstance(error, RefusedError | UnavailableError):
            return error
        self._in_a_row += 1
        if self._in_a_row < max(_PATIENCE, 2 * self.endpoint.concurrency):
            return error
        self._out_until = self._loop.time() + _PAUSE_S
        self._out = UnavailableError(f"{error}; {self._in_a_row} requests in a row have failed, so no more are made")
        return self._out

    def _check_out(self) -> None:
        if self._out and self._loop.time() < self._out_until:
            raise UnavailableError(str(self._out))

    async def _ask_first(self, ask: Ask) -> Answer:
        """Send a request, the very first one alone, so that the server's refusal of fields is met only once."""
        if not self._known.is_set():
            async with self._first:
                if not self._known.is_set():
                    try:
                        return await self._ask(ask)
                    finally:
                        self._known.set()
        return await self._ask(ask)

    async def _ask(self, ask: Ask) -> Answer:
        """Send a request, and send it again without the optional fields that the server refuses by name.

        Only what a request was answered without is left out of later ones.
        """
        ids_work, reason, dropped = self._ids_work, None, set[str]()
        while True:
            sent = wire.body(self.endpoint, ask, self._refused | dropped, ids_work)
            try:
                payload = await self._send(sent)
            except BadRequest as refusal:
                if new := wire.newly_refused(refusal.message, refusal.parameter, sent):
                    for name, other in wire.WISHES.items():
                        if name in new and sent[name] not in (wire.NEUTRAL.get(name), 0):
                            text = f"refuses {name} = {sent[name]}: set {name} to {other}"
                            raise UnavailableError(self._failures.about(text)) from None
                    dropped |= new
                    self._count(retries=1)
                    continue
                if wire.refuses_ids(refusal.message, sent) and not refusal.context:
                    ids_work, reason = False, refusal  # try text; if that is refused too, report this refusal
                    self._count(retries=1)
                    continue
                raise self._failures.of_refusal(reason or refusal) from None
            self._ids_work = ids_work
            self._leave_out(dropped)
            return wire.answer(self.endpoint, ask, payload)

    def _leave_out(self, fields: set[str]) -> None:
        """Leave these fields out of all later requests, and say so of those that change how answers are sampled."""
        told = [name for name in wire.SAMPLING if name in fields - self._refused]
        self._refused |= fields
        if told:
            text = f"refuses {' and '.join(told)}: it is asked without, so its own setting decides"
            print(f"warning: {self._failures.about(text)}", file=sys.stderr, flush=True)

    async def _send(self, sent: dict[str, Any]) -> bytes:
        """The body of a successful response. Raises `BadRequest` for a refusal, else `EndpointError`."""
        import httpx2
        import openai

        from swirl.endpoints.bounded import TooLarge

        try:
            response = await self._openai.post(self._path, cast_to=httpx2.Response, body=sent)
        except openai.APIStatusError as error:
            served = await self._served() if error.status_code == 404 else []
            raise self._failures.of_status(error, self._path, served) from None
        except openai.APIConnectionError as error:
            raise self._failures.of_connection(error) from None
        except TooLarge as error:
            raise EndpointError(self._failures.about(f"gave an answer that is not read: {error}")) from None
        payload = response.content
        if self._holds_key(payload):
            raise EndpointError(self._failures.about("gave an answer that holds the key; it is not kept"))
        return payload

    async def _served(self) -> list[str]:
        """Names of the models that the server lists; none when it does not say."""
        import openai

        from swirl.endpoints.bounded import TooLarge

        try:
            listed = await self._openai.with_options(max_retries=0).models.list()
            return [self._failures.redacted(wire.short(str(model.id))) for model in listed.data]
        except (openai.OpenAIError, TooLarge, ValueError, TypeError, AttributeError, RecursionError):
            return []

    @property
    def _path(self) -> str:
        return "/chat/completions" if self.endpoint.api == "chat" else "/completions"

    def _holds_key(self, payload: bytes) -> bool:
        return len(self._key) >= 16 and self._key.encode() in payload

    def _count(self, **more: float) -> None:
        with self._lock:
            changed = {name: getattr(self._counts, name) + value for name, value in more.items()}
            self._counts = dataclasses.replace(self._counts, **changed)


def _key(endpoint: Endpoint) -> str:
    """The key from the environment, stripped of white space, such as the newline of a file; empty without `key_env`."""
    if not endpoint.key_env:
        return ""
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise UnavailableError(f"{endpoint.url} needs a key: set ${endpoint.key_env} in the environment")
    if not re.fullmatch(r"[!-~]+", key):
        raise UnavailableError(f"${endpoint.key_env} holds white space or characters beyond ASCII, which no key has")
    return key
