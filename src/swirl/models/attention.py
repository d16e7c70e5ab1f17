"""Attention masks of our own making, as transformers' models take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swirl.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def additive_mask(model: Any, allowed: Tensor, reading: Tensor, read: Tensor) -> Any:
    """The additive mask (B, 1, Q, C) of `allowed` (B, Q, C), where row attends to column; one a layer type if need be.

    `reading` (B, Q) and `read` (B, C) are position ids: sliding windows are measured on them, because columns need not
    be in the order of a sequence. Raises `ModelError` for a kind of attention that is neither full nor sliding.
    """
    import torch

    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ModelError(f"packing and sampling do not know attention of kind {', '.join(sorted(kinds))}")

    def additive(seen: Tensor) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
        return mask.masked_fill(~seen, torch.finfo(model.dtype).min)[:, None].to(model.device)

    if window is None or kinds == {"full_attention"}:
        return additive(allowed)
    near = allowed & (reading[:, :, None] - read[:, None, :] < window)
    return {"full_attention": additive(allowed), "sliding_attention": additive(near)} if kinds else additive(near)
