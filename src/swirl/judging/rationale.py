"""Judges that write their reasons and then a verdict, as the paper's do: their prompts, and how votes are combined.

The text comes from `swirl.judging.remote` (an endpoint) or `swirl.judging.local` (a local model). Golden labels are
shown in the outcome prompt only. A reply without a verdict counts as null, never as 0.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from swirl.comb.combs import Comb
from swirl.core.errors import DataError, ModelError
from swirl.core.seeds import derive
from swirl.core.types import NOT_JUDGED, OUTCOME, ActionKind, Question, Stop, Trajectory, Verdict
from swirl.judging.verdicts import GOOD_BAD, YES_NO, find
from swirl.models.tokens import Tokens

MAX_RATIONALE = 4000
"""Characters of a rationale that are kept."""

_CUT = " [cut here, before a verdict]"
"""Appended to a text that was cut off before its verdict; a larger max_tokens may help."""

_WARMTH = 0.7
"""Lowest temperature at which a judge that gave no verdict is asked again: greedily it would repeat its reply."""

_PLACEHOLDERS = {
    "process": ("question", "conversation", "action"),
    "reward": ("conversation", "action"),
    "outcome": ("question", "answer", "golden"),
}
_MARKUP = re.compile(r"<(?=[|｜]|/?(?:s|bos|eos|pad|start_of_turn|end_of_turn)>)|\[(?=/?INST\])")


@dataclass(frozen=True, slots=True)
class JudgePrompts:
    """A judge's prompt templates.

    Raises `DataError` when a placeholder is missing, and for `{golden}` in any prompt but `outcome`.
    """

    process: str
    """With `{question}`, `{conversation}` and `{action}`; asks for GOOD or BAD."""
    reward: str
    """With `{conversation}`, which begins with the question, and `{action}`; asks for GOOD or BAD."""
    outcome: str
    """With `{question}`, `{answer}` and `{golden}`; asks for YES or NO."""

    def __post_init__(self) -> None:
        for name, needed in _PLACEHOLDERS.items():
            text = getattr(self, name)
            missing = [f"{{{word}}}" for word in needed if f"{{{word}}}" not in text]
            if missing:
                raise DataError(f"the {name} prompt must hold {', '.join(missing)}")
            if "golden" not in needed and "{golden}" in text:
                raise DataError(f"the {name} prompt holds {{golden}}: only the outcome prompt may show golden labels")


@dataclass(frozen=True, slots=True)
class Said:
    """One vote as the judge wrote it."""

    text: str
    error: str = ""
    """Why there is no text."""
    ended: bool = True
    """False when the text was cut off, for example at the limit of tokens."""
    failed: bool = False
    """Whether the server gave no answer: it failed, or it refuses the request for a reason other than its length."""
    refused: bool = False
    """Whether the server refuses the request for what is in it, and would again; otherwise it may succeed later."""
    chances: tuple[tuple[int, float], ...] = ()
    """Places of the text where a word of the verdict stands, and P(first) / (P(first) + P(second)); see `Answer`."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The combined votes on one step or answer."""

    good: bool | None
    """Whether `score` is above one half; a tie counts as BAD (or NO). None when no vote has a verdict."""
    score: float | None
    """Mean over the votes that have a verdict: P(GOOD) (or YES) where it stands, if that is known, else 1 or 0.

    None when no vote has a verdict.
    """
    rationale: str
    """Text of the first vote with that verdict, or with any; if `good` is None, the first vote's error or text."""
    failure: str = ""
    """Error of the first vote that failed at the server and may succeed later, or of votes that were all refused.

    Empty where there is neither: then no later request could change the verdict.
    """
    refused: bool = False
    """Whether every vote was refused for what is in its request."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the questions to a judge: steps and answers, each counted once however many votes it had."""

    judge: str
    asked: int = 0
    failed: int = 0
    """How many failed at the server, or lost one of their votes there."""
    refused: int = 0
    """How many of those the server refused for what is in them, and would refuse again."""
    failure: str = ""
    """Error of the first one that failed."""

    def __add__(self, more: Tally) -> Tally:
        """Both together; `more` came later."""
        first = self.failure or more.failure
        counts = self.asked + more.asked, self.failed + more.failed, self.refused + more.refused
        return Tally(self.judge, *counts, first)

    def check_failures(self, limit: float, of: int) -> None:
        """Raise `DataError` when more than a share `limit` of a stage's `of` questions to this judge failed.

        `of` counts all that the stage asks, those answered in earlier processes too. Answers that did arrive are
        stored, so the next run asks, and pays for, only the failed ones.
        """
        if self.failed > limit * of:
            refused = f" ({self.refused} of them refused for what is in them)" if self.refused else ""
            raise DataError(
                f"{self.failed} of {of} questions to the judge {self.judge} failed{refused}, more than "
                f"check_steps.max_null_rate {limit:.1%}; nothing is written, and the next run asks again only what "
                f"has no answer. The first: {self.failure}"
            )

    def check_refusals(self, limit: float, of: int) -> None:
        """Raise as `check_failures` does, but for refusals alone: no later answer could bring their share down."""
        if self.refused > limit * of:
            self.check_failures(limit, of)


