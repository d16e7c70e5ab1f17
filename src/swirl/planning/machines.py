"""`swirl plan --machine`: what fits on machines that are not here, and about how long the stages take there.

The rates are the reader's: what such a machine reached in a measurement, or what is assumed of it. From them and the
expected work follows the time, by the size of the model alone; attention, tools and saving are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf, isnan
from pathlib import Path
from typing import Any

from swirl.config.params import Params
from swirl.config.reward_model import EndpointReward
from swirl.config.served import client_settings
from swirl.core.errors import ParamsError
from swirl.planning.durations import durations, table
from swirl.planning.earlier import earlier
from swirl.planning.expected import Expected
from swirl.planning.footprint import Memory
from swirl.planning.sizes import UNKNOWN, size_of, width_of
from swirl.planning.speeds import Speeds
from swirl.planning.workload import CHARACTERS_A_TOKEN

START = 60.0
"""Seconds in which a stage's process starts and loads a model of many GB."""
MARKUP = 5
"""Tokens of a turn's markup."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has and reaches; NaN where it is not said."""

    gb: float = UNKNOWN
    """Memory of the models' device."""
    flops: float = UNKNOWN
    """FLOPs a second of one process's products while it reads and learns."""
    bandwidth: float = UNKNOWN
    """Bytes a second at which it reads weights while it draws."""
    served: float = UNKNOWN
    """Tokens a second that the policy's servers draw, all together."""
    asked: float = UNKNOWN
    """Requests a second that the judge's server answers."""

    @property
    def free(self) -> float | None:
        """Bytes of the device; None where it is not said."""
        return None if isnan(self.gb) else self.gb * 1e9


def parsed(text: str) -> Machine:
    """A machine from `name=number,...`. Raises `ParamsError` that names what is wrong."""
    names = [one.name for one in fields(Machine)]
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = 0.0
        if name not in names or not 0 < found[name] < inf:
            raise ParamsError(f"--machine: {part!r} is not NAME=NUMBER above 0, with NAME one of {', '.join(names)}")
    return Machine(**found)


class Approximate:
    """Lengths of a chat's texts in tokens without its tokenizer: `CHARACTERS_A_TOKEN` characters each."""

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return -(-len(text) // CHARACTERS_A_TOKEN)

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        """A turn's tokens, as zeros."""
        return (0,) * (MARKUP + self.count(text))

    def prompt(self, text: str) -> tuple[int, ...]:
        """A conversation's first tokens, as zeros."""
        return self.turn(text, True)


def lines(params: Params, root: Path, machine: Machine) -> list[str]:
    """How long the stages take there; nothing where no rate is said."""
    if all(map(isnan, (machine.flops, machine.bandwidth, machine.served, machine.asked))):
        return []
    asked = machine.asked
    if isinstance(params.reward_model, EndpointReward):
        limit = client_settings(params.clients, params.reward_model.server).requests_per_minute / 60
        asked = min(limit, asked) if limit and not isnan(asked) else limit or asked
    flights = flights_on(machine, params, root)
    usual = min(flights.values(), default=params.rollout.in_flight)
    found = {flight: _taken(params, root, machine, flight, asked) for flight in {usual, *flights.values()}}
    taken = {name: found[flights.get(name, usual)][name] for name in found[usual]}
    rates = (machine.flops, machine.bandwidth, machine.served, asked)
    named = zip(rates, ("FLOP/s", "bytes/s", "tokens/s served", "requests/s"), strict=True)
    given = ", ".join(f"{value:.3g} {unit}" for value, unit in named if not isnan(value))
    processes = f", {params.runtime.processes} processes that train" if params.runtime.processes > 1 else ""
    shown = " to ".join(str(flight) for flight in sorted({min(found), max(found)}))
    drawing = f"; {shown} conversations in flight in process" if flights else ""
    head = f"Time, about, at {given}{drawing}{processes}:"
    return ["", head, *table(taken), "These rates are assumed, not measured here; tools and saving come on top."]


def flights_on(machine: Machine, params: Params, root: Path) -> dict[str, int]:
    """How many conversations each stage that draws in process has in flight there."""
    memory, asked, free = Memory(params, root), params.rollout.in_flight, machine.free
    drawing = {name: held for name, held in memory.stages().items() if held.flight}
    return {name: max(1, memory.fitting(held, free)) if free else asked for name, held in drawing.items()}


def _taken(params: Params, root: Path, machine: Machine, flight: int, asked: float) -> dict[str, float]:
    """Seconds of the stages there, with so many conversations in flight in all of them."""
    smaller = params.model_copy(update={"rollout": params.rollout.model_copy(update={"in_flight": flight})})
    chat: Any = Approximate()
    stages = Expected(smaller, root, chat, earlier(params, root)).stages()
    return durations(smaller, stages, speeds_of(smaller, root, machine, flight, asked))


def speeds_of(params: Params, root: Path, machine: Machine, flight: int, asked: float) -> Speeds:
    """Speeds of the policy from its size: products while reading and learning, weights while drawing."""
    size, width = size_of(params.base_model, params, root), width_of(params)
    passes = (4 if params.train.lora else 6) + (2 if params.train.gradient_checkpointing else 0)
    read = machine.flops / (2 * size.parameters)
    weights = size.parameters * width / machine.bandwidth
    kept = size.shape.kept(params.runtime.context / 2, width) / machine.bandwidth if size.shape else 0.0
    learned = machine.flops / (passes * size.parameters)
    return Speeds(
        START, read, weights + kept, weights + flight * kept, flight, UNKNOWN, learned, UNKNOWN, machine.served, asked
    )
