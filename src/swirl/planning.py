"""What a run would do, before it does it: model calls, tokens, disk and memory, stage by stage, from params alone.

Numbers are upper bounds: every trajectory takes all its steps, every action is as long as it may be. No model is
loaded and nothing is asked over the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swirl.benchmarks.official import OFFICIAL
from swirl.params import AnnotatedReward, EmbeddedReward, EndpointBase, EndpointReward, Params, Pretrained, Served

CHARACTERS_A_TOKEN = 4
PROMPT_TOKENS = 150
"""Of a task's prompt and its question."""
BYTES_A_TOKEN = 16
"""On disk: an id, a log-probability, its text."""
JUDGE_PROMPT = 300
"""Tokens of a judge's instructions in a request of its own."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage of a run; None where a number makes no sense or is not known."""

    stage: str
    does: str
    calls: int | None = None
    """Actions or verdicts that models are asked for, at most."""
    tokens: int | None = None
    """Tokens that models read and write, at most."""
    disk_mb: float | None = None
    memory_gb: float | None = None
    """Of weights, gradients and optimiser; activations and caches come on top."""


def plan(params: Params, root: Path) -> list[Planned]:
    """Every stage in order. Raises nothing: what cannot be known without the data is None."""
    base = parameters(params, root, params.base_model)
    judge = parameters(params, root, params.reward_model)
    return [*_data(params), *_models(params, base, judge), *_synthesis(params, base, judge), *_learning(params, base)]


def text(stages: list[Planned]) -> str:
    """A table, and what its numbers are."""
    head = ("stage", "model calls", "tokens", "disk", "memory", "what it does")
    rows = [head]
    for one in stages:
        disk = "" if one.disk_mb is None else f"{one.disk_mb:,.0f} MB"
        memory = "" if one.memory_gb is None else f"{one.memory_gb:,.1f} GB"
        calls, tokens = ("" if value is None else f"{value:,}" for value in (one.calls, one.tokens))
        rows.append((one.stage, calls, tokens, disk, memory, one.does))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]]).rstrip()
        for row in rows
    ]
    note = (
        "Upper bounds: every trajectory takes all its steps and every action all its tokens. Memory is weights, "
        "gradients and optimiser; activations and key-value caches come on top. Blank: none, or not known yet."
    )
    return "\n".join([*lines, "", note])


def parameters(params: Params, root: Path, model: object) -> float | None:
    """Weights of a model: from its shape, the configuration in its folder, or the size in its name (`-27b`)."""
    if isinstance(model, EmbeddedReward | AnnotatedReward):
        model = params.base_model
    if isinstance(model, Pretrained):
        config = root / model.model / "config.json"
        if config.is_file():
            found = json.loads(config.read_text(encoding="utf-8"))
            return _of_shape(
                int(found["hidden_size"]),
                int(found["num_hidden_layers"]),
                int(found["intermediate_size"]),
                int(found["vocab_size"]),
            )
        named = re.search(r"(\d+(?:\.\d+)?)b(?![a-z])", model.model.lower())
        return float(named.group(1)) * 1e9 if named else None
    shape = getattr(model, "shape", None)
    return (
        _of_shape(shape.hidden, shape.layers, shape.feed_forward, getattr(shape, "vocabulary", 2000)) if shape else None
    )


def _of_shape(hidden: int, layers: int, feed_forward: int, vocabulary: int) -> float:
    return layers * (4.0 * hidden**2 + 3.0 * hidden * feed_forward) + hidden * vocabulary


def questions(params: Params, split: str) -> dict[str, int | None]:
    """Benchmark -> questions of a split; None for `all` of a file whose size is not known."""
    counts: dict[str, int | None] = {}
    for name, benchmark in params.download.benchmarks.items():
        asked = benchmark.counts.get(split, 0)
        if asked == "all":
            official = OFFICIAL[name].counts if name in OFFICIAL else {}
            kinds = ("test", "dev", "validation") if split == "evaluation" else ("train",)
            counts[name] = next((official[kind] for kind in kinds if kind in official), None)
        elif asked:
            counts[name] = asked
    return counts


def _data(params: Params) -> Iterator[Planned]:
    sources = ", ".join(f"{name} ({one.source})" for name, one in params.download.benchmarks.items())
    yield Planned("download", sources)
    yield Planned("check_questions", "gate")
    yield Planned("index", f"{params.index.retriever} index of every corpus")


def _models(params: Params, base: float | None, judge: float | None) -> Iterator[Planned]:
    for stage, model, size in (
        ("base_model", params.base_model, base),
        ("reward_model", params.reward_model, judge),
    ):
        known = "" if size is None else f", about {_short(size)} parameters"
        if isinstance(model, EndpointBase | EndpointReward):
            yield Planned(stage, f"writes down the server {model.server.url}, model {model.server.model}")
        elif isinstance(model, Pretrained):
            yield Planned(stage, f"points to {model.model}{known}")
        else:
            yield Planned(stage, f"made here ({model.source}){known}", memory_gb=None if size is None else size * 16e-9)


