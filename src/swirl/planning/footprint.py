"""What a stage holds in memory at most: on the device of its models, and beside them in the host's memory.

It is what the settings allow: flights that are full of conversations as long as the context, and forward passes as
large as the token budgets. Flights are made smaller where a device has less (`swirl.core.flights`), the rest is not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from swirl.comb.logprobs import LOGITS_AT_ONCE
from swirl.config.base_model import AnnotatedBase, EmbeddedBase, EndpointBase, FineTuning
from swirl.config.params import Params, evaluated, grades_here, judged_here, label_judge_section, reward_asks_judge
from swirl.config.reward_model import (
    AnnotatedReward,
    EmbeddedReward,
    EndpointReward,
    FineTunedReward,
    RewardModelSection,
)
from swirl.config.train import Lora
from swirl.config.trajectories import Imported
from swirl.core.flights import SHARE, amount
from swirl.core.parquet import ROWS_PER_GROUP
from swirl.core.row_groups import KEPT
from swirl.judging.reward import JUDGED_AT_ONCE
from swirl.models.room import flight_bytes, samples_bytes
from swirl.models.shapes import Shape
from swirl.planning.columns import aligned
from swirl.planning.sizes import UNKNOWN, Size, size_of, width_of
from swirl.planning.workload import (
    PROMPT_TOKENS,
    STEPS_TAKEN,
    kept_trajectories,
    questions,
    rollouts,
    step_tokens,
)
from swirl.rl.trainer import SAMPLED_AT_ONCE
from swirl.rollout.engine import READ_AT_ONCE

PROCESS = 0.5e9
"""Bytes of a stage's process with its libraries, before it loads a model or a table."""
TOKEN = 48
"""Bytes of a token of a trajectory or a state in the row groups that are in memory, columns or records."""
INDEX = 400
"""Bytes that stages keep of each step of a table, whatever its size: who it is, its verdict, what a gate found."""
ACTIONS = 0.5
"""The share of actions among the tokens that an update learns from; the others are states."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that a stage holds at most; the device's are its weights, what training adds, and the largest of the rest.

    On a CPU, the device's and the host's are one memory.
    """

    weights: float = 0
    """Of the policy, its reference and the judge."""
    training: float = 0
    """Masters, summed gradients and the optimiser's moments."""
    flight: float = 0
    """Conversations in flight: keys, values, and a forward pass."""
    sampling: float = 0
    """Trunks and actions of an update: keys, values, and a forward pass."""
    learning: float = 0
    """Activations that wait for the backward pass, logits, and the gradients of each worker."""
    judging: float = 0
    """A forward pass of the judge."""
    gathered: float = 0
    """All weights, while a model that is dealt out over processes draws."""
    host: float = PROCESS
    """The process, the row groups of tables that are in memory, and an index of all their rows."""
    processes: int = 1
    """Processes that hold as much each and share one memory, as on a CPU."""

    @property
    def fixed(self) -> float:
        """What no smaller flight changes: all but conversations in flight and the samples of an update."""
        return self.weights + self.training + max(self.learning, self.judging, self.gathered)

    @property
    def device(self) -> float:
        """All that a process holds on the device of the models."""
        drawing = self.gathered + max(self.flight, self.sampling)
        return self.weights + self.training + max(drawing, self.learning, self.judging)


