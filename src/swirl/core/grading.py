"""Grading of predictions: HotPotQA's official text metrics, and whether an answer is right.

`normalize`, `exact_match` and `f1` follow hotpot_evaluate_v1.py. Deviation: a question may have several accepted
answers, and the best one counts. `grade` and `same_number` are ours: they fold what only looks different (`fold`) and
read numbers as people write them (`swirl.core.quantities` has the rule). No function raises: every string gets a
verdict.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from swirl.core.quantities import SIGNS, read

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_LOOKALIKES = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−⁻﹘﹣－︱︲", "-"),
        **dict.fromkeys("‘’‚‛′ʹʼʻ´‹›", "'"),
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("⁄∕", "/"),
    }
)
_RAISED = re.compile(r"(?<=\w)(?:[-⁺]?[⁰¹²³⁴-⁹]+)")
_FRACTION_AFTER_DIGIT = re.compile(r"(?<=[0-9])(?=[¼-¾⅐-⅞↉])")
_FIGURE = re.compile(r"(?:(?<!\w)-)?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
_SIGN = re.compile(f"[{SIGNS}]")


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


def fold(text: str) -> str:
    """The text in Unicode's form NFKC, with straight quotes, one kind of dash and no invisible characters.

    Raised digits become powers (10³: 10^3) and 1½ becomes 1 1/2; NFKC alone would make other numbers of them.
    """
    text = _FRACTION_AFTER_DIGIT.sub(" ", text.translate(_LOOKALIKES))
    text = unicodedata.normalize("NFKC", _RAISED.sub(lambda raised: "^" + raised.group(), text)).translate(_LOOKALIKES)
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def is_number(text: str) -> bool:
    """Whether the text is a number, with a unit or without."""
    return read(fold(text)) is not None


def same_number(prediction: str, answer: str) -> bool:
    """Whether both texts are the same number: "10", "$10.00", "**10**", "1e1" and "10 apples"; "1/2" and "0.5".

    `swirl.core.quantities` says what is a number. Two units must be of the same words: "10 apples" is not "10 pears".
    """
    predicted, golden = read(fold(prediction)), read(fold(answer))
    if predicted is None or golden is None or predicted.value != golden.value:
        return False
    return not predicted.unit or not golden.unit or predicted.unit == golden.unit


def grade(prediction: str, answers: Sequence[str]) -> bool:
    """The `match` grader: whether the prediction matches any accepted answer. A blank prediction never does.

    Both are folded (`fold`). Two numbers match by their values; a unit that the answer has, the prediction must have
    as well, unless it is a currency: "72 clips" matches 72, and "50" does not match "50 men". Any other texts match
    as `exact_match` says, if the figures in them are the same too, because `normalize` would make 12 of 1/2 and 31 of
    3-1. An answer that consists of articles ("A") or of punctuation is compared with them.
    """
    folded = fold(prediction)
    return any(_matches(folded, fold(answer)) for answer in answers)


def _matches(prediction: str, golden: str) -> bool:
    predicted, number = read(prediction), read(golden)
    if predicted and number:
        if predicted.value != number.value:
            return False
        if predicted.unit == number.unit or not number.unit or (number.money and not predicted.unit):
            return True
    key = _key(prediction)
    return bool(key) and key == _key(golden) and _figures(prediction) == _figures(golden)


def _key(text: str) -> str:
    """What of a text is compared: `normalize`d, or with articles, or with punctuation: the first that is not empty."""
    lowered = text.lower()
    forms = (normalize(text), " ".join(lowered.translate(_PUNCTUATION).split()), " ".join(lowered.split()))
    return next(filter(None, forms), "")


def _figures(text: str) -> list[str]:
    """The numbers in a text, with their signs and points, without thousands separators."""
    return [figure.replace(",", "") for figure in _FIGURE.findall(_SIGN.sub("", text))]
