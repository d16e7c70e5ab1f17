"""Log-probabilities of teeth: for the policy, the reference and the reward model alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from swirl.comb.attention import causal_lm, head, head_of, hidden_states, read
from swirl.comb.combs import Comb, Reading, collate_packed, collate_plain, pack
from swirl.comb.miniature import in_miniature
from swirl.core.errors import ModelError
from swirl.core.flights import out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

LOGITS_AT_ONCE = 2**25
"""The most logits to hold in memory at the same time; with more, positions are projected in pieces."""
ROUNDING, HALF_ROUNDING = (1e-3, 1e-3), (1.0, 0.25)
"""What rounding may change in float32 and in half precision, in nats: at the worst token, and on average."""


def action_logprobs(model: Any, combs: Sequence[Comb], packed: bool) -> list[Tensor]:
    """log p(tooth token | its state and the tooth's earlier tokens), natural log, differentiable.

    `model` is any transformers causal LM. Returns one tensor per comb, (teeth, longest tooth), 0 where padded.
    """
    import torch

    def logprob(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0],)

    hidden, targets = tooth_states(model, combs, packed)
    return unflatten(project([(model, hidden)], targets, logprob)[0], combs)


def tooth_states(model: Any, combs: Sequence[Comb], packed: bool) -> tuple[Tensor, Tensor]:
    """Hidden states (N, H) that predict each of the N tooth tokens (order: comb, tooth, token), and the tokens (N,)."""
    reading = collate_packed(combs) if packed else collate_plain(combs)
    return _hidden(model, reading, reading.read), reading.targets.to(model.device)


def final_logits(model: Any, combs: Sequence[Comb], packed: bool) -> Tensor:
    """Logits (teeth of all combs, V) that predict each tooth's last token; a verdict is learned from them."""
    return head(model, _last_states(model, combs, packed))


def final_logits_of(model: Any, combs: Sequence[Comb], packed: bool, tokens: Sequence[int]) -> Tensor:
    """The columns of `final_logits` for a few tokens, in float32 or wider: (teeth of all combs, tokens).

    A bfloat16 logit of 32 has neighbours at 31.75 and 32.25, so that most actions on a state would get equal verdicts.
    """
    hidden = _last_states(model, combs, packed)
    if hidden.dtype.itemsize >= 4:
        return head(model, hidden)[:, list(tokens)]
    return head_of(model, hidden.float(), tokens)


def _last_states(model: Any, combs: Sequence[Comb], packed: bool) -> Tensor:
    """The hidden states (teeth of all combs, H) that predict each tooth's last token."""
    import torch

    reading = collate_packed(combs) if packed else collate_plain(combs)
    ends = torch.tensor([len(tooth.ids) for comb in combs for tooth in comb.teeth]).cumsum(0) - 1
    return _hidden(model, reading, reading.read[ends])


def project(
    models: Sequence[tuple[Any, Tensor]], targets: Tensor, statistics: Callable[..., tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """`statistics(logits of each model..., targets)` over all N positions, without all logits in memory at once.

    `models` are pairs of a model and hidden states (N, H). `statistics` gets logits in float32 or wider and returns
    (n,) tensors for n positions. Pieces are recomputed in the backward pass, so that even a vocabulary of 256,000 does
    not determine the peak of memory.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def piece(target: Tensor, *hidden: Tensor) -> tuple[Tensor, ...]:
        logits = [head(model, states) for (model, _), states in zip(models, hidden, strict=True)]
        return statistics(*(each.float() if each.dtype.itemsize < 4 else each for each in logits), target)

    states = [hidden for _, hidden in models]
    vocabulary = models[0][0].get_output_embeddings().weight.shape[0]
    size = max(1, LOGITS_AT_ONCE // (vocabulary * len(models)))
    if len(targets) <= size:
        return piece(targets, *states)
    pieces = [
        checkpoint(piece, *parts, use_reentrant=False)
        for parts in zip(targets.split(size), *(each.split(size) for each in states), strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))


def unflatten(flat: Tensor, combs: Sequence[Comb]) -> list[Tensor]:
    """(N,) values in the order comb, tooth, token, as one zero-padded (teeth, longest tooth) tensor per comb."""
    import torch

    sizes = [len(tooth.ids) for comb in combs for tooth in comb.teeth]
    pieces = iter(flat.split(sizes))
    return [torch.nn.utils.rnn.pad_sequence([next(pieces) for _ in comb.teeth], batch_first=True) for comb in combs]


def check_packing(model: Any, comb: Comb) -> None:
    """Compare our log-probabilities on a real comb with those of the model's own forward pass, one tooth at a time.

    First in the model's float32 miniature (`swirl.comb.miniature`), to a thousandth of a nat whatever the model's
    dtype: a wrong mask, window, position, place of reading or projection shows there. Then in the whole model on the
    comb's first and last tooth: all layers, the real windows and lengths, to what its dtype allows. A model that cannot
    be made smaller, as some parts have the width of all its layers together (Gemma 3n), is compared whole alone. Both
    the packed and the plain way are compared, since sampling reads as packing does. Raises `ModelError` where they
    differ by more.
    """
    small = in_miniature(model, comb)
    try:
        _compare(*small, *ROUNDING)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
    short = pack(comb.trunk, [(tooth.sees, tooth.ids) for tooth in (comb.teeth[0], comb.teeth[-1])])
    _compare(model, short, *(HALF_ROUNDING if model.dtype.itemsize < 4 else ROUNDING))


def _compare(model: Any, comb: Comb, most: float, most_on_average: float) -> None:
    """Raise `ModelError` where our log-probabilities differ by more nats than these from the model's own."""
    import torch

    with torch.no_grad():
        own = []
        for tooth in comb.teeth:
            ids = torch.tensor([[*comb.trunk[: tooth.sees], *tooth.ids]], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, tooth.sees - 1 : -1].float()
            own.append(torch.log_softmax(logits, -1).gather(-1, ids[0, tooth.sees :, None])[:, 0])
        for way in (False, True):
            rows = action_logprobs(model, [comb], way)[0]
            gaps = torch.cat([(row[: len(each)] - each).abs() for row, each in zip(rows, own, strict=True)])
            worst, mean = float(gaps.max()), float(gaps.mean())
            if not (worst <= most and mean <= most_on_average):  # true of what is not a number, too
                raise ModelError(
                    f"{'packed' if way else 'our'} log-probabilities of {type(model).__name__} differ from its own by "
                    f"up to {worst:.2g} nats, {mean:.2g} on average, in {str(model.dtype).removeprefix('torch.')}, "
                    "which is more than rounding; this model cannot be used here, use another one"
                )


def _hidden(model: Any, reading: Reading, where: Tensor) -> Tensor:
    """Hidden states (N, H) at `where` in the flattened input."""
    if reading.plan is not None:
        return read(model, reading.input_ids, reading.position_ids, reading.plan)[where.to(model.device)]
    inputs = {"input_ids": reading.input_ids.to(model.device), "position_ids": reading.position_ids.to(model.device)}
    return hidden_states(causal_lm(model), **inputs).flatten(0, 1)[where.to(model.device)]
