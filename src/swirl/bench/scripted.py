"""Scripted trajectories and verdicts of any number: of realistic lengths, sound to every gate, and the same each time.

Half the questions are searched, half calculated. A trajectory has 3 to 7 actions of 30 tokens, the last one an answer;
its states have up to 1,500 tokens. Observations come from a fixed set of passages, as those of a search do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from swirl.core.types import Action, Observation, Question, Step, Stop, Trajectory, Verdict

SAMPLES = 5
"""Trajectories of each question."""

WORDS = ("<end>", "<search_query>", "</search_query>", "<math_exp>", "</math_exp>", "<answer>", "</answer>")
"""Words with a meaning; a word's token id is its place, and the ids after them are of the plain words w7, w8, ..."""

_VOCABULARY = 32_000
_PROMPT, _ACTION, _OBSERVATION = 220, 30, (150, 183)


def write_tokenizer(folder: Path) -> None:
    """Save a tokenizer that decodes the scripted actions to their texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(_ALL)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=_ALL[len(WORDS)]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=WORDS[0]).save_pretrained(folder)


class Script:
    """Questions, and trajectory number n of any number of them."""

    def __init__(self, passages: int = 5_000) -> None:
        rng = random.Random(0)
        self._instructions = self._drawn(rng, _PROMPT - 20)
        lengths = [rng.randint(*_OBSERVATION) for _ in range(passages)]
        self._passages = [self._drawn(rng, length) for length in lengths]
        self._texts = [_text(ids) for ids in self._passages]
        self._logprobs = tuple(-rng.random() for _ in range(1_000))

    @staticmethod
    def _drawn(rng: random.Random, count: int) -> tuple[int, ...]:
        """Ids of plain words, of which the first are more frequent than the last."""
        return tuple(len(WORDS) + int((_VOCABULARY - len(WORDS)) * rng.random() ** 3) for _ in range(count))

    def question(self, number: int) -> Question:
        """Question `number`, of the train split."""
        task, tool = (("search", "search"), ("calculate", "calculator"))[number % 2]
        benchmark = f"scripted-{task}"
        return Question(f"{benchmark}/{number}", benchmark, "train", "Which?", ("w7",), 2, (tool,), task)

    def trajectory(self, number: int) -> Trajectory:
        """Trajectory `number`."""
        rng, question = random.Random(number), self.question(number // SAMPLES)
        last = 2 + number % 5
        steps = tuple(self._step(rng, index, "answer" if index == last else question.task) for index in range(last + 1))
        prompt = (*self._instructions, *self._drawn(random.Random(question.id), 20))
        sample = number % SAMPLES
        name = f"{question.id}/{sample}"
        return Trajectory(
            name, question.id, question.benchmark, sample, "base", sample, prompt, steps, Stop.ANSWERED, ""
        )

    def _step(self, rng: random.Random, index: int, kind: str) -> Step:
        start, end = {"search": (1, 2), "calculate": (3, 4), "answer": (5, 6)}[kind]
        payload = self._drawn(rng, _ACTION - 3)
        ids, first = (start, *payload, end, 0), rng.randrange(len(self._logprobs) - _ACTION)
        action = Action(kind, _text(ids[:-1]), _text(payload))
        logprobs = self._logprobs[first : first + _ACTION]
        if kind == "answer":
            return Step(index, action, (), ids, logprobs, ())
        passage = rng.randrange(len(self._passages))
        seen = Observation(self._texts[passage], False, kind, action.payload)
        return Step(index, action, (seen,), ids, logprobs, self._passages[passage])


class ScriptedJudge:
    """Finds every step of four in ten trajectories good, and one step of the others bad."""

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict a step; `questions` is not used."""
        verdicts = []
        for trajectory in trajectories:
            rng = random.Random(trajectory.id)
            bad = -1 if rng.random() < 0.4 else rng.randrange(len(trajectory.steps))
            for step in trajectory.steps:
                score = 0.25 if step.index == bad else 0.75
                verdicts.append(Verdict(trajectory.id, step.index, step.index != bad, score, "", "scripted"))
        return verdicts


_ALL = (*WORDS, *(f"w{number}" for number in range(len(WORDS), _VOCABULARY)))


def _text(ids: Sequence[int]) -> str:
    return " ".join([_ALL[number] for number in ids])
