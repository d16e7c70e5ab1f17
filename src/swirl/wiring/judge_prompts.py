"""From params to the prompts of judges."""

from __future__ import annotations

from swirl.config.params import Params
from swirl.core.layout import Layout
from swirl.models.prompts import read_prompt

THOUGHTS = {
    "refuse": "that is neither one tool call nor one answer is BAD.",
    "allow": "with neither call nor answer is a thought: it is GOOD if it follows from the results and settles what to "
    "do next, and BAD if it repeats an earlier one, makes a result up or leads away. A step with several calls, with a "
    "call and an answer, or with a broken tag is BAD.",
}
"""What `{thoughts}` in a judge's prompt is filled with, by `actions.thought_only`, in a rule "A step {thoughts}"."""
NATIVE = {
    "refuse": "with a broken tool call, or with a call and an answer, is BAD.",
    "allow": "with neither call nor answer is a thought: it is GOOD if it follows from the results and settles what to "
    "do next, and BAD if it repeats an earlier one, makes a result up or leads away. A step with a broken tool call, "
    "or with a call and an answer, is BAD.",
}
"""`THOUGHTS` for the model's own tool format, in which a step may be several calls."""


def judge_question(params: Params, layout: Layout) -> str:
    """The turn that asks a local judge for GOOD or BAD."""
    return judge_prompt(params, layout, "verdict")


def judge_prompt(params: Params, layout: Layout, name: str) -> str:
    """The prompt NAME.txt in the judge's folder; it says of a thought alone what `actions.thought_only` makes of it."""
    text = read_prompt(layout.root / params.prompts.judge / f"{name}.txt")
    rules = NATIVE if params.actions.format == "native" else THOUGHTS
    return text.replace("{thoughts}", rules[params.actions.thought_only])
