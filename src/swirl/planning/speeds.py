"""How fast the policy is on this machine: measured in about half a minute, with random tokens of expected lengths."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.config.base_model import EndpointBase, FineTuning, Weights
from swirl.config.params import Params
from swirl.config.train import Lora
from swirl.core.checksums import checksum
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.threads import spread
from swirl.models.gguf_files import converted, is_gguf
from swirl.planning.earlier import made_with
from swirl.planning.expected import Talk
from swirl.planning.sizes import UNKNOWN

if TYPE_CHECKING:
    from swirl.pretraining.training import Example
    from swirl.rollout.engine import Policy

LONG_ENOUGH_S = 1.0
"""Seconds for which a piece of work is repeated."""
LEARNED = 2
"""Conversations that a worker learns from at once."""


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was measured, with all workers at work. NaN where nothing of this run is done in that way."""

    start: float
    """Seconds in which a process imports what it needs, and loads a model."""
    read: float
    """Tokens a second, read without a gradient."""
    alone: float
    """Seconds of a forward pass in which a worker draws one token for one conversation."""
    full: float
    """Seconds of the same for `in_flight` conversations."""
    in_flight: int
    taught: float
    """Tokens a second, read forward and backward as `base_model` and `reward_model` do."""
    tuned: float
    """Tokens a second, read forward and backward as `train` does."""
    cores: float
    """How many cores this process had meanwhile; NaN on a GPU."""
    served: float = UNKNOWN
    """Tokens a second that the policy's servers draw, all conversations together."""
    asked: float = UNKNOWN
    """Requests a second that the judge's server answers."""


def weights(params: Params, root: Path) -> Path:
    """The folder of weights to measure: models/base if it was made with these settings, else those it is made from.

    A GGUF file is converted, once. Raises `ModelError` when there are none here.
    """
    base, section = Layout(root).model("base"), params.base_model
    if isinstance(section, EndpointBase):
        raise ModelError(f"the policy is on the server {section.server.url}")
    if base.is_dir() and made_with(params, root, "base_model", "base_model"):
        return base
    if not isinstance(section, Weights):
        raise ModelError(f"{base} is not made yet; `dvc repro base_model` makes it")
    place = root / Path(section.model).expanduser()
    if is_gguf(place) and place.is_file():
        return converted(place, checksum(place).sha256)
    if place.is_dir():
        return place
    raise ModelError(
        f"the weights of base_model.model, {section.model}, are not here; get them (a GGUF file: `make weights`; from "
        "the hub: `dvc repro base_model`), or name a folder that has them"
    )


def load(params: Params, folder: Path) -> tuple[Policy, float]:
    """The policy of a model's folder, and the seconds that importing what it needs and loading it took."""
    began = time.perf_counter()
    from swirl.wiring.policies import load_local_policy

    policy = load_local_policy(params, folder, "base")
    return policy, time.perf_counter() - began


def pieces(params: Params) -> int:
    """How many pieces of work `load` (one) and `measure` are."""
    return 4 + bool(_teaching(params)) + bool(params.train.methods)


def measure(
    params: Params,
    policy: Policy,
    folder: Path,
    talk: Talk,
    started: float,
    done: Callable[[], None] = lambda: None,
) -> Speeds:
    """The speeds of a loaded policy, for conversations like `talk`, on the machine as busy as it is now.

    `done` is called after each piece of work.
    """
    watch, size = Watch(done), min(round(talk.size), policy.context - 1)
    in_flight = min(params.rollout.in_flight, params.rollout.block_size)
    read = _reading(watch, params, policy.model, policy.context, size)
    full, alone = _drawing(watch, params, policy.model, policy.context, size, in_flight)
    sections = _teaching(params)
    taught = _learning(watch, params, folder, talk, sections[0]) if sections else UNKNOWN
    tuned = _learning(watch, params, folder, talk, None) if params.train.methods else UNKNOWN
    cores = watch.cores if policy.model.device.type == "cpu" else UNKNOWN
    return Speeds(started, read, alone, full, in_flight, taught, tuned, cores)


def _teaching(params: Params) -> list[FineTuning]:
    """The sections that teach as `pretraining` does."""
    return [one for one in (params.base_model, params.reward_model) if isinstance(one, FineTuning)]


