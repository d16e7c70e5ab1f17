"""How likely each of two words was where a server's answer says one of them, from the log-probabilities of tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate

from swirl.core.untrusted import finite

ALTERNATIVES = 5
"""Tokens at each place whose log-probabilities a server is asked for: the most that OpenAI's completions give."""

_LETTERS = re.compile(r"[\W_]*([^\W_]+)(.*)", re.DOTALL)


def chances(words: Sequence[str], text: str, told: object) -> tuple[tuple[int, float], ...]:
    """Where a token of `text` begins one of the two `words`: its place, and the first word's share of both.

    `told` is the choice's `logprobs`: a chat's `content`, a list of objects with `token` and `top_logprobs`, or a
    completion's `tokens` and `top_logprobs`. Tokens may differ in case, begin with white space or punctuation, and be
    only the beginning of a word. Empty for anything else, and for tokens that do not spell `text`.
    """
    places = _places(told)
    spelled = "".join(token for token, _ in places)
    # A server may tell hidden reasoning and the end of turn as well. `find` takes linear time, `rfind` does not.
    after = spelled[::-1].find(text[::-1]) if text else -1
    if after < 0:
        return ()
    begin = len(spelled) - after - len(text)
    starts = accumulate((len(token) for token, _ in places), initial=-begin)
    found = []
    for start, (token, others) in zip(starts, places, strict=False):
        begun = _begins(token, words)
        if begun is None or not others:
            continue
        shares = [0.0, 0.0]
        for other, logprob in others.items():
            if (which := _begins(other, words)) is not None:
                shares[which[0]] += math.exp(min(0.0, logprob))
        place = start + begun[1]
        if sum(shares) > 0 and place >= 0:
            found.append((place, shares[0] / sum(shares)))
    return tuple(found)


def _begins(token: str, words: Sequence[str]) -> tuple[int, int] | None:
    """Which of the words a token begins, or is, and how many characters precede its letters; None for neither."""
    match = _LETTERS.fullmatch(token)
    if match is None:
        return None
    said, rest = match[1].upper(), match[2]
    for number, word in enumerate(words):
        if said == word or (not rest and word.startswith(said)):
            return number, match.start(1)
    return None


def _places(told: object) -> list[tuple[str, dict[str, float]]]:
    """Each token with the alternatives at its place, itself included, and their log-probabilities."""
    if not isinstance(told, Mapping):
        return []
    content, tokens, tops = told.get("content"), told.get("tokens"), told.get("top_logprobs")
    if isinstance(content, list):
        items = [item if isinstance(item, Mapping) else {} for item in content]
        return [(_text(item.get("token")), _listed(item.get("top_logprobs"))) for item in items]
    if isinstance(tokens, list) and isinstance(tops, list) and len(tokens) == len(tops):
        return [(_text(token), _numbers(top)) for token, top in zip(tokens, tops, strict=True)]
    return []


def _text(token: object) -> str:
    return token if isinstance(token, str) else ""


def _listed(top: object) -> dict[str, float]:
    pairs = [item for item in top if isinstance(item, Mapping)] if isinstance(top, list) else []
    return _numbers({_text(item.get("token")): item.get("logprob") for item in pairs})


def _numbers(top: object) -> dict[str, float]:
    """Token -> log-probability, without what is no finite number."""
    items = top.items() if isinstance(top, Mapping) else ()
    return {token: number for token, value in items if isinstance(token, str) and (number := finite(value)) is not None}
