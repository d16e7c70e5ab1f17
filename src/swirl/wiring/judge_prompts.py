"""From params to the turn that asks a local judge for its verdict."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.models.prompts import read_prompt


def judge_question(params: Params, layout: Layout) -> str:
    """The turn that asks a local judge for GOOD or BAD."""
    return read_prompt(layout.root / params.prompts.judge / "verdict.txt")
