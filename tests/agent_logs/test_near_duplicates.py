"""MinHash against the similarity that it estimates."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swirl.agent_logs.near_duplicates import near_duplicates, of_text


def words(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(count)]


def jaccard(one: str, other: str) -> float:
    """The plain similarity of all pieces of five characters."""
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize(("changed", "expected"), [(0, 1.0), (10, 0.9), (40, 0.67), (100, 0.33), (200, 0.0)])
def test_a_signature_estimates_the_similarity(changed: int, expected: float) -> None:
    one = words(0, 200)
    other = [*words(1, 200)[:changed], *one[changed:]]
    exact = jaccard(" ".join(one), " ".join(other))
    assert exact == pytest.approx(expected, abs=0.02)
    assert (of_text(" ".join(one)) == of_text(" ".join(other))).mean() == pytest.approx(exact, abs=0.16)


def test_each_later_one_is_paired_with_the_earliest() -> None:
    texts = [" ".join(words(seed, 60)) for seed in (0, 1, 0, 2, 1, 0)]
    texts[5] = texts[5].upper() + "!"
    signatures = b"".join(of_text(text).tobytes() for text in texts)
    assert near_duplicates(signatures) == [(2, 0), (4, 1), (5, 0)]
    assert near_duplicates(b"") == [] and near_duplicates(of_text("").tobytes()) == []


def test_short_and_odd_texts_have_signatures() -> None:
    assert of_text("a").dtype == np.uint32 and len(of_text("\ud800 é")) == 64
