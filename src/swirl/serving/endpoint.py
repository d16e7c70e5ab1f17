"""A policy behind a URL: any OpenAI-compatible server, through the chat protocol and without its tokenizer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from swirl.config.served import DEFAULT, ClientSettings, Served
from swirl.core.errors import ModelError
from swirl.rollout.remote import RemotePolicy
from swirl.wiring.servers import client_of

_NO_LIMIT = 1 << 40
_CLIENTS = {
    DEFAULT: ClientSettings(
        concurrency=1,
        requests_per_minute=0,
        tokens_per_minute=0,
        timeout_s=120.0,
        retries=2,
        cost_per_million_input=0.0,
        cost_per_million_output=0.0,
    )
}
"""Request settings for one person who waits for the answer."""
_END = 0
"""The token of the empty text ends a turn."""


def endpoint_policy(address: str, key_env: str = "", clients: Mapping[str, ClientSettings] = _CLIENTS) -> RemotePolicy:
    """The policy at `URL#MODEL`, such as http://127.0.0.1:8000/v1#Qwen/Qwen3-0.6B. Sends nothing yet.

    `key_env` names the environment variable that holds the key; "" sends none. `clients` says how requests are sent.
    Raises `ModelError` for an address without a model, or with an invalid URL.
    """
    url, _, model = address.partition("#")
    if not model:
        raise ModelError("an endpoint is URL#MODEL, as http://127.0.0.1:8000/v1#Qwen/Qwen3-0.6B; the model is missing")
    try:
        served = Served(
            url=url.rstrip("/"),
            model=model,
            api="chat",
            key_env=key_env,
            chat_template_kwargs={},
        )
    except ValueError:  # the address is not repeated: a key may have been put into it
        raise ModelError(
            "an endpoint is URL#MODEL: http:// or https://, a host and a path such as /v1, no key or query, and then # "
            "and the name that the server knows the model by; --key-env is the NAME of the variable that holds the key"
        ) from None
    return RemotePolicy(model, client_of(served, clients), TextChat(), _NO_LIMIT)


class TextChat:
    """Stands in for an unknown tokenizer: each text is one token. The server decides how much fits into its context.

    Any threads may use it.
    """

    native = thinking = strips = False
    end_id = _END
    end_ids = frozenset({_END})
    end_text = "\0"

    def __init__(self) -> None:
        self._texts = [""]
        self._lock = threading.Lock()

    def encode(self, text: str) -> tuple[int, ...]:
        """The text as one token; no token for an empty text."""
        if not text:
            return ()
        with self._lock:
            self._texts.append(text)
            return (len(self._texts) - 1,)

    def prompt(self, text: str) -> tuple[int, ...]:
        """The opening of a conversation."""
        return self.encode(text)

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """The user turn that follows a reply."""
        return self.encode(text)

    def markup(self, turns: Iterable[tuple[str, str]]) -> str:
        """Empty, because the chat protocol sends turns and the server applies the template."""
        return ""

    def text(self, ids: Sequence[int]) -> str:
        """The text of a reply."""
        return "".join(self._texts[number] for number in ids)

    def so_far(self, ids: Sequence[int]) -> str:
        """The text of a reply that may still go on."""
        return self.text(ids)

    def said_by(self, token: int) -> str:
        """The text of one token."""
        return self._texts[token]

    def after_thought(self, text: str) -> tuple[str, str]:
        """A reply as no thought, and all of it."""
        return "", text

    def unthought(self, text: str) -> str:
        """A reply as it is."""
        return text

    def thinks(self, thought: str, said: str) -> str:
        """What is said, without the thought."""
        return said

    def anew(self, turns: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """No token, because no state is written anew."""
        return ()
