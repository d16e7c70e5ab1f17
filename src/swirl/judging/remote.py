"""A judge behind an endpoint: reasons and a verdict over HTTP, as many requests at a time as the endpoint allows.

Where the server gives log-probabilities, a vote is P(GOOD) at the verdict's word; elsewhere it is the word, 1 or 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from swirl.comb.sampling import Sampling
from swirl.core.endings import cut_short
from swirl.core.errors import ModelError
from swirl.endpoints.client import Answer, Ask, Client, ContextError, EndpointError, Message, RefusedError
from swirl.judging.rationale import JudgePrompts, RationaleJudge, Said
from swirl.models.tokens import Tokens


class EndpointJudge(RationaleJudge):
    """Judges through an open client. A request that fails for good is a vote without a verdict.

    Raises `UnavailableError` when no request can succeed, and `ModelError` for several votes at temperature 0.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        prompts: JudgePrompts,
        chat: Tokens | None,
        sampling: Sampling,
        votes: int,
        seed: int,
    ) -> None:
        """`sampling.max_tokens` must cover the reasons and the verdict; `chat` is the policy's, or None."""
        super().__init__(name, prompts, chat, votes, seed)
        check_votes_can_differ(votes, sampling)
        self._client, self._sampling = client, sampling

    def say(
        self, prompts: Sequence[str], seeds: Sequence[Sequence[int]], warmth: float, words: tuple[str, str]
    ) -> list[list[Said]]:
        """See `RationaleJudge.say`."""
        asks = [
            self._ask(prompt, seed, vote, warmth, words)
            for prompt, its_seeds in zip(prompts, seeds, strict=True)
            for vote, seed in enumerate(its_seeds)
        ]
        said = iter(_said(answer) for answer in self._client.complete_many(asks))
        return [[next(said) for _ in its_seeds] for its_seeds in seeds]

    def _ask(self, prompt: str, seed: int, vote: int, warmth: float, words: tuple[str, str]) -> Ask:
        sampling = self._sampling
        return Ask(
            messages=(Message("user", prompt),),
            max_tokens=sampling.max_tokens,
            text=prompt,
            temperature=max(sampling.temperature, warmth),
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=seed,
            vote=vote,
            words=words,
        )


def _said(answer: Answer | EndpointError) -> Said:
    if isinstance(answer, Answer):
        return Said(answer.text, ended=not cut_short(answer.finish), chances=answer.chances)
    refused = isinstance(answer, RefusedError)
    return Said("", str(answer), failed=not isinstance(answer, ContextError), refused=refused)


def check_votes_can_differ(votes: int, sampling: Sampling) -> None:
    """Raise `ModelError` for no vote, and for several votes at temperature 0, which could not differ."""
    if votes < 1:
        raise ModelError(f"a judge needs at least one vote, got {votes}")
    if votes > 1 and sampling.temperature == 0:
        raise ModelError(f"{votes} votes at temperature 0 are all the same: raise the temperature, or ask for one vote")
