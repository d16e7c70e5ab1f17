"""A model in miniature, in float32: whatever the model's dtype, a wrong mask or position shows in it above rounding.

It is a causal LM of the model's own class, made of its own weights: two of its layers, and as vocabulary the tokens of
one short comb. Its sliding windows are so narrow that they bind there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from swirl.comb.attention import causal_lm
from swirl.comb.combs import Comb, pack
from swirl.core.errors import ModelError

TRUNK, TOOTH, WINDOW = 256, 32, 4
"""Most tokens of the miniature's trunk, of a tooth and of a sliding window: in longer ones one token shows less."""


def in_miniature(model: Any, comb: Comb) -> tuple[Any, Comb]:
    """A float32 miniature of `model`, and the start of the comb with more teeth, in the miniature's token ids.

    The first and the last tooth hang on the trunk three times: where they were, there once more in reverse, and half
    as far along. So there are siblings, and teeth that do not see the whole trunk, whatever the comb. The model stays
    as it is, and only two layers of it are copied. Raises `ModelError` where its layers cannot be found.
    """
    trunk, teeth = comb.trunk[:TRUNK], []
    for tooth in (comb.teeth[0], comb.teeth[-1]):
        sees, ids = min(tooth.sees, TRUNK), tooth.ids[:TOOTH]
        teeth += [(sees, ids), (sees, ids[::-1]), (max(1, sees // 2), ids)]
    tokens = sorted({*trunk, *(token for _, ids in teeth for token in ids)})
    place = {token: number for number, token in enumerate(tokens)}
    short = pack([place[token] for token in trunk], [(sees, [place[token] for token in ids]) for sees, ids in teeth])
    return _miniature(causal_lm(model), tokens), short


def _miniature(model: Any, tokens: Sequence[int]) -> Any:
    """The causal LM itself in float32, with one layer of each kind, two at least, and the rows of `tokens` alone."""
    import torch

    config = model.config.get_text_config()
    depth = config.num_hidden_layers
    lists = (each for each in model.base_model.modules() if isinstance(each, torch.nn.ModuleList))
    layers: Any = next((each for each in lists if len(each) == depth), None)
    if layers is None:
        raise ModelError(f"{type(model).__name__} has no list of its {depth} layers, so that packing cannot be checked")
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * depth
    chosen = sorted({kinds.index(kind) for kind in kinds})
    chosen = chosen if len(chosen) > 1 else list(range(depth))[:2]

    made: dict[int, Any] = {}  # deepcopy takes what it finds here under an object's id, instead of copying the object
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        for weight in embeddings.parameters():
            if weight.shape[:1] == embeddings.weight.shape[:1]:
                rows = weight.detach()[torch.tensor(tokens, device=weight.device)]
                made[id(weight)] = torch.nn.Parameter(rows.float(), requires_grad=False)
    made[id(layers)] = torch.nn.ModuleList([copy.deepcopy(layers[number], made) for number in chosen])
    small = copy.deepcopy(model, made).float()

    config = small.config.get_text_config()
    config.num_hidden_layers = len(chosen)
    if getattr(config, "layer_types", None):
        config.layer_types = [kinds[number] for number in chosen]
    for part in (config, *small.modules()):
        if getattr(part, "sliding_window", None):
            part.sliding_window = min(part.sliding_window, WINDOW)
        if getattr(part, "padding_idx", None):
            part.padding_idx = None  # it would be the row of another token, or of none
    return small