def _synthesis(params: Params, base: float | None, judge: float | None) -> Iterator[Planned]:
    calls, tokens = _rollouts(params, "train", params.synthesize.samples)
    where = _where(params.synthesize.server, params)
    disk = None if tokens is None else tokens * BYTES_A_TOKEN / 1e6
    yield Planned(
        "synthesize",
        f"{params.synthesize.samples} trajectories a question, {where}",
        calls,
        tokens,
        disk,
        _here(params, base, where),
    )
    yield Planned("check_trajectories", "gate")
    reward = params.reward_model
    votes = getattr(reward, "votes", 1)
    judged = None if calls is None else calls * votes
    read = tokens
    if tokens is not None and calls is not None and not packs(params):
        steps = max(task.max_steps for task in params.tasks.values())
        read = votes * (tokens * (steps + 1) // 2 + calls * (JUDGE_PROMPT + getattr(reward, "max_tokens", 0)))
    server = getattr(reward, "server", None)
    price = ""
    if server is not None and judged is not None and read is not None:
        out = judged * reward.max_tokens  # type: ignore[union-attr]
        cost = ((read - out) * server.cost_per_million_input + out * server.cost_per_million_output) / 1e6
        price = f", at most {cost:,.2f} by the server's prices" if cost else ""
    where = f"by {server.url}" if server else "packed, here" if packs(params) else "rationales, here"
    yield Planned("judge", f"a verdict for every step, {where}{price}", judged, read, None, _weights(params, judge))
    yield Planned("filter", f"keeps what passes {params.filter.strategy}")
    yield Planned("check_steps", "gate")


def _learning(params: Params, base: float | None) -> Iterator[Planned]:
    train = params.train
    for method in ("sft", "swirl"):
        if method not in train.methods:
            yield Planned(f"train@{method}", "off (train.methods)")
            continue
        memory = None if base is None else base * _bytes_trained(params) * 1e-9
        disk = None if base is None else (base * 4e-6 if train.lora is None else base * 0.02e-6)
        if method == "sft":
            yield Planned("train@sft", f"{train.sft.epochs} passes over the kept steps", None, None, disk, memory)
        else:
            actions = train.swirl.updates * train.swirl.states * train.swirl.samples
            does = f"{train.swirl.updates} updates of {train.swirl.states} states x {train.swirl.samples} actions"
            drawn = actions * params.rollout.max_action_tokens
            yield Planned("train@swirl", does, actions, drawn, disk, memory)
    calls, tokens = _rollouts(params, "evaluation", 1)
    for model in ("ceiling", "base", "sft", "swirl"):
        if model == "ceiling" and isinstance(params.base_model, Pretrained | EndpointBase):
            yield Planned("evaluate@ceiling", "none: only models made here have a ceiling")
        elif model in ("sft", "swirl") and model not in train.methods:
            yield Planned(f"evaluate@{model}", "off (train.methods)")
        else:
            where = _where(params.evaluate.servers.get(model), params)
            yield Planned(
                f"evaluate@{model}", f"all benchmarks, {where}", calls, tokens, None, _here(params, base, where)
            )
    yield Planned("report", "tables, page, pictures")


def packs(params: Params) -> bool:
    """Whether the judge reads a verdict from one token, all steps of a trajectory in one forward."""
    return getattr(params.reward_model, "verdict", "token") == "token" and not isinstance(
        params.reward_model, EndpointReward
    )


def _rollouts(params: Params, split: str, samples: int) -> tuple[int | None, int | None]:
    """(actions, tokens read and written) of all trajectories of a split, each token read once."""
    calls = tokens = 0
    seen = params.tools.search_output_limit // CHARACTERS_A_TOKEN
    for name, count in questions(params, split).items():
        if count is None:
            return None, None
        steps = params.tasks[task_of(params, name)].max_steps
        calls += count * samples * steps
        tokens += count * samples * (PROMPT_TOKENS + steps * (params.rollout.max_action_tokens + seen))
    return calls, tokens


def task_of(params: Params, benchmark: str) -> str:
    """The task of a benchmark's questions."""
    own = params.download.benchmarks[benchmark].task
    return own or ("calculate" if benchmark.endswith("gsm8k") else "search")


def _where(server: Served | None, params: Params) -> str:
    if server is None and isinstance(params.base_model, EndpointBase):
        server = params.base_model.server
    return f"by {server.url}" if server else f"on {params.runtime.device}"


def _here(params: Params, size: float | None, where: str) -> float | None:
    return None if where.startswith("by ") else _weights(params, size)


def _weights(params: Params, size: float | None) -> float | None:
    return None if size is None else size * (2e-9 if params.runtime.dtype == "bfloat16" else 4e-9)


def _bytes_trained(params: Params) -> float:
    """Bytes a parameter in training: weights, gradients and Adam's two moments, and the reference's weights."""
    half = params.runtime.dtype == "bfloat16"
    if params.train.lora is not None:
        return 2.2 if half else 4.4  # the adapter's share is small, and the reference is the adapter switched off
    return 2 + 4 + 2 + 8 + 2 if half else 4 + 4 + 8 + 4


def _short(size: float) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:,.0f}"
