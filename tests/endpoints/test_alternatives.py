"""How likely each of two words was, from what servers tell of the alternatives to each token."""

from __future__ import annotations

import math
from typing import Any

import pytest

from swirl.endpoints.alternatives import chances

WORDS = ("GOOD", "BAD")


def chat(*places: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """A chat's log-probabilities: tokens, each with the probabilities of its alternatives."""
    tops = [[{"token": t, "logprob": math.log(p), "bytes": None} for t, p in top.items()] for _, top in places]
    return {
        "content": [{"token": t, "logprob": 0.0, "top_logprobs": top} for (t, _), top in zip(places, tops, strict=True)]
    }


def completion(*places: tuple[str, dict[str, float]]) -> dict[str, Any]:
    tops = [{token: math.log(p) for token, p in top.items()} for _, top in places]
    return {"tokens": [token for token, _ in places], "top_logprobs": tops}


SURE = ("It helps.\n", {"It helps.\n": 1.0})


@pytest.mark.parametrize(
    ("places", "text", "found"),
    [
        ([SURE, ("GOOD", {"GOOD": 0.6, "BAD": 0.2, "The": 0.2})], "It helps.\nGOOD", [(10, 0.75)]),
        ([SURE, (" BAD", {" BAD": 0.3, " GOOD": 0.1, "Bad": 0.3, " good": 0.1})], "It helps.\n BAD", [(11, 0.25)]),
        ([("**", {"**": 1.0}), ("GO", {"GO": 0.9, "B": 0.1}), ("OD", {"OD": 1.0}), ("**", {})], "**GOOD**", [(2, 0.9)]),
        ([("**GOOD**", {"**GOOD**": 0.5, "**BAD**": 0.5})], "**GOOD**", [(2, 0.5)]),
        ([("GOOD", {"GOOD": 0.99})], "GOOD", [(0, 1.0)]),
        ([("<think>BAD", {"x": 1.0}), ("\n\n", {}), ("GOOD", {"GOOD": 1.0}), ("<|im_end|>", {})], "GOOD", [(0, 1.0)]),
        ([("BAD", {"BAD": 0.8, "GOOD": 0.2}), (" or ", {}), ("GOOD", {"GOOD": 0.5, "BAD": 0.5})], "BAD or GOOD",
         [(0, 0.2), (7, 0.5)]),
        ([("Good", {"Goods": 0.5, "Badly": 0.5})], "Good", []),
        ([("GOOD", {})], "GOOD", []),
        ([("GOOD", {"GOOD": 0.9, "BAD": 0.1})], "something else", []),
        ([("GOOD", {"GOOD": 0.9, "BAD": 0.1})], "", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [chat, completion])
def test_chances(form: Any, places: list[tuple[str, dict[str, float]]], text: str, found: list[Any]) -> None:
    got = chances(WORDS, text, form(*places))
    assert [place for place, _ in got] == [place for place, _ in found]
    assert [share for _, share in got] == pytest.approx([share for _, share in found])


def test_a_long_text_is_found_in_linear_time() -> None:
    text = "a" * 1_000_000 + "b" + "a" * 1_000_000
    assert chances(WORDS, text, chat(("a" * 8_000_000, {}))) == ()
    assert chances(WORDS, "GOOD" + text, chat(("GOOD", {"GOOD": 1.0}), (text, {}), ("a" * 8_000_000, {}))) == (
        (0, 1.0),
    )


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"content": None},
        {"content": ["GOOD"]},
        {"content": [{"token": "GOOD", "top_logprobs": [{"token": 3, "logprob": "x"}, None]}]},
        {"content": [{"token": "GOOD", "top_logprobs": {"GOOD": -0.1}}]},
        {"tokens": ["GOOD"], "top_logprobs": None},
        {"tokens": ["GOOD"], "top_logprobs": [{"GOOD": math.nan, "BAD": True}]},
        {"tokens": ["GOOD"], "top_logprobs": [{"GOOD": -(10**400)}]},
        {"tokens": ["GOOD"], "top_logprobs": []},
    ],
)
def test_what_has_another_form_counts_as_not_given(told: Any) -> None:
    assert chances(WORDS, "GOOD", told) == ()
