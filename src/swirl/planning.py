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
from swirl.params import (
    AnnotatedReward,
    EmbeddedBase,
    EmbeddedReward,
    EndpointBase,
    EndpointReward,
    Params,
    Pretrained,
    Served,
    task_of,
)

CHARACTERS_A_TOKEN = 4
PROMPT_TOKENS = 150
"""Of a task's prompt and its question."""
_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
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
    """Actions that the policy is asked for, at most."""
    tokens: int | None = None
    """Tokens that the policy reads and writes for them, at most."""
    verdicts: int | None = None
    """Verdicts and grades that judges are asked for, at most."""
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
    head = ("stage", "actions", "tokens", "verdicts", "disk", "memory", "what it does")
    rows: list[tuple[str, ...]] = [head]
    for one in stages:
        disk = "" if one.disk_mb is None else f"{one.disk_mb:,.0f} MB"
        memory = "" if one.memory_gb is None else f"{one.memory_gb:,.1f} GB"
        counts = ("" if value is None else f"{value:,}" for value in (one.calls, one.tokens, one.verdicts))
        rows.append((one.stage, *counts, disk, memory, one.does))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 6)), row[6]]).rstrip()
        for row in rows
    ]
    note = (
        "Upper bounds: every trajectory takes all its steps and every action all its tokens. Tokens are the policy's. "
        "Memory is weights, gradients and optimiser; activations and key-value caches come on top. Blank: none, or not "
        "known yet."
    )
    return "\n".join([*lines, "", note])


def parameters(params: Params, root: Path, model: object) -> float | None:
    """Weights of a model: from its shape, the configuration in its folder, or the size in its name (`-27b`)."""
    if isinstance(model, EmbeddedReward | AnnotatedReward):
        model = params.base_model
    if isinstance(model, Pretrained):
        config = root / model.model / "config.json"
        if config.is_file():
            whole = json.loads(config.read_text(encoding="utf-8"))
            found = whole.get("text_config", whole)
            sizes = [
                found.get(f"{name}") for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
            ]
            return _of_shape(*map(int, sizes)) if None not in sizes else None
        named = re.search(r"(\d+(?:\.\d+)?)b(?![a-z])", model.model.lower())
        return float(named.group(1)) * 1e9 if named else None
    shape = getattr(model, "shape", None)
    if shape is None:
        return None
    return _of_shape(shape.hidden, shape.layers, shape.feed_forward, getattr(shape, "vocabulary", 2000))


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
        disk_mb=disk,
        memory_gb=_here(params, base, where),
    )
    yield Planned("check_trajectories", "gate")
    verdicts = _verdicts(params, calls)
    if verdicts is not None and params.judge.outcome == "model":
        verdicts += sum(count or 0 for count in questions(params, "train").values()) * params.synthesize.samples
    yield Planned(
        "judge",
        f"a verdict for every step, {_judged(params, tokens, calls)}",
        verdicts=verdicts,
        memory_gb=_weights(params, judge),
    )
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
            does = f"{train.sft.epochs} passes over the kept steps"
            yield Planned("train@sft", does, disk_mb=disk, memory_gb=memory)
        else:
            most = train.swirl.states + max(task.max_steps for task in params.tasks.values()) - 1  # whole trajectories
            actions = train.swirl.updates * most * train.swirl.samples
            does = f"{train.swirl.updates} updates of {train.swirl.states} states x {train.swirl.samples} actions"
            looks = 1 + -(-train.swirl.updates // train.swirl.check_every)
            seen, _ = _rollouts(params, "development", 1)
            verdicts = None if seen is None else _verdicts(params, actions + looks * seen)
            drawn = actions * params.rollout.max_action_tokens
            yield Planned("train@swirl", does, actions, drawn, verdicts, disk, memory)
    calls, tokens = _rollouts(params, "evaluation", 1)
    if params.evaluate.without_tools and calls is not None and tokens is not None:
        alone = sum(count or 0 for name, count in questions(params, "evaluation").items() if _searches(params, name))
        calls, tokens = calls + alone, tokens + alone * (PROMPT_TOKENS + params.rollout.max_action_tokens)
    for model in ("ceiling", "base", "sft", "swirl"):
        if model == "ceiling" and not isinstance(params.base_model, EmbeddedBase):
            yield Planned("evaluate@ceiling", "none: only models made here have a ceiling")
        elif model in ("sft", "swirl") and model not in train.methods:
            yield Planned(f"evaluate@{model}", "off (train.methods)")
        else:
            where = _where(params.evaluate.servers.get(model), params)
            here, verdicts = _here(params, base, where), _verdicts(params, calls)
            yield Planned(f"evaluate@{model}", f"all benchmarks, {where}", calls, tokens, verdicts, memory_gb=here)
    yield Planned("report", "tables, page, pictures")


def _verdicts(params: Params, steps: int | None) -> int | None:
    """What judging so many steps asks for: every vote, and all of them once more with `judge.retry_failed`."""
    if steps is None:
        return None
    writes = not packs(params)
    return steps * getattr(params.reward_model, "votes", 1) * (2 if writes and params.judge.retry_failed else 1)


def _judged(params: Params, tokens: int | None, calls: int | None) -> str:
    """Who judges the synthesised steps, and what that costs by the server's prices."""
    reward = params.reward_model
    if not isinstance(reward, EndpointReward):
        return "packed, here" if packs(params) else "rationales, here"
    where = f"by {reward.server.url}"
    asked = _verdicts(params, calls)
    if tokens is None or calls is None or asked is None:
        return where
    steps = max(task.max_steps for task in params.tasks.values())
    read = asked * JUDGE_PROMPT + asked // calls * tokens * (steps + 1) // 2
    server = reward.server
    cost = (read * server.cost_per_million_input + asked * reward.max_tokens * server.cost_per_million_output) / 1e6
    return f"{where}, {read:,} prompt tokens" + (f", at most {cost:,.2f} by its prices" if cost else "")


def _searches(params: Params, benchmark: str) -> bool:
    return "search" in params.tasks[task_of(benchmark, params.download.benchmarks[benchmark])].tools


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
        steps = params.tasks[task_of(name, params.download.benchmarks[name])].max_steps
        calls += count * samples * steps
        tokens += count * samples * (PROMPT_TOKENS + steps * (params.rollout.max_action_tokens + seen))
    return calls, tokens


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
