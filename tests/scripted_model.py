"""A model that follows a script, whatever the engine does with its slots, masks and positions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from swirl.comb.attention import Plan, Scoring


class Scripted:
    """A causal LM that continues the conversation it sees as a script of {prompt: replies} says.

    Its only layer is the plan's attention, with equal scores and values that encode token and position, so that the
    output shows what each token sees. With a wrong mask, position or slot, the model cannot follow its script.
    """

    config = SimpleNamespace(
        _attn_implementation="swirl_eager", get_text_config=lambda: SimpleNamespace(num_hidden_layers=1)
    )
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        chat: Any,
        script: dict[tuple[int, ...], list[tuple[int, ...]]],
        opening: tuple[int, ...],
        width: int = 1024,
    ) -> None:
        """`script` is by the prompt's ids, `opening` what its later turns begin with, `width` the context."""
        self._opening, self._width = opening, width
        self._silence, self._size = chat.end_id, len(chat.tokenizer)
        self._script = script

    def base_model(
        self, input_ids: Any, position_ids: Any, attention_mask: Any, use_cache: bool, swirl_plan: Plan
    ) -> Any:
        count = input_ids.shape[1]
        values = torch.zeros(1, count, self._width)
        values[0, torch.arange(count), position_ids[0]] = input_ids[0].float() + 1
        zeros = torch.zeros(1, count, self._width)
        seen = swirl_plan.attend(0, zeros[None], zeros, values, Scoring(1.0, None, None))[0, 0]
        hidden = torch.zeros(1, count, self._size)
        for row, position in enumerate(position_ids[0].tolist()):
            visible = (seen[row] * (position + 1)).round().long()  # attention averages over a token and all before it
            assert (visible > 0).nonzero()[:, 0].tolist() == list(range(position + 1))
            hidden[0, row, self._next(tuple((visible[: position + 1] - 1).tolist()))] = 50.0
        return SimpleNamespace(last_hidden_state=hidden)

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()

    def _next(self, visible: tuple[int, ...]) -> int:
        for prompt, replies in self._script.items():
            if visible[: len(prompt)] == prompt:
                size = len(self._opening)
                later = range(len(prompt) + 1, len(visible) + 1)
                ends = [len(prompt), *(i for i in later if visible[i - size : i] == self._opening)]
                turn, said = len(ends) - 1, len(visible) - ends[-1]
                reply = replies[turn] if turn < len(replies) else ()
                return reply[said] if said < len(reply) else self._silence
        return self._silence