class Memory:
    """What the stages of a run with these settings hold; NaN where the model's shape or context is not known."""

    def __init__(self, params: Params, root: Path, size: Size | None = None) -> None:
        """Plan with a base and a judge of this size; None: of those that params name."""
        self._params, self._root = params, root
        self._base = size or size_of(params.base_model, params, root)
        self._judge = size or size_of(params.reward_model, params, root)
        self._width = width_of(params)
        made = getattr(params.base_model, "shape", None)
        self._context = params.runtime.context or getattr(made, "context", 0)

    def stages(self) -> dict[str, Held]:
        """What each stage that loads a model or all of a large table holds, by its name in `swirl plan`."""
        params = self._params
        made = rollouts(params, self._root, "train", params.synthesize.samples)
        steps = made.calls * STEPS_TAKEN
        kept = kept_trajectories(params, made.trajectories) / made.trajectories if made.trajectories else 0.0
        tables = PROCESS + steps * INDEX + _read(made.trajectories, KEPT) * made.tokens * STEPS_TAKEN * TOKEN
        cut_states = made.states * STEPS_TAKEN**2 * TOKEN
        states = PROCESS + steps * kept * INDEX + _read(steps * kept, KEPT) * kept * cut_states
        cut = tables + _read(made.trajectories, 1) * cut_states
        local = params.synthesize.server is None and not isinstance(params.synthesize, Imported)
        found = {
            "base_model": self._made(params.base_model, self._base),
            "reward_model": self._made(params.reward_model, self._judge),
            "synthesize": self._rolled(params.rollout.block_size, local, tables),
            "check_trajectories": Held(host=tables),
            "judge": self._judged(params.reward_model if judged_here(params, "judge") else None, self._judge, tables),
            "filter": Held(host=cut),
            "train@sft": self._trained("sft", states),
            "train@swirl": self._trained("swirl", states),
        }
        asked = sum(questions(params, self._root, "evaluation").values()) * params.evaluate.samples
        share = params.evaluate.block_size or asked / params.runtime.workers
        judge, grader = label_judge_section(params), params.reward_model if grades_here(params) else None
        asks = [one for one in (judge, None if grader is judge else grader) if one]
        labels = [self._judged(one, size_of(one, params, self._root), 0) for one in asks]
        for name in evaluated(params):
            here = self._rolled(share, params.evaluate.servers.get(name) is None, PROCESS + 2 * asked * 1e4)
            found[f"evaluate@{name}"] = Held(
                here.weights + sum(one.weights for one in labels),
                flight=here.flight,
                judging=max((one.judging for one in labels), default=0),
                host=here.host,
            )
        return found

    def flight(self, number: float) -> float:
        """Bytes of so many conversations in flight on each worker."""
        shape = self._base.shape
        if shape is None or not self._context:
            return UNKNOWN
        return self._params.runtime.workers * flight_bytes(shape, number, self._context, self._width, READ_AT_ONCE)

    def fitting(self, held: Held, free: float) -> int:
        """How many of `rollout.in_flight` conversations fit into `free` bytes of the device, by halving; 0: none."""
        number, fixed = self._params.rollout.in_flight, held.weights + held.training + held.gathered
        while number and held.processes * (fixed + self.flight(number)) > SHARE * free:
            number //= 2
        return number

    def longest(self) -> tuple[int, float]:
        """Tokens that one state and all actions drawn in it have at most, and the bytes that they need beyond `Held`.

        They are read in one forward pass, even if they have more tokens than `train.token_budget`, for which `Held` has
        room.
        """
        params = self._params
        steps = max(task.max_steps for task in params.tasks.values())
        actions = params.train.swirl.samples + (1 if params.train.swirl.imitation else 0)
        drawn = actions * params.rollout.max_action_tokens
        trunk = min(self._context or math.inf, PROMPT_TOKENS + steps * step_tokens(params))
        tokens = int(trunk + drawn if params.train.packed else trunk + params.rollout.max_action_tokens)
        return tokens, self._learned(tokens) - self._learned(params.train.token_budget)

    def _learned(self, tokens: float) -> float:
        return _learned(self._base.shape, tokens, self._width, self._params.train.gradient_checkpointing)

    def _rolled(self, most: float, local: bool, host: float) -> Held:
        params = self._params
        if not local or isinstance(params.base_model, EndpointBase):
            return Held(host=host)
        flight = self.flight(UNKNOWN if math.isnan(most) else min(params.rollout.in_flight, most))
        return Held(self._base.parameters * self._width, flight=flight, host=host)

    def _judged(self, judge: RewardModelSection | None, size: Size, host: float, at_once: int = JUDGED_AT_ONCE) -> Held:
        """What a judge that reads so many tokens at once holds; for one elsewhere, or not asked, only the `host`."""
        if judge is None or isinstance(judge, EndpointReward):
            return Held(host=host)
        read = size.shape.read(at_once, self._width) if size.shape else UNKNOWN
        return Held(size.parameters * self._width, judging=self._params.runtime.workers * read, host=host)

    def _trained(self, method: str, host: float) -> Held:
        params, width, train = self._params, self._width, self._params.train
        if method not in train.methods or isinstance(params.base_model, EndpointBase):
            return Held(host=0)
        base, workers = self._base, params.runtime.workers
        trained = base.parameters if train.lora is None else base.adapter(train.lora.rank, train.lora.targets)
        copies = 2 if method == "swirl" and train.lora is None else 1
        asked = params.reward_model if reward_asks_judge(params) else None
        judge = self._judged(asked, self._judge, 0, train.token_budget)
        count = params.runtime.processes
        looked = sum(questions(params, self._root, "development").values()) / workers / count
        at_once, longest = SAMPLED_AT_ONCE * train.token_budget, params.rollout.max_action_tokens
        sampling = samples_bytes(base.shape, at_once, longest, width) if base.shape else UNKNOWN
        held = Held(
            weights=copies * base.parameters * width,
            training=trained * ((4 if width == 2 else 0) + 4 + 8),
            flight=self._rolled(looked, True, 0).flight if looked else 0.0,
            sampling=workers * sampling if method == "swirl" else 0.0,
            learning=workers * (self._learned(train.token_budget) + width * trained),
            judging=judge.judging,
            host=host,
            processes=count if params.runtime.device == "cpu" else 1,
        )
        if params.runtime.sharding == "full":
            held = self._dealt_out(held, trained, count)
        return replace(held, weights=held.weights + judge.weights)

    def _dealt_out(self, held: Held, trained: float, count: int) -> Held:
        """What each of `count` processes holds of a policy and reference that are dealt out over them.

        What trains is its own master, in float32; all weights are gathered to draw, those of two layers and of the
        embeddings to learn, where each layer's gradient is summed on its way to the parts.
        """
        base, width = self._base, self._width
        whole = base.parameters * width
        layers = base.shape.layers if base.shape else UNKNOWN
        embedded = base.shape.hidden * base.shape.vocabulary * (1 if base.shape.tied else 2) if base.shape else UNKNOWN
        gathered = embedded * width + 2 * (base.parameters - embedded) / layers * width
        masters = whole if self._params.train.lora is None else 0.0  # the policy's weights are in what trains
        return replace(
            held,
            weights=(held.weights - masters) / count,
            training=trained * (4 + 4 + 8) / count,
            gathered=whole,
            learning=self._learned(self._params.train.token_budget) + gathered + 4 * trained / layers,
        )

    def _made(self, model: object, size: Size) -> Held:
        """A base or a judge that is made here; nothing but the process for one that is elsewhere or only pointed to."""
        workers = self._params.runtime.workers
        if isinstance(model, FineTuning):
            lora: Lora | None = model.lora
            trained = size.adapter(lora.rank, lora.targets) if lora else size.parameters
            width = 2 if model.mixed_precision == "bf16" else 4
            learned = _learned(size.shape, model.token_budget, width, model.gradient_checkpointing)
            sampled = self._rolled(self._params.rollout.block_size, isinstance(model, FineTunedReward), 0)
            return Held(
                weights=size.parameters * (self._width if lora else 4),
                training=trained * (4 + 8 + (4 if lora and self._width == 2 else 0)),
                flight=sampled.flight,
                learning=workers * (learned + 4 * trained),
            )
        if not (size.shape and isinstance(model, EmbeddedBase | AnnotatedBase | EmbeddedReward | AnnotatedReward)):
            return Held()
        phases = [*model.sound_phases, model.flawed_phase] if isinstance(model, EmbeddedBase) else [model]
        tokens = max(phase.batch_size for phase in phases) * self._context / workers
        return Held(
            weights=size.parameters * 4,
            training=size.parameters * (4 + 8),
            flight=self.flight(self._params.rollout.in_flight),
            learning=workers * (size.shape.learned(tokens, 4, False) + 4 * size.parameters),
        )


