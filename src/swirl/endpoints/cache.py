"""A cache of answers on disk, one small JSON file each, so that no server is asked the same thing twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from swirl.core.errors import DataError
from swirl.endpoints.requests import Answer, Ask, Endpoint
from swirl.endpoints.wire import log_probabilities, token_ids

MAX_ENTRY = 2**20
"""Bytes of one file; a larger answer is not kept."""


class Cache:
    """A folder of answers, each under a hash of everything that determines it. Processes may share it.

    A server's weights are identified only by its address and the model's name: when they change, give the model
    another name or delete the folder. API keys are never stored or hashed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, endpoint: Endpoint, ask: Ask) -> Answer | None:
        """The stored answer; None when there is none, or its file is not a valid answer."""
        try:
            with self._path(endpoint, ask).open("rb") as file:
                stored = json.loads(file.read(MAX_ENTRY + 1))
            return _checked(stored)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def put(self, endpoint: Endpoint, ask: Ask, answer: Answer) -> None:
        """Keep an answer, atomically. Raises `DataError` when the folder cannot be written."""
        data = json.dumps(dataclasses.asdict(answer), allow_nan=False).encode()
        if len(data) > MAX_ENTRY:
            return
        path = self._path(endpoint, ask)
        partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            raise DataError(f"the answer cache {self._folder} cannot be written: {error.strerror}") from error

    def _path(self, endpoint: Endpoint, ask: Ask) -> Path:
        asked = dataclasses.asdict(ask)
        if not ask.stops:  # the key that such a request has always had
            del asked["stops"]
        if not ask.words:
            del asked["words"]
        if not ask.thoughts:
            del asked["thoughts"]
        said: list[Any] = [endpoint.url.rstrip("/"), endpoint.model, endpoint.api, asked]
        if endpoint.chat_template_kwargs:
            said.append(dict(endpoint.chat_template_kwargs))
        name = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.json"


def _checked(stored: dict[str, object]) -> Answer:
    """An answer from its fields. Raises `ValueError`, `TypeError` or `KeyError` for any other shape."""
    text, finish, ids, logprobs = (stored[name] for name in ("text", "finish", "ids", "logprobs"))
    thought = stored.get("thought", "")
    prompt_tokens, completion_tokens = stored["prompt_tokens"], stored["completion_tokens"]
    if not (isinstance(text, str) and isinstance(finish, str) and isinstance(thought, str)):
        raise ValueError("text, finish and thought are strings")
    if not (isinstance(prompt_tokens, int) and isinstance(completion_tokens, int)):
        raise ValueError("counts are integers")
    fine_ids, fine_logprobs = token_ids(ids), log_probabilities(logprobs)
    if (fine_ids is None) != (ids is None) or (fine_logprobs is None) != (logprobs is None):
        raise ValueError("ids or log-probabilities are of another shape")
    chances = [(place, share) for place, share in stored.get("chances", [])]  # type: ignore[attr-defined]
    if not all(type(place) is int and type(share) is float and 0 <= share <= 1 for place, share in chances):
        raise ValueError("chances are pairs of a place and a share")
    return Answer(text, finish, fine_ids, fine_logprobs, prompt_tokens, completion_tokens, tuple(chances), thought)
