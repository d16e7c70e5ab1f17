"""A model's weights, gradients and optimiser's state dealt out over processes, by torch's `fully_shard` (FSDP2).

Each process keeps a part of every tensor. A layer's weights are gathered before its forward and its backward pass and
dropped after them, and its gradients are summed on the way back to the parts. So every process must do the same number
of forward and backward passes; `whole` gathers all weights beforehand, and inside it each reads as often as it likes.
One code for CPUs (gloo) and GPUs (nccl).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from swirl.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def shard(model: Any) -> None:
    """Deal the weights of a causal LM out over all processes of the group, in place.

    What trains is float32 in the parts, which are the masters; it is computed in the dtype that the model has.
    Gradients are summed in float32, not averaged. Raises `ModelError` for a model whose layers cannot be told.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no layers that transformers marks as such (GradientCheckpointingLayer), so "
            "its weights cannot be gathered layer by layer; set runtime.sharding: none"
        )

    def states(**inputs: Any) -> Tensor:
        hidden: Tensor = model.base_model(**inputs).last_hidden_state
        return hidden

    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    model.computed_in = model.dtype
    policy = MixedPrecisionPolicy(model.dtype, torch.float32, cast_forward_inputs=False)
    for module in (*layers, model):
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.dtype.itemsize < 4:
                parameter.data = parameter.data.float()
        part: Any = fully_shard(module, mesh=mesh, mp_policy=policy)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        part.set_reduce_scatter_unused_params(True, recurse=False)
    # Below the output layer, the model is read by this method of the whole, whose weights are then gathered, too.
    model.gathered_states = states
    register_fsdp_forward_method(model, "gathered_states")


def is_sharded(model: Any) -> bool:
    """Whether the weights are dealt out over processes."""
    return hasattr(model, "gathered_states")


def compute_dtype(model: Any) -> Any:
    """The torch dtype that a model computes in: that of its weights, or, dealt out, what they had before."""
    return getattr(model, "computed_in", model.dtype)


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """All weights of a sharded model are on every process in this block, which all must enter; nothing trains in it.

    Afterwards each has its part of the layers again, while the embeddings and the output layer stay until a backward
    pass or `release`. A model that is not sharded is whole anyway.
    """
    if not is_sharded(model):
        yield
        return
    parts = _parts(model)
    model.set_reshard_after_forward(False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts[1:]:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def release(model: Any) -> None:
    """Drop what a sharded model has gathered; to be called when the parts change."""
    if is_sharded(model):
        for part in _parts(model):
            part.reshard()


def trained_weights(model: Any, keep: bool) -> dict[str, Tensor]:
    """Name -> whole tensor, on the CPU, of all that trains in a sharded model, for the process that is to `keep` them.

    All processes must call this.
    """
    release(model)
    kept: dict[str, Tensor] = {}
    for name, part in model.named_parameters():
        if part.requires_grad:
            tensor = part.detach().full_tensor()
            if keep:
                kept[name] = tensor.cpu()
    return kept


def _parts(model: Any) -> list[Any]:
    """The modules that are gathered each as one: first the model itself (embeddings, output layer), then its layers."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
