"""Float32 masters of the trained weights: an optimiser's small updates would be lost to rounding in bfloat16."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from swirl.core.distributed import Processes
from swirl.core.errors import DataError
from swirl.models.sharding import is_sharded, release

if TYPE_CHECKING:
    from torch import Tensor


def require_finite(step: str, loss: float, norm: float, rate: str) -> None:
    """Raise `DataError` before a step whose loss or gradient is no finite number, which the weights would not be after.

    `step` is its name, `rate` the setting that is too large and its value.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DataError(f"{step}: the loss is {loss:g} and the gradient's norm {norm:g}; lower {rate}")


class Masters:
    """The trainable parameters of a model, and a master of each: itself, or a float32 copy of a narrower one.

    Parameters that are wider than the model, as a fresh adapter's on a bfloat16 base, are narrowed to its dtype: a step
    is then a fifth faster and holds less. Gradients are summed in the masters' `grad`, the optimiser updates the
    masters, and `publish` rounds them into the model. The parts of a sharded model are masters already.
    """

    def __init__(self, model: Any) -> None:
        self._model, wide = model, is_sharded(model) or model.dtype.itemsize >= 4
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters: list[Tensor] = list(trainable.values())
        """The model's trainable parameters, in its order."""
        self.named: dict[str, Tensor] = {
            name: p if wide else p.detach().float().clone().requires_grad_() for name, p in trainable.items()
        }
        """Name -> master, in the same order."""
        for parameter, master in zip(self.parameters, self.named.values(), strict=True):
            if parameter is not master:
                parameter.data = parameter.data.to(model.dtype)

    def tensors(self) -> list[Tensor]:
        """The masters."""
        return list(self.named.values())

    def add_up(self, processes: Processes) -> None:
        """Sum the gradients over all processes; one that had nothing to do has none and adds zeros."""
        if processes.count == 1:
            return
        import torch

        for master in self.named.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        processes.add_up(master.grad for master in self.named.values() if master.grad is not None)

    def clip(self, limit: float) -> float:
        """Scale the gradients so that their norm over all masters is at most `limit`; returns what it was."""
        from torch.nn.utils import clip_grads_with_norm_, get_total_norm

        norm: Any = get_total_norm([master.grad for master in self.tensors() if master.grad is not None])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        clip_grads_with_norm_(self.tensors(), limit, norm)
        return float(norm)

    def publish(self) -> None:
        """Copy the masters' values into the model; a sharded one forgets what it had gathered, and the gradients."""
        import torch

        if is_sharded(self._model):
            release(self._model)
            for master in self.tensors():
                master.grad = None
            return

        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.named.values(), strict=True):
                if parameter is not master:
                    parameter.copy_(master)
