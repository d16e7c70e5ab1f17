"""What a chat template does with thoughts: found by rendering conversations of sentinels."""

from __future__ import annotations

from dataclasses import dataclass

from swirl.core.errors import ModelError
from swirl.models.tool_template import ASK, REPLY, THOUGHT, Messages, Template, acted, results, said


@dataclass(frozen=True, slots=True)
class Thoughts:
    """How a template writes thoughts."""

    tags: tuple[str, str]
    form: tuple[str, str]
    """What is written before and after a thought: the tags with their white space."""
    begun: bool
    """Whether the template opens a thought where the model's turn starts."""


def find_thoughts(template: Template, given: str) -> Thoughts:
    """How a template writes thoughts whose opening of the model's turn is `given`; `<think>` where it shows none."""
    tags, form = ("<think>", "</think>"), ("<think>\n", "\n</think>\n\n")
    try:
        told = template.render([ASK, {**said(REPLY), "reasoning_content": THOUGHT}], "thoughts", generation=False)
    except ModelError:
        told = ""
    opening, _, rest = told.partition(THOUGHT)
    closes = rest.partition(REPLY)[0].strip()
    if closes and closes.replace("/", "", 1) in opening:
        opens = closes.replace("/", "", 1)
        tags = (opens, closes)
        form = (opens + opening.rpartition(opens)[2], rest.partition(REPLY)[0])
    return Thoughts(tags, form, begun=given.rstrip().endswith(tags[0]))


def shown_thoughts(template: Template, thoughts: Thoughts, later: bool = False) -> str:
    """The field in which past turns show their thoughts in a loop of calls, or, with `later`, before another question.

    Empty where none is shown.
    """
    opens, closes = thoughts.tags
    forms = {"reasoning_content": THOUGHT, "content": f"{opens}\n{THOUGHT}\n{closes}\n\n"}
    past: Messages = [*results(1), *([said(REPLY), ASK] if later else [])]
    for field, text in forms.items():
        if THOUGHT in template.render([ASK, {**acted(1), field: text}, *past], "thoughts"):
            return field
    return ""
