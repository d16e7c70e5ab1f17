"""Room: how much a local model can work on at once, by its shape and by what its device has left."""

from __future__ import annotations

from typing import Any

from swirl.core.distributed import rank_and_count
from swirl.core.flights import Flight
from swirl.core.memory import available
from swirl.models.shapes import Shape, shape_of
from swirl.models.sharding import compute_dtype, is_sharded

_sharers = {"cpu": 1, "cuda": 1}
"""Kind of device -> how many processes plan with one."""


def conversations(
    model: Any, asked: int, most: int, context: int, workers: int, read_at_once: int, ahead: float = 0.0
) -> Flight:
    """The flight of `asked` conversations on each of `workers`, of which there are `most` at the same time at most.

    A conversation may take `context` tokens; a forward pass reads `read_at_once` at most. `ahead` are bytes that will
    be taken by what comes later and stays.
    """
    shape, width = shape_of_model(model), compute_dtype(model).itemsize

    def cost(size: int) -> float:
        return 0.0 if shape is None else workers * flight_bytes(shape, min(size, most), context, width, read_at_once)

    return Flight("rollout.in_flight", asked, cost, free_for(model) - ahead, "rollout.in_flight or runtime.context")


def flight_bytes(shape: Shape, conversations: float, context: int, width: int, read_at_once: int) -> float:
    """Bytes of so many conversations in flight: keys and values, a layer's again while they grow, a forward pass."""
    kept = shape.kept(conversations * context, width) * (1 + 1 / shape.layers)
    return kept + shape.read(min(read_at_once, conversations * context), width) + shape.predicted(conversations)


def samples(model: Any, asked: int, longest: int, workers: int, ahead: float = 0.0) -> Flight:
    """The flight of `asked` tokens on each of `workers`, trunks and actions, while the actions of an update are drawn.

    Each action has room for `longest` tokens. `ahead` is as in `conversations`.
    """
    shape, width = shape_of_model(model), compute_dtype(model).itemsize

    def cost(tokens: int) -> float:
        return 0.0 if shape is None else workers * samples_bytes(shape, tokens, longest, width)

    return Flight("train.sampled_tokens", asked, cost, free_for(model) - ahead, "train.token_budget")


def samples_bytes(shape: Shape, tokens: float, longest: int, width: int) -> float:
    """Bytes of so many tokens while actions of at most `longest` are drawn side by side."""
    kept = shape.kept(tokens, width) * (1 + 1 / shape.layers)
    return kept + shape.read(tokens, width) + shape.predicted(tokens / longest)


def training_ahead(model: Any, reference: bool, parts: int = 1) -> float:
    """Bytes that training adds to a model and keeps: masters, gradients, Adam's moments, and with it a reference.

    Dealt out over `parts` processes, each keeps its part, and gathers the whole model while it draws. The parts of a
    model that is dealt out already are its masters.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    width = compute_dtype(model).itemsize
    masters = 4 if width < 4 and not is_sharded(model) else 0
    whole = sum(p.numel() for p in model.parameters()) * width
    kept = trained * (masters + 4 + 8) + (whole if reference else 0)
    return float(kept / parts + (whole if parts > 1 else 0))


def free_for(model: Any) -> float:
    """Bytes that a model's device has left for this process; processes that share a device share them."""
    device = str(model.device)
    sharers = _sharers.get(device.partition(":")[0], 1)
    return available(device) / (sharers * (rank_and_count()[1] if device == "cpu" else 1))


def share_devices(cpu: int, cuda: int) -> None:
    """From now on plan as one of `cpu` processes on this machine, of which `cuda` are on the same GPU."""
    _sharers.update(cpu=cpu, cuda=cuda)


def shape_of_model(model: Any) -> Shape | None:
    """The shape of a transformers model; None where its configuration does not say it."""
    config = getattr(model.config, "get_text_config", None)
    return shape_of(config().to_dict()) if config else None
