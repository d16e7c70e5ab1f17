"""Training data from annotated GSM8K rows: sequences for the base model, and written conversations for a judge."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swirl.benchmarks.annotations import Solution, spoil
from swirl.benchmarks.renumbering import renumbered
from swirl.core.types import BAD, GOOD, ActionKind
from swirl.models.chat import Chat
from swirl.models.prompts import fill
from swirl.pretraining.bpe_tokenizer import build_bpe
from swirl.pretraining.embedded_examples import Demonstration, example, judged_example, repeated
from swirl.pretraining.training import Example
from swirl.tools.actions import ANSWER_TAG, DEFAULT_TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def tokenizer_of(
    solutions: Sequence[Solution], others: Sequence[str], vocabulary: int, context: int, digits: int
) -> PreTrainedTokenizerFast:
    """A BPE tokenizer learned from the rows and from `others` (prompts, fixed observations), which count 300 times.

    One token each: the calculator's and the answer's tags with the spaces around them, the verdicts, and, if the
    vocabulary has room, whole numbers of up to `digits` digits.
    """
    texts = [text for text in [*others, *map(str, range(10**digits))] for _ in range(300)]
    for solution in solutions:
        texts.append(solution.question)
        texts += [text for turn in solution.turns for text in (turn.action, turn.observation)]
    names = [tag for tag, kind in DEFAULT_TAGS.items() if kind == ActionKind.CALCULATE] + [ANSWER_TAG]
    tags = [form for name in names for form in (f" <{name}> ", f"<{name}> ", f" </{name}>")]
    return build_bpe(texts, vocabulary, context, [*tags, GOOD, BAD], digits)


def fitting(
    solutions: Sequence[Solution], chat: Chat, prompt: str, steps: int, longest_action: int, context: int
) -> list[Solution]:
    """The rows a policy can reproduce: at most `steps` actions of up to `longest_action` tokens, in the context."""
    kept = []
    for solution in solutions:
        size = len(example(_conversation(solution, prompt, steps), chat, 0.0).ids)
        longest = max(len(chat.reply(turn.action)) for turn in solution.turns)
        if len(solution.turns) <= steps and longest <= longest_action and size <= context:
            kept.append(solution)
    return kept


@dataclass(frozen=True, slots=True)
class Blend:
    """Shares of the kinds of training sequences, and loss weights; calls and answers have weight 1."""

    other: float
    """Weight of tokens that are not the model's own."""
    thought: float
    """Weight of the words before a call or an answer."""
    judged: float
    """Share of sequences that end with a verdict on a sound or spoilt step; only the verdict has weight."""
    copying: float
    """Share of drills, which repeat random numbers."""
    changed: float
    """Share of rows that are shown with changed numbers."""


def drills(chat: Chat, other: float, rng: random.Random) -> Iterator[Example]:
    """Copying drills without end: repeat 4 to 12 numbers of one to four digits; `other` weights the prompt."""
    while True:
        numbers = " ".join(str(rng.randrange(10 ** rng.randint(1, 4))) for _ in range(rng.randint(4, 12)))
        yield repeated(numbers, chat, other)


def examples(
    solutions: Sequence[Solution],
    foreign: Sequence[Solution],
    chat: Chat,
    prompt: str,
    judge: str,
    steps: int,
    blend: Blend,
    rng: random.Random,
) -> Iterator[Example]:
    """Training sequences without end: shuffled passes over the rows, with drills in between.

    `foreign` are rows that are only shown with changed numbers, and skipped where that is impossible. `prompt` and
    `judge` are the texts of the prompt files, `steps` the step limit that the prompt names. Raises `ValueError` without
    solutions.
    """
    if not solutions:
        raise ValueError("there is no solution to make examples from")
    copying = drills(chat, blend.other, rng)
    rows = [*((solution, blend.changed) for solution in solutions), *((solution, 1.0) for solution in foreign)]
    while True:
        for solution, share in rng.sample(rows, len(rows)):
            while rng.random() < blend.copying:
                yield next(copying)
            if rng.random() < share:
                changed = renumbered(solution, rng)
                if changed is None and share == 1.0:
                    continue
                solution = changed or solution
            if rng.random() >= blend.judged:
                yield example(_conversation(solution, prompt, steps), chat, blend.other, blend.thought)
            elif rng.random() < 0.5:
                spoilt = written(solution, prompt, steps, True, rng)
                yield judged_example(spoilt, chat, judge, len(spoilt.turns) - 1)
            else:
                whole = written(solution, prompt, steps, False, rng)
                yield judged_example(whole, chat, judge, rng.randrange(len(whole.turns)))


def written(solution: Solution, prompt: str, steps: int, spoilt: bool, rng: random.Random) -> Demonstration:
    """The row's conversation with its golden derivation; if `spoilt`, it ends with a spoilt step."""
    whole = _conversation(solution, prompt, steps)
    turns = list(spoil(solution, rng)) if spoilt else whole.turns
    return Demonstration(whole.prompt, turns, whole.derivation)


def _conversation(solution: Solution, prompt: str, steps: int) -> Demonstration:
    return Demonstration(fill(prompt, solution.question, steps), list(solution.turns), solution.derivation(""))