def _learned(shape: Shape | None, tokens: float, width: int, recompute: bool) -> float:
    """Bytes of a forward pass that a backward pass follows, with the logits of the actions among its tokens."""
    if shape is None:
        return UNKNOWN
    return shape.learned(tokens, width, recompute) + shape.scored(ACTIONS * tokens, LOGITS_AT_ONCE)


def _read(rows: float, groups: int) -> float:
    """The share of a table of so many rows that so many row groups are."""
    return min(1.0, groups * ROWS_PER_GROUP / rows) if rows else 0.0


def lines(params: Params, root: Path, free: float | None, only: Collection[str] | None = None) -> list[str]:
    """The memory of the stages, or of `only` some, as a table; with the `free` bytes of a device what fits there."""
    memory = Memory(params, root)
    stages = {name: held for name, held in memory.stages().items() if only is None or name in only}
    found = {name: held for name, held in stages.items() if held.device or held.host}
    rows: list[tuple[str, ...]] = [
        ("", "weights", "training", "gathered", "in flight", "samples", "gradient", "judge", "device", "host")
    ]
    for name, held in found.items():
        parts = (held.weights, held.training, held.gathered, held.flight, held.sampling, held.learning, held.judging)
        rows.append((name, *map(_shown, (*parts, held.device, held.host))))
    head = (
        "Memory at most, with full flights and forward passes. Device: weights, training, and the largest of the next "
        "four. On a CPU, device and host are one memory."
    )
    if any(held.gathered for held in found.values()):
        head = head.replace("next four", "next four, gathered weights with flights and samples")
    else:
        rows = [(*row[:3], *row[4:]) for row in rows]
    if any(held.processes > 1 for held in found.values()):
        head += f" Training: each of {params.runtime.processes} processes holds this, in one memory."
    if params.execution.engine == "ray":
        head += " Synthesis, judging and evaluation: each of Ray's workers holds this."
    return [head, *aligned(rows), *_fits(memory, params, found, free)]


