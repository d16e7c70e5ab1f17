"""Grading of predictions: HotPotQA's official text metrics, and equality of numbers however they are written.

`normalize`, `exact_match` and `f1` follow hotpot_evaluate_v1.py. Deviation: a question may have several accepted
answers, and the best one counts. No function raises: every string gets a verdict.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_NUMBER = re.compile(
    r"(?P<sign>[-+−])?[$€£]?(?P<inner>[-+−])?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+|(?=\.[0-9]))(?P<decimals>\.[0-9]*)?%?\.?"
)
_LONGEST_NUMBER = 64
"""Longest text, in characters, that is read as a number."""


def normalize(text: str) -> str:
    """The text in lower case, without ASCII punctuation, articles and extra blanks."""
    lowered = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the prediction equals one of the accepted answers after `normalize`."""
    predicted = normalize(prediction)
    return any(predicted == normalize(answer) for answer in answers)


def f1(prediction: str, answers: Sequence[str]) -> tuple[float, float, float]:
    """(F1, precision, recall) of the words, against the accepted answer with the best F1; zeros without answers.

    F1 = 2 P R / (P + R), P = shared words / predicted words, R = shared words / answer words, words counted with
    repetition. When either text is yes, no or noanswer, only an exact match scores.
    """
    scores = [_f1_of_one(normalize(prediction), normalize(answer)) for answer in answers]
    return max(scores, key=lambda score: score[0], default=(0.0, 0.0, 0.0))


def _f1_of_one(predicted: str, golden: str) -> tuple[float, float, float]:
    """(F1, precision, recall) of two normalised texts."""
    nothing = (0.0, 0.0, 0.0)
    if predicted != golden and (predicted in _CLOSED_ANSWERS or golden in _CLOSED_ANSWERS):
        return nothing
    predicted_words, golden_words = predicted.split(), golden.split()
    shared = sum((Counter(predicted_words) & Counter(golden_words)).values())
    if shared == 0:
        return nothing
    precision, recall = shared / len(predicted_words), shared / len(golden_words)
    return 2 * precision * recall / (precision + recall), precision, recall


def same_number(prediction: str, answer: str) -> bool:
    """Whether both texts write the same number: "10", "10.00", "$10", "$10.00"; "1,000" and "1000".

    Strict: the whole text must be one decimal number in ASCII digits. Allowed around it are blanks, a sign, one of
    $ € £ before it, a per cent sign and a full stop after it; the currency and per cent signs do not change the value.
    Text with units or words ("10 apples"), a range, a fraction or a power of ten is not a number here, because
    "10 million" is not 10.
    """
    predicted, golden = _number(prediction), _number(answer)
    return predicted is not None and predicted == golden


def grade(prediction: str, answers: Sequence[str]) -> bool:
    """The `match` grader: whether the prediction matches any accepted answer.

    An answer that is a number is compared by `same_number` alone: `normalize` drops points and signs, so that 1.5
    would match 15. Any other answer is compared by `exact_match`.
    """
    return any(
        exact_match(prediction, [answer]) if _number(answer) is None else same_number(prediction, answer)
        for answer in answers
    )


def _number(text: str) -> Fraction | None:
    """The value of a text that is one number as `same_number` defines it; None for any other text."""
    stripped = text.strip() if len(text) <= 2 * _LONGEST_NUMBER else ""
    match = _NUMBER.fullmatch(stripped) if len(stripped) <= _LONGEST_NUMBER else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    digits = match["digits"].replace(",", "") + (match["decimals"] or "")
    negative = (match["sign"] or match["inner"] or "") in ("-", "−")
    value = Fraction("0" + digits)
    return -value if negative else value
