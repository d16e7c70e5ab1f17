"""Model servers, on which answers depend, and their request settings, on which answers do not depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from swirl.config.section import Count, Positive, Section
from swirl.endpoints.requests import ALLOWED, is_key_env, is_url

DEFAULT = "default"
"""The entry of `clients` for servers that have none of their own."""


class Served(Section):
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, a hosted model. `clients` has its request settings."""

    url: str = Field(description="base address, as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name the server knows it by")
    api: Literal["completions", "chat"] = Field(description="completions is token-exact where the server gives ids")
    key_env: str = Field(description="environment variable that holds the key; '': none")
    chat_template_kwargs: Mapping[str, JsonValue] = Field(
        description="options of its chat template with api chat, as {enable_thinking: false}; {}: none"
    )

    @model_validator(mode="after")
    def _makes_sense_and_holds_no_secret(self) -> Served:
        # The values are left out of the message: a key may have been put there.
        for name, fine in (("url", is_url(self.url)), ("key_env", is_key_env(self.key_env))):
            if not fine:
                raise ValueError(f"{name} {ALLOWED[name]}")
        if self.chat_template_kwargs and self.api != "chat":
            raise ValueError(f"chat_template_kwargs {ALLOWED['chat_template_kwargs']}")
        return self


class ClientSettings(Section):
    """How requests are sent to a server: rate, time-out, retries, prices. No stage depends on it."""

    concurrency: Count = Field(description="requests at the same time")
    requests_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    tokens_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    timeout_s: Positive = Field(description="seconds a request may take")
    retries: Annotated[int, Field(ge=0)] = Field(description="further tries after 429, 5xx and time-outs; 0: none")
    cost_per_million_input: Annotated[float, Field(ge=0)] = Field(description="price of a million prompt tokens")
    cost_per_million_output: Annotated[float, Field(ge=0)] = Field(description="price of a million reply tokens")


def _checked(clients: Mapping[str, ClientSettings]) -> Mapping[str, ClientSettings]:
    if DEFAULT not in clients:
        raise ValueError(f"{DEFAULT} is missing: how servers without an entry of their own are asked")
    if not all(is_url(name.partition("#")[0]) for name in clients if name != DEFAULT):
        # The name is not repeated: it may hold a key.
        raise ValueError(f"expected {DEFAULT}, a server's url, or url#model; a url {ALLOWED['url']}")
    if len({*map(_address, clients)}) < len(clients):
        raise ValueError("two entries are for the same server: a slash at the end of a url makes it no other")
    return clients


def _address(entry: str) -> tuple[str, str]:
    """(url, model) of an entry; no model for an entry of the url alone."""
    url, _, model = entry.partition("#")
    return url.rstrip("/"), model


Clients = Annotated[
    Mapping[str, ClientSettings],
    AfterValidator(_checked),
    Field(description="default, and servers that are asked otherwise: by url, or by url#model"),
]


def client_settings(clients: Mapping[str, ClientSettings], server: Served) -> ClientSettings:
    """The request settings of a server: the entry of its url#model, else of its url, else the default."""
    own = [entry for entry in clients if is_for(entry, server)]
    return clients[max(own, key=_address, default=DEFAULT)]


def is_for(entry: str, server: Served) -> bool:
    """Whether an entry of `clients` is for this server by its address, and not for another of its models."""
    url, model = _address(entry)
    return url == server.url.rstrip("/") and model in ("", server.model)
