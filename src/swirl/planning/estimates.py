"""Estimates of a run before it starts: model calls, tokens and disk of each stage, from params and local files.

Counts are upper bounds: every trajectory takes all its steps, every action is as long as it may be. Sizes are
approximate. What cannot be known without the data or the network is NaN (`sizes.UNKNOWN`). No model is loaded and the
network is not used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.benchmarks.hub import HUB
from swirl.config.base_model import EmbeddedBase, EndpointBase, FineTuning, Pretrained
from swirl.config.params import Params, label_judge_section, reward_asks_judge, task_of
from swirl.config.reward_model import EndpointReward, FineTunedReward, NoReward, RewardModelSection
from swirl.config.served import Served, client_settings
from swirl.config.trajectories import Imported
from swirl.core.checkpoints import KEPT
from swirl.core.flights import amount
from swirl.core.splits import counts, files_of
from swirl.planning.columns import aligned
from swirl.planning.sizes import UNKNOWN, Size, size_of, width_of
from swirl.planning.workload import (
    CHARACTERS_A_TOKEN,
    PROMPT_TOKENS,
    Rollouts,
    expected_states,
    questions,
    rl_updates,
    rollouts,
    step_tokens,
)

BYTES_A_TOKEN = 16
"""On disk, of a token of a trajectory: its id, log-probability and text."""
BYTES_AN_ID = 4
JUDGE_PROMPT = 300
"""Tokens of a judge's instructions, in a request about a single step."""
BYTES_A_VERDICT = 100
"""On disk, without its rationale."""
BYTES_A_QUESTION = 1000
"""On disk, of a generated question and its share of the passages; a generous bound, as the default run has 74."""
HUB_WEIGHT = 2
"""Bytes per weight in the hub's files."""
CHECKPOINT = 12
"""Bytes in a checkpoint per trained weight: the weight and Adam's two moments in float32."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage of a run; a number is None where it does not apply, NaN where it is not known."""

    stage: str
    does: str
    calls: float | None = None
    """Upper bound on the actions of the policy."""
    tokens: float | None = None
    """Upper bound on the tokens that the policy reads and writes for these actions."""
    verdicts: float | None = None
    """Upper bound on the requests to judges for verdicts and grades, counting every vote and repetition."""
    disk: float | None = None
    """Bytes written, including the checkpoints that are there at once."""


def plan(params: Params, root: Path) -> list[Planned]:
    """The plan of every stage, in order. Raises `ModelError` for a model's folder whose configuration is broken."""
    base = size_of(params.base_model, params, root)
    judge = size_of(params.reward_model, params, root)
    data, models = _data(params, root), _models(params, root, base, judge)
    synthesis, training = _synthesis(params, root), _training(params, root, base)
    evaluation = _evaluation(params, root)
    return [*data, *models, *synthesis, *training, *evaluation, Planned("report", "tables, page, pictures")]


def text(stages: Sequence[Planned], needs: Sequence[str] = (), signal: Sequence[str] = ()) -> str:
    """The plan as a table, a note on its numbers, and the lines of `planning.keys` (`needs`) and `planning.signal`."""
    rows: list[tuple[str, ...]] = [("stage", "actions", "tokens", "verdicts", "disk")]
    for one in stages:
        counts = (_count(value) for value in (one.calls, one.tokens, one.verdicts))
        rows.append((one.stage, *counts, _bytes(one.disk)))
    does = ["what it does", *(one.does for one in stages)]
    lines = [f"{line}  {what}".rstrip() for line, what in zip(aligned(rows), does, strict=True)]
    note = (
        "Counts are upper bounds: every trajectory takes all its steps and every action all its tokens; tokens are the "
        "policy's. Kept states: as many as in the embedded default's run, in proportion; so are RL's updates where its "
        "length is in passes. Disk sizes are approximate, with the checkpoints that are there at once; copies in DVC's "
        "cache and in MLflow come on top. ?: not known without the data or the network. Blank: none."
    )
    needed = ["", "Needs:", *(f"  {line}" for line in needs)] if needs else []
    return "\n".join([*lines, "", note, *([""] if signal else []), *signal, *needed])


def _count(value: float | None) -> str:
    return "" if value is None else "?" if math.isnan(value) else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    return _count(value) if value is None or math.isnan(value) else amount(value)


def _data(params: Params, root: Path) -> Iterator[Planned]:
    sources = ", ".join(f"{name} ({one.source})" for name, one in params.download.benchmarks.items())
    yield Planned("download", sources, disk=sum(_data_bytes(params, root)))
    yield Planned("check_questions", "gate")
    yield Planned("index", f"{params.index.retriever} index of every corpus", disk=UNKNOWN)


