"""A local judge that generates its reasons before its verdict, instead of reading P(GOOD) from one token."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from swirl.comb.combs import group_by_budget
from swirl.comb.sampling import Sampling
from swirl.comb.teeth import UnsampledComb, sample_teeth
from swirl.core.threads import spread
from swirl.judging.rationale import JudgePrompts, RationaleJudge, Said
from swirl.judging.remote import check_votes_can_differ
from swirl.judging.reward import JUDGED_AT_ONCE, LOWER, judged_flight
from swirl.models.chat import THINK, Chat
from swirl.models.tokens import Tokens


class LocalRationaleJudge(RationaleJudge):
    """Judges with a local causal LM and its own chat template; a prompt is read once for all its votes.

    A prompt that leaves no room for the reasons gets no verdict; several votes at temperature 0 raise `ModelError`.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        judge_chat: Chat,
        context: int,
        prompts: JudgePrompts,
        chat: Tokens | None,
        sampling: Sampling,
        votes: int,
        seed: int,
        token_budget: int = JUDGED_AT_ONCE,
        workers: int = 1,
    ) -> None:
        """`chat` is the policy's, or None; `context` and `token_budget` (of one batch) are in tokens.

        Where memory runs out, `flight` is halved.
        """
        super().__init__(name, prompts, chat, votes, seed)
        check_votes_can_differ(votes, sampling)
        self._model, self._judge_chat, self._context = model, judge_chat, context
        self._sampling, self._workers = sampling, workers
        self._lower, self.flight = LOWER, judged_flight(token_budget, LOWER)
        """How many tokens are read and written at once."""
        self._begun = THINK if judge_chat.opens_thought else ""
        """What the template puts before a reply to open a thought, so that `find` knows of it."""

    def reading(self, token_budget: int, lower: str) -> LocalRationaleJudge:
        """This judge with batches of `token_budget` tokens; `lower` says what to set lower if that is too much."""
        if (self.flight.asked, self._lower) == (token_budget, lower):
            return self
        judge = copy.copy(self)
        judge._lower, judge.flight = lower, judged_flight(token_budget, lower)
        return judge

    def say(
        self, prompts: Sequence[str], seeds: Sequence[Sequence[int]], warmth: float, words: tuple[str, str]
    ) -> list[list[Said]]:
        """See `RationaleJudge.say`."""
        sampling = dataclasses.replace(self._sampling, temperature=max(self._sampling.temperature, warmth))
        longest = sampling.max_tokens
        trunks = [self._judge_chat.prompt(prompt) for prompt in prompts]
        said: dict[int, list[Said]] = {}
        for index, trunk in enumerate(trunks):
            if len(trunk) + longest > self._context:
                error = f"{len(trunk)} tokens and {longest} for the reasons do not fit into {self._context}"
                said[index] = [Said("", error) for _ in seeds[index]]
        asked = [index for index in range(len(trunks)) if index not in said]
        sizes = [len(trunks[index]) + len(seeds[index]) * longest for index in asked]

        def write(share: Sequence[int]) -> list[list[Said]]:
            bare = [UnsampledComb(trunks[i], tuple((len(trunks[i]), seed) for seed in seeds[i])) for i in share]
            drawn = sample_teeth(self._model, bare, sampling, self._judge_chat.end_ids)
            return [[self._said(vote.ids) for vote in votes] for votes in drawn]

        def written(tokens: int) -> dict[int, list[Said]]:
            shares = [[asked[i] for i in group] for group in group_by_budget(sizes, tokens, self._workers)]
            made = zip(shares, spread(write, shares, self._workers), strict=True)
            return {index: votes for share, row in made for index, votes in zip(share, row, strict=True)}

        said |= self.flight.run(written)
        return [said[index] for index in range(len(prompts))]

    def _said(self, ids: tuple[int, ...]) -> Said:
        return Said(self._begun + self._judge_chat.text(ids), ended=ids[-1] in self._judge_chat.end_ids)
