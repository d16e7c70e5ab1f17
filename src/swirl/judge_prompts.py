"""From params and the layout to what judges are told."""

from __future__ import annotations

from swirl.core.layout import Layout
from swirl.judging.rationale import JudgePrompts
from swirl.models.prompts import read_prompt
from swirl.params import Params


def judge_question(params: Params, layout: Layout) -> str:
    """The turn that asks a local judge for GOOD or BAD."""
    return read_prompt(layout.root / params.prompts.judge / "verdict.txt")


def read_judge_prompts(params: Params, layout: Layout) -> JudgePrompts:
    """process.txt, reward.txt and outcome.txt of the judge's folder of prompts."""
    folder = layout.root / params.prompts.judge
    process, reward, outcome = (read_prompt(folder / f"{name}.txt") for name in ("process", "reward", "outcome"))
    return JudgePrompts(process, reward, outcome)
