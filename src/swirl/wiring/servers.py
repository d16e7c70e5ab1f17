"""From params to models behind servers: open clients, and the model folder of a base that a server runs."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path

from swirl.config.base_model import EndpointBase
from swirl.config.served import ClientSettings, Served, client_settings
from swirl.core.checksums import checksum
from swirl.core.distributed import rank_and_count
from swirl.core.errors import ModelError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import save_json
from swirl.endpoints.client import Client, Counts, Endpoint
from swirl.execution.blocks import Sharing
from swirl.models.chat import Chat
from swirl.models.gguf_files import converted, is_gguf
from swirl.models.native_chat import NativeChat

SERVER = "server.json"
"""File in the folder of a model behind a server: says which server, and how many tokens its context has."""
_open: dict[tuple[Endpoint, Path | None], Client] = {}
_elsewhere: dict[str, Counts] = {}
"""By address, the use of servers by this stage's workers in other processes."""
_sharing: Sharing | None = None


def share_limits(sharing: Sharing | None) -> None:
    """From now on, the clients that this process opens share the limits of their servers with other workers."""
    global _sharing
    _sharing = sharing


def client_of(served: Served, clients: Mapping[str, ClientSettings], cache: Path | None = None) -> Client:
    """The open client of a server, with the settings that `clients` has for it; closed when the process ends.

    Every call of this process with the same endpoint and cache gets the same client. `cache` is a folder of stored
    answers, which are never requested again. Raises `ParamsError` for more workers than the server takes requests.
    """
    processes = rank_and_count()[1]  # they share the limits
    settings = client_settings(clients, served)
    limits = {name: getattr(settings, name) / processes for name in ("requests_per_minute", "tokens_per_minute")}
    share = {**limits, "concurrency": max(1, settings.concurrency // processes)}
    if _sharing:
        if settings.concurrency < _sharing.workers:
            raise ParamsError(
                f"execution.workers = {_sharing.workers}, but `clients` lets {served.url} have {settings.concurrency} "
                f"requests at a time: set execution.workers to {settings.concurrency} or fewer"
            )
        share = {"concurrency": settings.concurrency // _sharing.workers}
    endpoint = Endpoint(**{**served.model_dump(), **settings.model_dump(), **share})
    if (endpoint, cache) not in _open:
        client = Client(endpoint, cache, _sharing.pace) if _sharing else Client(endpoint, cache)
        client.__enter__()
        atexit.register(client.__exit__, None, None, None)
        _open[endpoint, cache] = client
    return _open[endpoint, cache]


def judge_cache(layout: Layout) -> Path:
    """Folder of the judges' stored answers; it is no stage's output, so it outlives every run."""
    return layout.root / ".swirl/answers"


def usage() -> dict[str, Counts]:
    """By address, the use of servers by this process and those whose use was added."""
    used = dict(_elsewhere)
    for client in _open.values():
        used[client.endpoint.url] = used.get(client.endpoint.url, Counts()) + client.counts
    return used


def add_usage(more: Mapping[str, Counts]) -> None:
    """Add the use of servers by another process."""
    for url, counts in more.items():
        _elsewhere[url] = _elsewhere.get(url, Counts()) + counts


def print_usage() -> None:
    """Print, for each server, the requests and tokens of this stage."""
    for url, used in usage().items():
        cost = f", cost {used.cost:,.2f}" if used.cost else ""
        print(
            f"{url}: {used.requests:,} requests, {used.cached:,} answered from the cache, "
            f"{used.shared:,} by an equal one in flight, {used.retries:,} retries, {used.failures:,} failed, "
            f"{used.prompt_tokens:,} prompt and {used.completion_tokens:,} reply tokens{cost}"
        )


def write_server(folder: Path, settings: EndpointBase, root: Path, native: bool = False) -> None:
    """Write the folder of a model behind a server: which server that is, and the model's tokenizer.

    Its chat template is to be used for the model's own tool format if `native`.

    Raises `ModelError` when there is no such tokenizer, or its chat template cannot be used, and for a GGUF file that
    `gguf_files.converted` refuses.
    """
    from transformers import AutoTokenizer

    place = root / settings.tokenizer
    if is_gguf(place):
        source = str(converted(place, checksum(place).sha256, weights=False))
    else:
        source = str(place) if place.is_dir() else settings.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=settings.revision or "main")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"base_model.tokenizer {settings.tokenizer!r} is neither a folder with a tokenizer ({place}), a .gguf file "
            f"nor one of the hub that can be had here: {str(error).splitlines()[0]}"
        ) from None
    (NativeChat if native else Chat)(tokenizer)  # refuses an unusable template now, not in the middle of synthesis
    tokenizer.save_pretrained(folder)
    save_json({"context": settings.context, "server": settings.server.model_dump()}, folder / SERVER)
