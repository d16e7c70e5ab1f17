"""A server that has a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from swirl.config.section import Count, Positive, Section
from swirl.endpoints.requests import ALLOWED, is_key_env, is_url


class Served(Section):
    """An OpenAI-compatible server: vLLM, SGLang, llama.cpp, a hosted model."""

    url: str = Field(description="base address, as http://127.0.0.1:8000/v1")
    model: str = Field(description="the name the server knows it by")
    api: Literal["completions", "chat"] = Field(description="completions is token-exact where the server gives ids")
    key_env: str = Field(description="environment variable that holds the key; '': none")
    concurrency: Count = Field(description="requests at the same time")
    requests_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    tokens_per_minute: Annotated[int, Field(ge=0)] = Field(description="at most; 0: no limit")
    timeout_s: Positive = Field(description="seconds a request may take")
    retries: Annotated[int, Field(ge=0)] = Field(description="further tries after 429, 5xx and time-outs; 0: none")
    cost_per_million_input: Annotated[float, Field(ge=0)] = Field(description="price of a million prompt tokens")
    cost_per_million_output: Annotated[float, Field(ge=0)] = Field(description="price of a million reply tokens")

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Served:
        # The values are left out of the message: a key may have been put there.
        for name, fine in (("url", is_url(self.url)), ("key_env", is_key_env(self.key_env))):
            if not fine:
                raise ValueError(f"{name} {ALLOWED[name]}")
        return self
