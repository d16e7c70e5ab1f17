"""The types of a request to a server: endpoint, question, answer, counts and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from swirl.core.errors import ModelError


class EndpointError(ModelError):
    """One request failed for good; others may still succeed."""


class RefusedError(EndpointError):
    """The server refuses this request for what is in it: sent again, it would be refused again."""


class ContextError(RefusedError):
    """The conversation does not fit into the server's context."""


class UnavailableError(EndpointError):
    """Every request will fail: no server, no valid key, no such model, or many failures of the server in a row."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, `transformers serve`, or a hosted model.

    Raises `ModelError` for a field that makes no sense.
    """

    url: str
    """Base address, `/v1` included: `http://127.0.0.1:8000/v1`."""
    model: str
    """The model's name on the server."""
    api: Literal["completions", "chat"]
    """completions: token ids in and, where the server gives them, out; chat: messages."""
    key_env: str = ""
    """Name of the environment variable that holds the key; empty: no key is sent."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of the server's chat template, as `{"enable_thinking": False}`; sent only if there are any."""
    concurrency: int = 16
    """Number of requests at the same time."""
    requests_per_minute: float = 0
    """Attempts are spaced to stay below this rate; 0: no limit."""
    tokens_per_minute: float = 0
    """Limit on prompt and completion tokens together; 0: no limit."""
    timeout_s: float = 300
    """Seconds one attempt may take."""
    retries: int = 5
    """Further attempts after a time-out, a cut connection, an answer of 408, 409, 429 or 5xx, or junk for an answer."""
    cost_per_million_input: float = 0
    """Price of a million prompt tokens, in any currency; 0: free."""
    cost_per_million_output: float = 0
    """Price of a million completion tokens; 0: free."""

    def __post_init__(self) -> None:
        checks = {
            "url": is_url(self.url),
            "model": bool(self.model),
            "api": self.api in ("completions", "chat"),
            "key_env": is_key_env(self.key_env),
            "chat_template_kwargs": self.api == "chat" or not self.chat_template_kwargs,
            "concurrency": self.concurrency >= 1,
            "requests_per_minute": self.requests_per_minute >= 0,
            "tokens_per_minute": self.tokens_per_minute >= 0,
            "timeout_s": self.timeout_s > 0,
            "retries": self.retries >= 0,
            "cost_per_million_input": self.cost_per_million_input >= 0,
            "cost_per_million_output": self.cost_per_million_output >= 0,
        }
        for name, fine in checks.items():
            if not fine:
                # The value is not printed: it may be a key that was put into the wrong field.
                value = "" if name in ("url", "key_env") else f" = {getattr(self, name)!r}"
                raise ModelError(f"endpoint: {name}{value}: {ALLOWED.get(name, 'must be a number, 0 or more')}")


ALLOWED = {
    "url": "must be http:// or https://, a host and a path such as /v1, without key, password or query",
    "model": "must be the name under which the server has the model",
    "api": "must be completions or chat",
    "key_env": "must be the NAME of an environment variable, not the key itself or what looks like one; "
    "empty for a server without key",
    "chat_template_kwargs": "must be empty unless api is chat: only there the server fills in its chat template",
    "concurrency": "must be at least 1",
    "timeout_s": "must be above 0",
}
"""What a field of an endpoint must be; the others are numbers, 0 or more."""


def is_url(text: str) -> bool:
    """Whether this is a base address without key, password or query."""
    return bool(re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", text))


def is_key_env(text: str) -> bool:
    """Whether this can be the name of an environment variable, or is empty; what looks like a key is none."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,59}|", text)) and not _looks_like_key(text)


def _looks_like_key(text: str) -> bool:
    """Whether it has the random letters and digits that keys have and names do not."""
    long_mixture = len(text) >= 20 and all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    words = [word for word in text.split("_") if len(word) >= 20]
    return long_mixture or any(re.search("[0-9]", word) for word in words) or _KEY.match(text) is not None


_KEY = re.compile(r"AIza|(gsk|hf|sk|pk|rk|ghp|gho|ghs|ghu|r8|fw|github_pat|sk_live|sk_test|wandb_v1)_[A-Za-z0-9]{16}")
"""The beginning of keys that may be letters alone."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, with everything that determines its answer."""

    messages: tuple[Message, ...]
    """The conversation, for the chat protocol."""
    max_tokens: int
    """Maximum number of tokens of the answer, its end of turn included."""
    text: str = ""
    """The conversation in the model's own markup, for a completions server that takes no token ids."""
    ids: tuple[int, ...] = ()
    """The conversation's token ids, for a completions server that takes them; empty: send `text`."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """1 keeps every token."""
    top_k: int = 0
    """0 keeps every token."""
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    """Tokens that end an answer, in addition to the server's own."""
    stops: tuple[str, ...] = ()
    """Strings that end an answer, and are a part of it where the server returns them."""
    vote: int = 0
    """Number of this vote among several on the same question: the cache keeps an answer for each."""
    words: tuple[str, ...] = ()
    """Two words, in capitals, that the answer decides between: the server is asked how likely each was; (): neither."""
    thoughts: bool = False
    """Whether a thought that the server gives apart from the text is a part of the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer."""

    text: str
    finish: str
    """`stop`, `length`, or whatever the server calls its reason; empty when it gives none."""
    ids: tuple[int, ...] | None
    """Token ids as sampled; None when the server does not give them, or read a prompt other than `Ask.ids`."""
    logprobs: tuple[float, ...] | None
    """Natural-log probability of each of `ids`, 0 at most; None when the server does not give them all."""
    prompt_tokens: int
    completion_tokens: int
    """Both as the server counts them; 0 when it gives no count."""
    chances: tuple[tuple[int, float], ...] = ()
    """Where one of `Ask.words` begins: its place in `text`, and P(first word) / (P(first word) + P(second word)) there.

    Empty when the server gives no log-probabilities of the alternatives.
    """
    thought: str = ""
    """What the server gave apart from `text`, without tags, if `Ask.thoughts`; empty for none."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A client's use of its server so far."""

    requests: int = 0
    """Requests sent to the server, each counted once however often it was retried."""
    cached: int = 0
    """Requests answered from the cache instead."""
    retries: int = 0
    """Attempts after the first, including those without a field that the server turned out to refuse."""
    failures: int = 0
    """Requests that failed for good."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the endpoint's prices."""
    shared: int = 0
    """Requests that were not sent because an equal one was in flight: they got its answer, or failed with it."""

    def __add__(self, other: Counts) -> Counts:
        """The use of both together."""
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))
