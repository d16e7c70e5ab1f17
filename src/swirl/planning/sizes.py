"""Sizes of a model and its adapter, as far as they can be known without the network.

Sources, the first that applies: the shape of a model that is made here, config.json in the model's folder, the
published shapes below, the number in its name (`-27b`). Norms and biases are left out: less than a thousandth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl.config.base_model import AnnotatedBase, EmbeddedBase, Weights
from swirl.config.params import Params
from swirl.config.reward_model import AnnotatedReward, EmbeddedReward
from swirl.core.errors import ModelError

UNKNOWN = math.nan
"""NaN stands for a number that cannot be known here, and makes all that is computed from it unknown, too."""
EMBEDDED_VOCABULARY = 2000
"""Tokens of the embedded tokenizer, at most."""
ADAPTER = 0.9
"""An adapter on all layers of a model with P parameters has at most ADAPTER * P^(2/3) parameters per rank.

The exact factor is 0.65 to 0.89 for the shapes of Llama 3, Mistral, Gemma-2, Qwen2.5 and Qwen3.
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a decoder with gated feed-forward layers."""

    hidden: int
    layers: int
    feed_forward: int
    queries: int
    """Width of the queries of all heads together: heads x head_dim."""
    keys: int
    """Width of the keys of all key heads together; that of the values is the same."""
    vocabulary: int
    tied: bool = True
    """Whether the output layer shares the embedding's weights."""

    @property
    def parameters(self) -> float:
        """Number of parameters of the whole model."""
        layer = 2 * self.hidden * self.queries + 2 * self.hidden * self.keys + 3 * self.hidden * self.feed_forward
        return float(self.layers * layer + self.hidden * self.vocabulary * (1 if self.tied else 2))

    def adapter(self, rank: int, targets: Sequence[str]) -> float:
        """Parameters of an adapter: rank x (inputs + outputs) per layer. With an unknown target, all layers count."""
        hidden, wide = self.hidden, self.hidden + self.feed_forward
        sums = {"q_proj": hidden + self.queries, "k_proj": hidden + self.keys, "gate_proj": wide, "up_proj": wide}
        sums |= {"o_proj": sums["q_proj"], "v_proj": sums["k_proj"], "down_proj": wide}
        chosen = targets if all(name in sums for name in targets) else list(sums)
        return float(self.layers * rank * sum(sums[name] for name in set(chosen)))


PUBLISHED: Mapping[str, Shape] = {
    "google/gemma-2-2b": Shape(2304, 26, 9216, 8 * 256, 4 * 256, 256_000),
    "google/gemma-2-9b": Shape(3584, 42, 14_336, 16 * 256, 8 * 256, 256_000),
    "google/gemma-2-27b": Shape(4608, 46, 36_864, 32 * 128, 16 * 128, 256_000),
    "qwen/qwen3-0.6b": Shape(1024, 28, 3072, 16 * 128, 8 * 128, 151_936),
}
"""Shapes of the presets' models, by hub id in lower case without -it or -base (from public copies of config.json)."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is."""

    parameters: float
    shape: Shape | None = None
    """None when it is not known; adapters are then estimated from `parameters`."""

    def adapter(self, rank: int, targets: Sequence[str]) -> float:
        """Parameters of an adapter."""
        if self.shape is None:
            return float(rank * ADAPTER * self.parameters ** (2 / 3))
        return self.shape.adapter(rank, targets)


def size_of(model: object, params: Params, root: Path) -> Size:
    """The size of the model that a section describes. Raises `ModelError` for a folder with a broken config.json."""
    if isinstance(model, EmbeddedReward | AnnotatedReward):
        model = params.base_model
    if isinstance(model, EmbeddedBase | AnnotatedBase):
        made = model.shape
        words = getattr(made, "vocabulary", EMBEDDED_VOCABULARY)
        shape = Shape(made.hidden, made.layers, made.feed_forward, made.hidden, made.hidden, words)
        return Size(shape.parameters, shape)
    if not isinstance(model, Weights):
        return Size(UNKNOWN)
    known = _configured(root / Path(model.model).expanduser())
    known = known or PUBLISHED.get(re.sub(r"-(it|base)$", "", model.model.lower()))
    if known is not None:
        return Size(known.parameters, known)
    named = re.search(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", model.model.lower())
    return Size(float(named[1]) * {"b": 1e9, "m": 1e6}[named[2]] if named else UNKNOWN)


def _configured(folder: Path) -> Shape | None:
    """The shape in a folder's config.json; None without one, and for mixtures of experts, whose layers differ."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = whole.get("text_config", whole)
        if any("experts" in key for key in found):
            return None
        hidden, heads = int(found["hidden_size"]), int(found["num_attention_heads"])
        head = int(found.get("head_dim") or hidden // heads)
        return Shape(
            hidden,
            layers=int(found["num_hidden_layers"]),
            feed_forward=int(found["intermediate_size"]),
            queries=heads * head,
            keys=int(found.get("num_key_value_heads") or heads) * head,
            vocabulary=int(found["vocab_size"]),
            # Without the key, the default of the model family holds: tied for Gemma.
            tied=bool(found.get("tie_word_embeddings", "gemma" in str(found.get("model_type")))),
        )
    except KeyError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no model's configuration: {error}") from None
