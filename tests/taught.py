"""A tiny model that was taught a few conversations by heart, so that a real model makes real trajectories."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from swirl.core.types import ActionKind, Passage, Question
from swirl.models.loading import save
from swirl.rollout.engine import Attempt, observe
from swirl.rollout.reading import CUT_REPLY, MALFORMED_REPLY
from swirl.tools import Calculator, Search
from swirl.tools.base import Tool
from tests import tiny

CHAT = tiny.chat()
SEARCH = Search.over([Passage("p1", "Ada", "Ada was born in Oslo."), Passage("p2", "Bo", "Bo was born in Rome.")], 1)
TOOLS: dict[str, Tool] = {ActionKind.SEARCH: SEARCH, ActionKind.CALCULATE: Calculator()}
FIND, SUM, SAY = (
    "<search_query> Ada born </search_query>",
    "<math_exp> 2 * 3 </math_exp>",
    "<answer> Oslo </answer>",
)
LONG = "what " * 15 + "what"
SCRIPT = {
    "what is born": [FIND, SAY],
    "Ada": [SAY],
    "Rome Oslo": [SUM, FIND, SAY],
    "born born": ["Rome", FIND, SAY],
    "Oslo what": [LONG, "Rome", "Oslo"],
}
"""Prompt -> what the model says, turn by turn. `LONG` fills the 16 tokens that an action may have, so it is cut."""


def attempts(tools: dict[str, Tool] = TOOLS) -> list[Attempt]:
    """One attempt at each question of the script."""
    made = [Question(name, "mini", "train", name, ("Oslo",), 2, ("search",)) for name in SCRIPT]
    return [Attempt(question, 0, question.text, tools, 5) for question in made]


def conversation(prompt: str, replies: list[str]) -> list[tuple[tuple[int, ...], bool]]:
    """The pieces of a conversation: the token ids of each, and whether the model says it."""
    pieces = [(CHAT.prompt(prompt), False)]
    for reply in replies:
        cut = reply == LONG
        pieces.append((CHAT.encode(reply) if cut else CHAT.reply(reply), True))
        seen = CUT_REPLY.format(tokens=16) if cut else MALFORMED_REPLY
        if reply == FIND:
            seen = observe(SEARCH, "Ada born").text
        elif reply == SUM:
            seen = observe(TOOLS[ActionKind.CALCULATE], "2 * 3").text
        pieces.append((CHAT.turn(seen, not cut), False))
    return pieces[:-1]


@cache
def model() -> Any:
    """A Qwen3 in float32 that says what the script says, greedily."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape: dict[str, Any] = {
        **tiny._SHAPE,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "initializer_range": 0.1,
        "eos_token_id": CHAT.end_id,
    }
    taught = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(CHAT.tokenizer), tie_word_embeddings=False, **shape))
    rows = []
    for prompt, replies in SCRIPT.items():
        pieces = conversation(prompt, replies)
        ids = [token for piece, _ in pieces for token in piece]
        targets = [token if own else -100 for piece, own in pieces for token in piece]
        rows.append((ids, targets))
    longest = max(len(ids) for ids, _ in rows)
    inputs = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([targets + [-100] * (longest - len(targets)) for _, targets in rows])
    optimizer = torch.optim.Adam(taught.parameters(), lr=1e-2)
    for _ in range(300):
        loss = taught(input_ids=inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 2e-3:
            return taught.eval()
    raise AssertionError(f"the model did not learn its script: loss {loss.item()}")


def saved(folder: Path) -> Path:
    """The model and its tokenizer in a folder, as a server loads them."""
    save(model(), CHAT.tokenizer, folder)
    return folder
