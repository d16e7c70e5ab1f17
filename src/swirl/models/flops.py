"""FLOPs of a training step and peak FLOPs per second of a device: the two sides of MFU (model FLOPs utilisation)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from swirl.core.threads import spread


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens and FLOPs of one training step."""

    tokens: float = 0.0
    """Tokens that the policy read in the forward pass of the update."""
    flops: float = 0.0
    """FLOPs of the weight matrices of the policy and the reference; attention and the reward model are left out."""

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.flops + other.flops)


def matrix_flops(model: Any, tokens: float, predicted: float, training: bool) -> float:
    """FLOPs of the weight matrices: 2 per parameter and token forward, 6 with the backward pass (4 if frozen).

    `tokens` go through the decoder and `predicted` of them through the head; attention's own products are left out.
    """
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight

    def cost(parameter: Any) -> float:
        passes = (6.0 if parameter.requires_grad else 4.0) if training else 2.0
        return passes * float(parameter.numel())

    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding and p is not head]
    return sum(map(cost, matrices)) * tokens + cost(head) * predicted


def matmul_flops(device: Any, dtype: Any, workers: int, size: int = 0) -> float:
    """FLOPs per second of products of square matrices of `dtype` on `device`, `workers` of them at a time.

    They have `size` rows (0: as many as keep the device at work).

    It is the best of three measurements, since other load on the machine can only slow one down.
    """
    import torch

    size = size or (1024 if torch.device(device).type == "cpu" else 8192)

    def products(_: int) -> float:
        a = torch.ones(size, size, device=device, dtype=dtype)
        for _ in range(12):
            b = a @ a
        return float(b[0, 0])  # waits for the device

    products(0)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        spread(products, range(workers), workers)
        seconds.append(time.perf_counter() - start)
    return workers * 12 * 2 * size**3 / min(seconds)
