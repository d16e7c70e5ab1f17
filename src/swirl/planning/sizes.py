"""Sizes of a model and its adapter, as far as they can be known without the network.

Sources, the first that applies: the shape of a model that is made here, config.json in the model's folder, the shapes
below, the number in its name (`-27b`; of a mixture of experts, the number of all, `-30b-a3b`). Norms and biases are
left out: less than a thousandth.
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
from swirl.models.shapes import Shape, shape_of

UNKNOWN = math.nan
"""NaN stands for a number that cannot be known here, and makes all that is computed from it unknown, too."""
EMBEDDED_VOCABULARY = 2000
"""Tokens of the embedded tokenizer, at most."""
ADAPTER = 0.9
"""An adapter on all layers of a model with P parameters has at most ADAPTER * P^(2/3) parameters per rank.

The exact factor is 0.65 to 0.89 for the shapes of Llama 3, Mistral, Gemma-2, Qwen2.5 and Qwen3.
"""


PUBLISHED: Mapping[str, Shape] = {
    "google/gemma-2-2b": Shape(2304, 26, 9216, 8 * 256, 4 * 256, 256_000),
    "google/gemma-2-9b": Shape(3584, 42, 14_336, 16 * 256, 8 * 256, 256_000),
    "google/gemma-2-27b": Shape(4608, 46, 36_864, 32 * 128, 16 * 128, 256_000),
    "qwen/qwen3-0.6b": Shape(1024, 28, 3072, 16 * 128, 8 * 128, 151_936),
}
"""Shapes of the presets' models, by hub id in lower case without -it or -base (from public copies of config.json)."""
FILES: Mapping[str, Shape] = {"smollm2-135m-instruct.q4_1.gguf": Shape(576, 30, 1536, 9 * 64, 3 * 64, 49_152)}
"""Shapes of GGUF files, by name in lower case: what `make weights` brings."""


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
    known = known or FILES.get(Path(model.model).name.lower())
    known = known or PUBLISHED.get(re.sub(r"-(it|base)$", "", model.model.lower()))
    if known is not None:
        return Size(known.parameters, known)
    return Size(_named(model.model.lower()))


_NAMED = re.compile(r"(?<![\d.])(?<![-_][ae])(\d+(?:\.\d+)?)([bm])(?![a-z])")
"""A size in a name, but not that of the parameters that are active (`-a3b`) or effective (`-e4b`)."""
_OF_EXPERTS = re.compile(r"\d+x\d+(\.\d+)?[bm]|[bm]-\d+e(?![a-z0-9])|olmoe")
"""A mixture whose name has the size of an expert, or of what is active: `8x7b`, `17b-16e`."""


def _named(name: str) -> float:
    """The number of parameters that a name in lower case tells."""
    named = None if _OF_EXPERTS.search(name) else _NAMED.search(name)
    return float(named[1]) * {"b": 1e9, "m": 1e6}[named[2]] if named else UNKNOWN


def _configured(folder: Path) -> Shape | None:
    """The shape in a folder's config.json; None without one, and for mixtures of experts, whose layers differ."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = whole.get("text_config", whole)
        return None if any("experts" in key for key in found) else shape_of(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no model's configuration: {error}") from None


def width_of(params: Params) -> int:
    """Bytes of a weight in memory."""
    return 2 if params.runtime.dtype == "bfloat16" else 4
