"""Whether bfloat16 costs time on this processor: without instructions for it, it takes longer than float32 does."""

from __future__ import annotations

import time
from typing import Any

from swirl.config.params import Params

NOTABLE = 1.3
"""So many times as long is worth a word."""
_ROWS, _SIZE, _TIMES = 128, 768, 15


def warning(params: Params) -> str:
    """Which settings make this machine slower than it need be, as a sentence; empty where none does.

    Measured, in a tenth of a second, if the weights are to be in bfloat16 on a CPU.
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

    return _seconds(torch, torch.bfloat16) / _seconds(torch, torch.float32)


def _seconds(torch: Any, dtype: Any) -> float:
    rows, weights = torch.ones(_ROWS, _SIZE, dtype=dtype), torch.ones(_SIZE, _SIZE, dtype=dtype)
    best = float("inf")
    with torch.no_grad():
        for _ in range(_TIMES):
            began = time.perf_counter()
            torch.nn.functional.linear(rows, weights)
            best = min(best, time.perf_counter() - began)
    return best
