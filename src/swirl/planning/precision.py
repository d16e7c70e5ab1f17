"""Whether bfloat16 costs time on this processor: without instructions for it, it takes longer than float32 does."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.models.flops import matmul_flops

NOTABLE = 1.3
"""So many times as long is worth a word."""
_SIZE = 512


def warning(params: Params) -> str:
    """Which settings make this machine slower than it need be, as a sentence; empty where none does.

    Measured, in less than half a second, if the weights are to be in bfloat16 on a CPU.
    """
    if params.runtime.device != "cpu" or params.runtime.dtype != "bfloat16" or (times := bfloat16_takes()) < NOTABLE:
        return ""
    taught = {f"{name}.mixed_precision": getattr(params, name) for name in ("base_model", "reward_model")}
    keys = ["runtime.dtype"]
    keys += [key for key, section in taught.items() if getattr(section, "mixed_precision", "no") == "bf16"]
    return (
        f"bfloat16 takes {times:.1f} times as long as float32 on this processor, and {', '.join(keys)} ask"
        f"{'s' * (len(keys) == 1)} for it: dtype: float32 and mixed_precision: 'no' would be faster, with weights and "
        "activations twice as large"
    )


def bfloat16_takes() -> float:
    """How many times as long as in float32 a product of matrices takes in bfloat16 here, as small models have them."""
    import torch

    return matmul_flops("cpu", torch.float32, 1, _SIZE) / matmul_flops("cpu", torch.bfloat16, 1, _SIZE)
