"""External needs of a run: servers, the hub, and environment variables that hold keys. Sends no request.

Also which stages have such needs, so that a flow tries them again after a failure.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.hub import HUB
from swirl.config.base_model import EndpointBase, Weights
from swirl.config.params import Params, evaluated, label_judge_section, reward_asks_judge
from swirl.config.reward_model import EndpointReward, FineTunedReward
from swirl.config.served import Served
from swirl.core.errors import ModelError
from swirl.models.gguf_files import is_gguf
from swirl.wiring.logged_questions import experiments_of


@dataclass(frozen=True, slots=True)
class Need:
    """A server, and the stages that send requests to it."""

    server: Served
    stages: tuple[str, ...]
    """By their DVC names, in the pipeline's order."""

    @property
    def lacks_key(self) -> bool:
        """Whether the environment does not hold the key that the server needs."""
        return bool(self.server.key_env) and not os.environ.get(self.server.key_env, "").strip()


def servers(params: Params) -> list[Need]:
    """The servers of a run in the order in which they are first used, each model at each address once."""
    stages: dict[tuple[str, str, str], tuple[Served, list[str]]] = {}
    for stage, server in _asked(params):
        found = stages.setdefault((server.url, server.model, server.key_env), (server, []))[1]
        found += [] if stage in found else [stage]
    return [Need(server, tuple(names)) for server, names in stages.values()]


def asks_network(stage: str, params: Params, root: Path) -> bool:
    """Whether a stage, by its DVC name, asks a server or may fetch files; the others only compute."""
    if stage == "download":
        remote = any(one.source == "hub" for one in params.download.benchmarks.values())
        return remote or bool(experiments_of(params.download, root / params.download.folder))
    return any(stage == name for name, _ in (*_asked(params), *_fetched(params, root)))


def _asked(params: Params) -> Iterator[tuple[str, Served]]:
    """(stage, server) for each server that a stage sends requests to, in the pipeline's order."""
    base, reward = params.base_model, params.reward_model
    policy = base.server if isinstance(base, EndpointBase) else None
    writer = reward.server if isinstance(reward, EndpointReward) else None
    judge = writer if reward_asks_judge(params) else None
    labels = label_judge_section(params)
    labelling = labels.server if isinstance(labels, EndpointReward) else None
    grader = (params.judge.grader or writer) if params.judge.outcome == "model" else None
    sampled = policy if isinstance(reward, FineTunedReward) else None
    wanted: list[tuple[str, Served | None]] = [("reward_model", sampled)]
    wanted += [("synthesize", params.synthesize.server or policy), ("judge", judge), ("judge", grader)]
    wanted += [(f"train@{method}", judge) for method in ("sft", "swirl") if method in params.train.methods]
    for model in sorted(evaluated(params), key=("ceiling", "base", "sft", "swirl").index):
        own = next((server for name, server in params.evaluate.servers.items() if name == model), None)
        wanted += [
            (f"evaluate@{model}", server)
            for server in (own or (policy if model == "base" else None), labelling, grader)
        ]
    yield from ((stage, server) for stage, server in wanted if server is not None)


def lines(params: Params, root: Path, stages: Collection[str]) -> list[str]:
    """A line for each server and address that one of `stages` uses; it says whether the key is set, never the key."""
    said = []
    for need in servers(params):
        if asking := [stage for stage in need.stages if stage in stages]:
            name, state = need.server.key_env, "not set" if need.lacks_key else "set"
            key = f"its key ${name} is {state}" if name else "no key"
            said.append(f"{need.server.url}, model {need.server.model}: asked by {', '.join(asking)}; {key}")
    data = [part for name, one in params.download.benchmarks.items() if one.source == "hub" for part in _remote(name)]
    wanted = [("download", place) for place, page in data if not page] + [*_fetched(params, root)]
    if names := dict.fromkeys(name for stage, name in wanted if stage in stages):
        state = "set" if os.environ.get("HF_TOKEN", "").strip() else "not set"
        said.append(
            f"the Hugging Face hub: {', '.join(names)}; $HF_TOKEN is {state} (gated models want it, or `hf auth login`)"
        )
    pages = dict.fromkeys(place for place, page in data if page)
    return said + [f"{page}: asked by download; no key" for page in pages if "download" in stages]


def _remote(benchmark: str) -> Iterator[tuple[str, bool]]:
    """(place, whether it is a plain web page) of each part of the benchmark's files."""
    for parts in HUB.get(benchmark, {}).values():
        yield from ((part.place, part.is_page) for part in parts)


def _fetched(params: Params, root: Path) -> Iterator[tuple[str, str]]:
    """(stage, hub id) of every model or tokenizer that comes from the hub."""
    yield from ((stage, model) for stage, model in _models(params) if not _is_local(root / Path(model).expanduser()))


def _models(params: Params) -> Iterator[tuple[str, str]]:
    """(stage, hub id, folder or file) of every model or tokenizer that was made elsewhere."""
    if params.index.embedding_model and params.index.retriever != "bm25":
        yield "index", params.index.embedding_model
    for stage, model in (("base_model", params.base_model), ("reward_model", params.reward_model)):
        if isinstance(model, Weights):
            yield stage, model.model
        elif isinstance(model, EndpointBase):
            yield stage, model.tokenizer
    if isinstance(params.evaluate.judge, Weights):
        yield from ((f"evaluate@{model}", params.evaluate.judge.model) for model in evaluated(params))


def _is_local(path: Path) -> bool:
    return path.is_dir() or is_gguf(path)


def check_keys(params: Params) -> None:
    """Raise `ModelError` naming every key that a server of this run needs and the environment does not hold."""
    lacking = [need for need in servers(params) if need.lacks_key]
    if lacking:
        told = [f"${one.server.key_env} for {one.server.url} ({', '.join(one.stages)})" for one in lacking]
        raise ModelError(
            f"nothing is synthesised before the whole run has its keys; not set in the environment: {'; '.join(told)}"
        )