def _fits(memory: Memory, params: Params, found: Mapping[str, Held], free: float | None) -> list[str]:
    if free is None:
        return []
    said = [f"With {amount(free)} free on {params.runtime.device}, of which {SHARE:.0%} is planned with:"]
    for name, held in found.items():
        need = held.processes * (held.fixed + (held.host if params.runtime.device == "cpu" else 0))
        if math.isnan(need):
            said.append(f"  {name}: not known")
        elif need > SHARE * free:
            said.append(f"  {name} does not fit: {amount(need)} without a conversation in flight")
        elif held.flight and (most := memory.fitting(held, free)) < params.rollout.in_flight:
            said.append(f"  {name}: {most} conversations in flight a worker, not {params.rollout.in_flight}")
    rl = found.get("train@swirl", Held())
    if rl.training:
        tokens, more = memory.longest()
        host = rl.host if params.runtime.device == "cpu" else 0
        need = rl.processes * (rl.weights + rl.training + rl.learning + more + host)
        if more > 0 and need > SHARE * free:
            said.append(
                f"  train@swirl: a state and the actions drawn in it may have {tokens:,} tokens, if all are as long as "
                f"can be and none alike; it would take {amount(need)}"
            )
    return said if len(said) > 1 else [f"{said[0][:-1]}, every stage fits as it is set."]


def _shown(value: float) -> str:
    return "" if value == 0 else "?" if math.isnan(value) else amount(value)
