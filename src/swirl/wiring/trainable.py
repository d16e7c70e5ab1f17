"""The models of stage `train`, by params: what trains, its reference, and what is saved in the end."""

from __future__ import annotations

from typing import Any

from swirl.config.params import Params
from swirl.core.distributed import Processes
from swirl.core.layout import Layout
from swirl.core.seeds import derive
from swirl.models import adapters
from swirl.models.loading import load_model
from swirl.models.sharding import shard, trained_weights
from swirl.rollout.engine import Policy
from swirl.wiring.policies import load_local_policy


def load_trainable(params: Params, layout: Layout, item: str) -> Policy:
    """The base as a policy, with a fresh adapter if params ask for one; otherwise all its weights train."""
    policy = load_local_policy(params, layout.model("base"), item)
    _add_adapter(params, policy.model, item)
    return policy


def load_reference(params: Params, layout: Layout) -> Any | None:
    """The frozen base, dealt out if params ask for it; None where that is the policy without its adapter."""
    if params.train.lora is not None:
        return None
    runtime = params.runtime
    reference = load_model(layout.model("base"), runtime.device, runtime.attention, runtime.dtype)
    reference.requires_grad_(False)
    deal_out(params, reference)
    return reference


def deal_out(params: Params, model: Any) -> None:
    """Deal the weights out over the processes, if params ask for it."""
    if params.runtime.sharding == "full":
        shard(model)


def dealt(params: Params, processes: Processes) -> int:
    """How many parts the weights are dealt out in; 1: each process holds all of them."""
    return processes.count if params.runtime.sharding == "full" else 1


def finished(params: Params, layout: Layout, item: str, model: Any, processes: Processes) -> Any:
    """The trained model as an ordinary one that can be saved, on the main process; all processes must call this.

    Elsewhere, and where the model was not dealt out, it is what was given.
    """
    if params.runtime.sharding == "none":
        return model
    weights = trained_weights(model, processes.main)
    if not processes.main:
        return model
    runtime = params.runtime
    whole = load_model(layout.model("base"), "cpu", runtime.attention, runtime.dtype)
    dtype = whole.dtype
    _add_adapter(params, whole, item)
    for name, parameter in whole.named_parameters():
        if name in weights:
            parameter.data = weights[name].to(dtype)
    return whole


def _add_adapter(params: Params, model: Any, item: str) -> None:
    if (adapter := params.train.lora) is not None:
        adapters.add(model, adapter.rank, adapter.alpha, adapter.targets, derive(params.seed, "lora", item))
