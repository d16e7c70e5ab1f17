"""From params to models behind servers: open clients, and the folder of a base that is a server."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path

from swirl.config.base_model import EndpointBase
from swirl.config.served import ClientSettings, Served, client_settings
from swirl.core.distributed import launched
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.endpoints.client import Client, Endpoint
from swirl.models.chat import Chat

SERVER = "server.json"
"""In the folder of a model that is behind a server: which one, and how long a conversation may be."""
_open: dict[tuple[Endpoint, Path | None], Client] = {}


def client_of(served: Served, clients: Mapping[str, ClientSettings], cache: Path | None = None) -> Client:
    """The open client of a server, one a process, which asks as `clients` say; it closes when the process ends.

    `cache` is a folder of answers that are never asked for again.
    """
    processes = launched()[1]  # together they keep to the limits
    settings = client_settings(clients, served)
    limits = {name: getattr(settings, name) / processes for name in ("requests_per_minute", "tokens_per_minute")}
    share = {**limits, "concurrency": max(1, settings.concurrency // processes)}
    endpoint = Endpoint(**{**served.model_dump(), **settings.model_dump(), **share})
    if (endpoint, cache) not in _open:
        client = Client(endpoint, cache)
        client.__enter__()
        atexit.register(client.__exit__, None, None, None)
        _open[endpoint, cache] = client
    return _open[endpoint, cache]


def judge_cache(layout: Layout) -> Path:
    """Where answers of judges are kept; not an output, so it outlives every run."""
    return layout.root / ".swirl/answers"


def report_use() -> None:
    """Print what the process asked its servers."""
    for client in _open.values():
        used = client.counts
        cost = f", cost {used.cost:,.2f}" if used.cost else ""
        print(
            f"{client.endpoint.url}: {used.requests:,} requests, {used.cached:,} answered from the cache, "
            f"{used.retries:,} retries, {used.failures:,} failed, {used.prompt_tokens:,} prompt and "
            f"{used.completion_tokens:,} reply tokens{cost}"
        )


def write_server(folder: Path, settings: EndpointBase, root: Path) -> None:
    """Let a model's folder say which server has the model, and hold its tokenizer.

    Raises `ModelError` when there is no such tokenizer.
    """
    from transformers import AutoTokenizer

    place = root / settings.tokenizer
    source = str(place) if place.is_dir() else settings.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=settings.revision or "main")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base_model.tokenizer {settings.tokenizer!r} is neither a folder with a tokenizer ({place}) nor one of "
            f"the hub that can be had here: {str(error).splitlines()[0]}"
        ) from None
    Chat(tokenizer)  # a template that cannot serve is refused here, not in the middle of synthesis
    tokenizer.save_pretrained(folder)
    save_json({"context": settings.context, "server": settings.server.model_dump()}, folder / SERVER)