class Watch:
    """Times calls, and adds up how long they took and the processor time of this process."""

    def __init__(self, done: Callable[[], None] = lambda: None) -> None:
        """`done` is called when a piece of work has been timed."""
        self._done = done
        self._seconds = self._processor = 0.0

    @property
    def cores(self) -> float:
        """Processor seconds a second: how many cores the timed calls had."""
        return self._processor / self._seconds

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Mean seconds of a call, called for a second and at least once; one before, which warms up, does not count."""
        work()
        began, processor, calls = time.perf_counter(), time.process_time(), 0
        while not calls or time.perf_counter() - began < LONG_ENOUGH_S:
            work()
            calls += 1
        taken = time.perf_counter() - began
        self._seconds += taken
        self._processor += time.process_time() - processor
        self._done()
        return taken / calls


def _reading(watch: Watch, params: Params, model: Any, context: int, size: int) -> float:
    from swirl.comb.slots import Slots

    workers, rows = params.runtime.workers, _random(model, params.runtime.workers, size)

    def read(worker: int) -> float:
        slots = Slots(model, context)
        return float(slots.read([(slots.open(), rows[worker])])[0, 0])  # waits for the device

    return workers * size / watch.seconds_of(lambda: spread(read, range(workers), workers))


def _drawing(watch: Watch, params: Params, model: Any, context: int, size: int, in_flight: int) -> tuple[float, float]:
    """Seconds of a pass over one token each of `in_flight` conversations, and of one, on every worker."""
    import torch

    from swirl.comb.sampling import choose
    from swirl.comb.slots import Slots
    from swirl.wiring.attempts import sampling

    workers, drawn = params.runtime.workers, sampling(params, params.synthesize.temperature)
    *begun, last = _random(model, 1, size)[0]
    going = [Slots(model, context) for _ in range(workers)]
    ids = [[last] * in_flight for _ in going]

    def draw(worker: int) -> None:
        logits = going[worker].read([(slot, [token]) for slot, token in enumerate(ids[worker])])
        draws = torch.full((len(logits),), 0.5, dtype=torch.float64, device=logits.device)
        ids[worker] = choose(logits, draws, drawn)[0].tolist()

    for slots in going:
        for _ in range(in_flight):
            slots.read([(slots.open(), begun)])  # all but the first copy what it has read
    full = watch.seconds_of(lambda: spread(draw, range(workers), workers))
    for worker, slots in enumerate(going):
        slots.keep([0])
        ids[worker] = ids[worker][:1]
    return full, watch.seconds_of(lambda: spread(draw, range(workers), workers))


def _learning(watch: Watch, params: Params, folder: Path, talk: Talk, teaching: FineTuning | None) -> float:
    """Tokens a second of the gradients of `LEARNED` conversations a worker, as `teaching` has it, or else `train`."""
    import torch

    from swirl.comb.gradients import accumulate, recomputing
    from swirl.models import adapters
    from swirl.models.loading import load_model
    from swirl.models.masters import Masters
    from swirl.pretraining.fine_tuning import summed_loss

    run, train = params.runtime, params.train
    lora: Lora | None = teaching.lora if teaching else train.lora
    model = load_model(folder, run.device, run.attention, "float32" if teaching and not lora else run.dtype)
    if lora:
        adapters.add(model, lora.rank, lora.alpha, lora.targets, 0)
    masters = Masters(model)
    examples = _examples(model, talk, LEARNED * run.workers)
    shares = [examples[worker :: run.workers] for worker in range(run.workers)]
    half = bool(teaching and teaching.mixed_precision == "bf16")
    recompute = (teaching or train).gradient_checkpointing

    def loss_of(share: Sequence[Example]) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
            return summed_loss(model, share)

    def learn() -> float:
        accumulate(masters.parameters, shares, loss_of, run.workers, masters.tensors())
        first: Any = masters.tensors()[0]
        return float(first.grad.sum())  # waits for the device

    with recomputing(model, recompute):
        seconds = watch.seconds_of(learn)
    return sum(len(example.ids) for example in examples) / seconds


def _examples(model: Any, talk: Talk, number: int) -> list[Example]:
    """Conversations of random tokens that share their instructions; the actions' tokens have weight."""
    from swirl.pretraining.training import Example

    longest = int(model.config.get_text_config().max_position_embeddings)
    size, written = min(round(talk.size), longest), round(talk.written)
    shared = _random(model, 1, round(talk.shared))[0]
    rows = _random(model, number, max(size - len(shared), written))
    weights = (*[0.0] * (len(shared) + len(rows[0]) - written), *[1.0] * written)
    return [Example((*shared, *row), weights) for row in rows]


def _random(model: Any, rows: int, columns: int) -> list[list[int]]:
    rng, vocabulary = random.Random(0), model.get_input_embeddings().num_embeddings
    return [[rng.randrange(vocabulary) for _ in range(columns)] for _ in range(rows)]
