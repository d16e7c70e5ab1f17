"""The shape of a decoder, and the bytes that follow from it: weights, keys and values, activations.

Sizes are approximate: norms and biases are left out, less than a thousandth of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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

    def kept(self, tokens: float, width: int) -> float:
        """Bytes of the keys and values of so many tokens, with `width` bytes a number.

        All layers keep all tokens, those with a sliding window too. Heads whose values have another size than their
        keys (latent attention) are refused by `swirl.comb.attention`.
        """
        return 2.0 * self.layers * self.keys * width * tokens

    def read(self, tokens: float, width: int) -> float:
        """Bytes of the activations while so many tokens are read without a gradient: those of one layer."""
        return (4 * self.hidden + max(3 * self.feed_forward, 3 * self.queries + 3 * self.keys)) * width * tokens

    def learned(self, tokens: float, width: int, recompute: bool) -> float:
        """Bytes of the activations that wait for the backward pass of so many tokens.

        Norms in float32 (those of queries and keys too, as Qwen3 has them), attention's operands and results, and four
        of the feed-forward layer's. With `recompute`, one layer has them, and of the others only what they read.
        """
        layer = 24 * self.hidden + 12 * (self.queries + self.keys)
        layer += width * (4 * self.queries + 4 * self.keys + 4 * self.feed_forward)
        whole = layer + self.layers * width * self.hidden if recompute else self.layers * layer
        return float(whole * tokens)

    def scored(self, tokens: float, at_once: int) -> float:
        """Bytes of the logits and probabilities of policy and reference, of `at_once` logits at the most.

        Six float32 each: of two models the logits and their logarithms, probabilities, and their difference.
        """
        return 6 * 4 * min(self.vocabulary * tokens, at_once / 2)

    def predicted(self, tokens: float) -> float:
        """Bytes while so many next tokens are drawn: logits, probabilities in float32, and their float64 sums."""
        return self.vocabulary * (4.0 + 4 + 8 + 8) * tokens


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a model's configuration; None where that does not give it. Of experts, one counts."""
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        return Shape(
            hidden,
            layers=int(config["num_hidden_layers"]),
            feed_forward=int(config["intermediate_size"]),
            queries=heads * head,
            keys=int(config.get("num_key_value_heads") or heads) * head,
            vocabulary=int(config["vocab_size"]),
            # Without the key, the default of the model family holds: tied for Gemma.
            tied=bool(config.get("tie_word_embeddings", "gemma" in str(config.get("model_type")))),
        )
    except KeyError:
        return None