class RationaleJudge(ABC):
    """Judges steps and outcomes by asking `votes` times for reasons and a verdict."""

    threshold = math.nextafter(0.5, 1.0)
    """Smallest R of a GOOD verdict: just above one half, because a tie is BAD."""

    def __init__(self, name: str, prompts: JudgePrompts, chat: Tokens | None, votes: int, seed: int) -> None:
        """`chat` is the policy's, needed to turn tokens into text for scores; None for a judge of texts only."""
        self.name, self.prompts, self.votes = name, prompts, votes
        self._policy_chat, self._seed = chat, seed
        self.tally = Tally(name)
        """All that was asked so far."""
        self.again = False
        """Whether to ask once more about a step or answer on which the judge wrote, but gave no verdict."""

    @property
    def _chat(self) -> Tokens:
        if self._policy_chat is None:
            raise ModelError("a judge of texts alone gives no scores of tokens: give it the policy's chat")
        return self._policy_chat

    @abstractmethod
    def say(
        self, prompts: Sequence[str], seeds: Sequence[Sequence[int]], warmth: float, words: tuple[str, str]
    ) -> list[list[Said]]:
        """The replies to each prompt, one per seed, at the judge's temperature or at `warmth` if that is higher.

        `words` are the two of the verdict.
        """

    def process_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, str]) -> list[Verdict]:
        """One verdict per step; `questions` maps id to text. The judge sees the conversation up to the step.

        A step that is cut is BAD without asking: half an action is not judged as if it were whole.
        """
        judged = self._judged(
            trajectories, lambda t, k: step_prompt(self.prompts.process, questions[t.question_id], t, k)
        )
        return [
            Verdict(trajectory.id, k, said.good, said.score, said.rationale, self.name)
            for trajectory, row in zip(trajectories, judged, strict=True)
            for k, said in enumerate(row)
        ]

    def _judged(
        self, trajectories: Sequence[Trajectory], prompt: Callable[[Trajectory, int], str]
    ) -> list[list[Judgement]]:
        """The judgement on each step, asked with `prompt` of a trajectory and a step's index unless the step is cut."""
        whole = [[step.action.kind != ActionKind.CUT for step in trajectory.steps] for trajectory in trajectories]
        pairs = zip(trajectories, whole, strict=True)
        shown = [prompt(trajectory, k) for trajectory, row in pairs for k, asked in enumerate(row) if asked]
        judged = iter(self.judge(shown, GOOD_BAD))
        return [[next(judged) if asked else Judgement(False, 0.0, NOT_JUDGED) for asked in row] for row in whole]

    def outcome_verdicts(self, trajectories: Sequence[Trajectory], questions: Mapping[str, Question]) -> list[Verdict]:
        """One verdict per trajectory, against the golden answers; BAD, without asking, where there is no answer."""
        answered = [trajectory for trajectory in trajectories if trajectory.stop is Stop.ANSWERED]
        shown = []
        for trajectory in answered:
            question = questions[trajectory.question_id]
            shown.append(outcome_prompt(self.prompts.outcome, question.text, trajectory.answer, question.answers))
        judged = dict(zip([t.id for t in answered], self.judge(shown, YES_NO), strict=True))
        none = Judgement(False, 0.0, "")
        verdicts = [(trajectory.id, judged.get(trajectory.id, none)) for trajectory in trajectories]
        return [Verdict(name, OUTCOME, said.good, said.score, said.rationale, self.name) for name, said in verdicts]

    def scores(self, combs: Sequence[Comb]) -> list[list[float]]:
        """R(a | s) for every tooth of every comb, by the reward prompt; NaN where there is no verdict."""
        shown = []
        for comb in combs:
            for tooth in comb.teeth:
                conversation = readable(self._chat, comb.trunk[: tooth.sees])
                shown.append(reward_prompt(self.prompts.reward, conversation, self._chat.text(tooth.ids)))
        scores = iter(self.judge(shown, GOOD_BAD))
        return [[_number(next(scores).score) for _ in comb.teeth] for comb in combs]

    def trajectory_scores(self, trajectories: Sequence[Trajectory]) -> list[list[float]]:
        """R for every step of each trajectory; NaN where there is no verdict, 0 for a step that is cut."""

        def prompt(t: Trajectory, k: int) -> str:
            return reward_prompt(self.prompts.reward, readable(self._chat, t.state_ids(k)), t.steps[k].action.text)

        return [[_number(said.score) for said in row] for row in self._judged(trajectories, prompt)]

    def judge(self, prompts: Sequence[str], words: tuple[str, str]) -> list[Judgement]:
        """Combine `votes` replies to each prompt. Seeds depend on prompt and vote only, so order does not matter.

        With `again`, only a reply without a verdict is asked for anew: what failed at the server gets the same request
        in a later run, and a second request that fails leaves the first judgement. A verdict of which a vote failed is
        made of the others, and counted as failed.
        """
        votes = self._votes_on(prompts, range(self.votes), words)
        judged = [count(said, words) for said in votes]
        pairs = enumerate(zip(votes, judged, strict=True))
        null = [
            i
            for i, (said, one) in pairs
            if one.good is None and not one.failure and not all(vote.error for vote in said)
        ]
        if self.again and null:
            again = range(self.votes, 2 * self.votes)
            second = self._votes_on([prompts[i] for i in null], again, words, _WARMTH)
            for i, said in zip(null, second, strict=True):
                one = count(said, words)
                if one.good is not None or not one.failure:
                    judged[i] = one
        failed = [said.failure for said in judged if said.failure]
        refused = sum(said.refused for said in judged)
        self.tally += Tally(self.name, len(judged), len(failed), refused, next(iter(failed), ""))
        return judged

    def _votes_on(
        self, prompts: Sequence[str], votes: Sequence[int], words: tuple[str, str], warmth: float = 0.0
    ) -> list[list[Said]]:
        seeds = [[derive(self._seed, "judge", prompt, vote) for vote in votes] for prompt in prompts]
        return self.say(prompts, seeds, warmth, words)


