"""Log-probabilities of teeth: for the policy, the reference and the reward model alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swirl.models.attention import additive_mask
from swirl.rl.combs import Comb, Rows, collate_packed, collate_plain

if TYPE_CHECKING:
    from torch import Tensor


def action_logprobs(model: Any, combs: Sequence[Comb], packed: bool) -> list[Tensor]:
    """log p(tooth token | its state and the tooth's earlier tokens), natural log, differentiable.

    `model` is any transformers causal LM. Returns one tensor a comb, (teeth, longest tooth), 0 where padded.
    """
    import torch

    logits, targets = tooth_logits(model, combs, packed)
    flat = torch.log_softmax(logits.float() if logits.dtype.itemsize < 4 else logits, -1)
    return unflatten(flat.gather(-1, targets[:, None])[:, 0], combs)


def tooth_logits(model: Any, combs: Sequence[Comb], packed: bool) -> tuple[Tensor, Tensor]:
    """Logits (N, V) that predict each of the N tooth tokens (order: comb, tooth, token), and the tokens (N,)."""
    rows = collate_packed(combs) if packed else collate_plain(combs)
    return _logits(model, rows, rows.read_row, rows.read_column), rows.targets.to(model.device)


def final_logits(model: Any, combs: Sequence[Comb], packed: bool) -> Tensor:
    """Logits (teeth of all combs, V) that predict each tooth's last token: where a verdict is read."""
    import torch

    rows = collate_packed(combs) if packed else collate_plain(combs)
    ends = torch.tensor([len(tooth.ids) for comb in combs for tooth in comb.teeth]).cumsum(0) - 1
    return _logits(model, rows, rows.read_row[ends], rows.read_column[ends])


def unflatten(flat: Tensor, combs: Sequence[Comb]) -> list[Tensor]:
    """(N,) values in the order comb, tooth, token, as one zero-padded (teeth, longest tooth) tensor a comb."""
    import torch

    sizes = [len(tooth.ids) for comb in combs for tooth in comb.teeth]
    pieces = iter(flat.split(sizes))
    return [torch.nn.utils.rnn.pad_sequence([next(pieces) for _ in comb.teeth], batch_first=True) for comb in combs]


def _logits(model: Any, rows: Rows, read_row: Tensor, read_column: Tensor) -> Tensor:
    """The model's logits at the positions read, (N, V); the head runs on those positions alone."""
    import torch

    device, position = model.device, rows.position_ids
    mask = None if rows.allowed is None else additive_mask(model, rows.allowed, position, position)
    hidden = model.base_model(
        input_ids=rows.input_ids.to(device),
        position_ids=position.to(device),
        attention_mask=mask,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.get_output_embeddings()(hidden[read_row.to(device), read_column.to(device)])
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