def _data_bytes(params: Params, root: Path) -> Iterator[float]:
    """Bytes stored of each benchmark: about the size of its files, and twice that when they are downloaded, too."""
    folder = root / params.download.folder
    try:
        locked: dict[str, Any] = json.loads((folder / "hub.lock.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # `download` reports what is wrong with it
        locked = {}
    for name, one in params.download.benchmarks.items():
        if one.source == "embedded":
            yield sum(int(count) for count in counts(one).values()) * BYTES_A_QUESTION
        elif one.source == "hub":
            known = HUB.get(name, {})
            parts = {part for split in counts(one) for part in known.get(split, known.get("train", ()))}
            files = [locked.get(part.place, {}).get("files", {}).get(part.name, {}) for part in parts]
            yield 2 * sum(float(file.get("bytes", UNKNOWN)) for file in files) if files else UNKNOWN
        else:
            given = (*files_of(one).values(), *([one.corpus] if one.corpus else []), *(one.logs or ()))
            paths = {folder / path for path in given}
            yield sum(_bytes_of(path) for path in paths)


def _bytes_of(path: Path) -> float:
    if path.is_dir():
        return float(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()))
    return float(path.stat().st_size) if path.is_file() else UNKNOWN


def _models(params: Params, root: Path, base: Size, judge: Size) -> Iterator[Planned]:
    for stage, model, size in (
        ("base_model", params.base_model, base),
        ("reward_model", params.reward_model, judge),
    ):
        known = "" if math.isnan(size.parameters) else f", about {_short(size.parameters)} parameters"
        if isinstance(model, NoReward):
            yield Planned(stage, "none: judge.rewards are all of the reward")
        elif isinstance(model, EndpointBase | EndpointReward):
            yield Planned(stage, f"writes down the server {model.server.url}, model {model.server.model}")
        elif isinstance(model, FineTuning):
            sampled = model.samples if isinstance(model, FineTunedReward) else 0
            split, what = ("reward", "to judge the base's steps") if sampled else ("pretrain", "by demonstrations")
            shown = rollouts(params, root, split, model.epochs * (sampled or 1))
            if isinstance(model, FineTunedReward):
                shown += rollouts(params, root, "pretrain", model.epochs * sampled, model.pretrain)
            does = f"teaches {model.model}{known} {what}: {shown.trajectories:,.0f} conversations, passes counted"
            trained = size.adapter(model.lora.rank, model.lora.targets) if model.lora else size.parameters
            written = size.parameters * width_of(params) + (KEPT + 1) * trained * CHECKPOINT
            yield Planned(stage, does, tokens=shown.tokens, disk=written)
        elif isinstance(model, Pretrained):
            shared = stage == "reward_model" and model.model == getattr(params.base_model, "model", "")
            here = (root / Path(model.model).expanduser()).is_dir()
            disk = None if shared or here else size.parameters * HUB_WEIGHT
            yield Planned(stage, f"points to {model.model}{known}", disk=disk)
        else:
            copies = 2 if isinstance(model, EmbeddedBase) else 1  # the ceiling, too
            does = f"made here ({model.source}){known}"
            yield Planned(stage, does, disk=size.parameters * 4 * copies)


def _synthesis(params: Params, root: Path) -> Iterator[Planned]:
    made = rollouts(params, root, "train", params.synthesize.samples)
    where = _where(params.synthesize.server, params)
    imports = isinstance(params.synthesize, Imported)
    yield Planned(
        "synthesize",
        "takes the logged conversations"
        if imports
        else f"{params.synthesize.samples} trajectories a question, {where}",
        made.calls,
        made.tokens,
        disk=made.tokens * BYTES_A_TOKEN,
    )
    yield Planned("check_trajectories", "gate")
    verdicts = made.calls * _asks_for_reward(params) + made.trajectories * _grades(params)
    yield Planned(
        "judge",
        f"a verdict for every step, {_judged(params, made)}",
        verdicts=verdicts,
        disk=max(verdicts, made.calls) * BYTES_A_VERDICT + _rationales(params.reward_model, verdicts, 1),
    )
    yield Planned("filter", f"keeps what passes {params.filter.strategy}", disk=made.states * BYTES_AN_ID)
    yield Planned("check_steps", "gate")


def _training(params: Params, root: Path, base: Size) -> Iterator[Planned]:
    train = params.train
    synthesised = rollouts(params, root, "train", params.synthesize.samples)
    look = rollouts(params, root, "development", 1)
    trained = base.parameters if train.lora is None else base.adapter(train.lora.rank, train.lora.targets)
    saved = trained * width_of(params)
    for method in ("sft", "swirl"):
        if method not in train.methods:
            yield Planned(f"train@{method}", "off (train.methods)")
            continue
        if method == "sft":
            looks, actions = float(train.sft.epochs), 0.0
            read = train.sft.epochs * (synthesised.tokens if train.packed else synthesised.states)
            does = f"{train.sft.epochs} passes over the kept steps"
        else:
            longest = rl_updates(params, synthesised.calls)
            looks = 1 + -(-longest // train.swirl.check_every)
            # An update takes whole trajectories, so it may have more than `states` states.
            most = train.swirl.states + max(task.max_steps for task in params.tasks.values()) - 1
            actions = longest * most * train.swirl.samples
            read = longest * most * (PROMPT_TOKENS + step_tokens(params))
            read += actions * params.rollout.max_action_tokens
            does = _visits(params, expected_states(params, synthesised), longest)
        watched = look.times(looks)
        verdicts = (actions + watched.calls) * _asks_for_reward(params)
        yield Planned(
            f"train@{method}",
            f"{does}; looks at development questions: {_count(looks)}",
            actions + watched.calls,
            read + watched.tokens,
            verdicts,
            saved + (2 * KEPT + 1) * trained * CHECKPOINT + _rationales(params.reward_model, verdicts, 0),
        )


def _visits(params: Params, kept: float, longest: float) -> str:
    """RL's length for an expected number of kept states, and what share of them it visits."""
    swirl, about = params.train.swirl, rl_updates(params, kept)
    most = "" if swirl.passes is None else f" (at most {_count(longest)})"
    words = f"{_count(about)} updates{most} of {swirl.states} states x {swirl.samples} actions"
    if not kept > 0:  # unknown, or nothing is synthesised
        return words
    passes = about * swirl.states / kept
    share = f"{passes:.0%}" if passes < 1 else f"{passes:.1f} passes over all"
    return f"{words}, {share} of about {_count(kept)} kept states"


def _evaluation(params: Params, root: Path) -> Iterator[Planned]:
    samples, labels = params.evaluate.samples, label_judge_section(params)
    made = rollouts(params, root, "evaluation", samples)
    if params.evaluate.without_tools:
        action = params.rollout.max_action_tokens
        alone = Rollouts(1, 1, PROMPT_TOKENS + action, PROMPT_TOKENS + action)
        searched = (n for name, n in questions(params, root, "evaluation").items() if _searches(params, name))
        made += alone.times(samples * sum(searched))
    verdicts = made.calls * _asks(labels, params) + made.trajectories * _grades(params)
    kept = verdicts if params.evaluate.judge == "none" else max(verdicts, made.calls)
    disk = made.tokens * BYTES_A_TOKEN + kept * BYTES_A_VERDICT + _rationales(labels, verdicts, 1)
    for model in ("ceiling", "base", "sft", "swirl"):
        if model == "ceiling" and not isinstance(params.base_model, EmbeddedBase):
            yield Planned("evaluate@ceiling", "none: only models made here have a ceiling")
        elif model in ("sft", "swirl") and model not in params.train.methods:
            yield Planned(f"evaluate@{model}", "off (train.methods)")
        else:
            where = _where(params.evaluate.servers.get(model), params)
            yield Planned(f"evaluate@{model}", f"all benchmarks, {where}", made.calls, made.tokens, verdicts, disk)


def _asks(judge: RewardModelSection | None, params: Params) -> int:
    """Upper bound on requests per verdict: one per vote, and all of them once more with `judge.retry_failed`."""
    if judge is None:
        return 0
    again = not packs(judge) and params.judge.retry_failed
    return int(getattr(judge, "votes", 1)) * (2 if again else 1)


def _asks_for_reward(params: Params) -> int:
    """As `_asks`, of the reward model; 0 where it is no part of the reward."""
    return _asks(params.reward_model, params) if reward_asks_judge(params) else 0


def _grades(params: Params) -> int:
    """Upper bound on requests per graded answer; 0 where no model grades."""
    if params.judge.outcome != "model":
        return 0
    return (2 if params.judge.retry_failed else 1) if params.judge.grader else _asks(params.reward_model, params)


def _judged(params: Params, made: Rollouts) -> str:
    """Who judges the synthesised steps, and what that costs by the server's prices."""
    reward = params.reward_model
    if not reward_asks_judge(params):
        return "by judge.rewards alone"
    if not isinstance(reward, EndpointReward):
        return "packed, here" if packs(params.reward_model) else "rationales, here"
    server, asked = reward.server, made.calls * _asks(params.reward_model, params)
    read = asked * JUDGE_PROMPT + _asks(params.reward_model, params) * made.states
    if math.isnan(read):
        return f"by {server.url}"
    prices = client_settings(params.clients, server)
    cost = (read * prices.cost_per_million_input + asked * reward.max_tokens * prices.cost_per_million_output) / 1e6
    return f"by {server.url}, {read:,.0f} prompt tokens" + (f", at most {cost:,.2f} by its prices" if cost else "")


def _rationales(judge: RewardModelSection | None, verdicts: float, stored: int) -> float:
    """Bytes of the judges' rationales: `stored` times in an output, and once in .swirl/answers if a server wrote it."""
    if judge is None or packs(judge):
        return 0.0
    kept = stored + isinstance(judge, EndpointReward)
    return verdicts * kept * int(getattr(judge, "max_tokens", 0)) * CHARACTERS_A_TOKEN


def _searches(params: Params, benchmark: str) -> bool:
    if params.download.benchmarks[benchmark].source == "logs":
        return False
    return "search" in params.tasks[task_of(benchmark, params.download.benchmarks[benchmark])].tools


def packs(judge: RewardModelSection) -> bool:
    """Whether a verdict is read from one token of the judge, for all steps of a trajectory in one forward pass."""
    return getattr(judge, "verdict", "token") == "token" and not isinstance(judge, EndpointReward)


def _where(server: Served | None, params: Params) -> str:
    if server is None and isinstance(params.base_model, EndpointBase):
        server = params.base_model.server
    return f"by {server.url}" if server else f"on {params.runtime.device}"


def _short(size: float) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:,.0f}"