def count(votes: Sequence[Said], words: tuple[str, str]) -> Judgement:
    """Combine the votes on one prompt."""
    verdicts = [None if vote.error else find(vote.text, words, vote.ended) for vote in votes]
    given = [(vote, *verdict) for vote, verdict in zip(votes, verdicts, strict=True) if verdict is not None]
    if not given:
        said = next((_bounded(vote.error or vote.text) + _CUT * (not vote.ended) for vote in votes), "")
        return Judgement(None, None, said, _failure(votes), all(vote.refused for vote in votes))
    score = sum(dict(vote.chances).get(place, float(first)) for vote, first, place in given) / len(given)
    good = score > 0.5
    agreeing = next((vote for vote, first, _ in given if first is good), given[0][0])
    return Judgement(good, score, _bounded(agreeing.text), _failure(votes))


def _failure(votes: Sequence[Said]) -> str:
    """See `Judgement.failure`."""
    lost = [vote.error for vote in votes if vote.failed and not vote.refused]
    if not lost and all(vote.refused for vote in votes):
        lost = [vote.error for vote in votes]
    return _bounded(next(iter(lost), ""))


def step_prompt(template: str, question: str, trajectory: Trajectory, index: int) -> str:
    """The process prompt for one step, with the earlier steps as numbered actions and results."""
    before = [
        f"Action {step.index + 1}: {step.action.text}\nResult {step.index + 1}: {step.observation}"
        for step in trajectory.steps[:index]
    ]
    action = trajectory.steps[index].action.text
    return process_prompt(template, question, "\n\n".join(before), action)


def process_prompt(template: str, question: str, conversation: str, action: str) -> str:
    """The process prompt for a question, the conversation so far, and the action to judge."""
    return _fill(
        template, question=question, conversation=conversation or "(nothing: this is the first)", action=action
    )


def reward_prompt(template: str, conversation: str, action: str) -> str:
    """The reward prompt for a state (as text) and an action."""
    return _fill(template, conversation=conversation, action=action)


def outcome_prompt(template: str, question: str, answer: str, golden: Sequence[str]) -> str:
    """The outcome prompt; several golden answers are joined by " | "."""
    return _fill(template, question=question, answer=answer, golden=" | ".join(golden))


def readable(chat: Tokens, ids: Sequence[int]) -> str:
    """A conversation's tokens as text: a line `---` separates turns, and special tokens are left out."""
    tokenizer = chat.tokenizer
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    parts: list[list[int]] = [[]]
    for token in ids:
        if token in special:
            parts.append([])
        else:
            parts[-1].append(token)
    return "\n---\n".join(text for part in parts if (text := chat.text(part).strip()))


def _fill(template: str, **values: str) -> str:
    """Fill all placeholders at once, so that those inside a value stay; a blank breaks up chat markup in a value."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda match: _MARKUP.sub(r"\g<0> ", values[match[0][1:-1]]), template)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_RATIONALE else text[:MAX_RATIONALE] + " ..."


def _number(score: float | None) -> float:
    return math.nan if score is None else score
