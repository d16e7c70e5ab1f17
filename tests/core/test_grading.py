"""`swirl.core.grading`: HotPotQA's metrics against values computed by hand, and numbers in different spellings."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.core.grading import exact_match, f1, fold, grade, normalize, same_number


def test_normalize() -> None:
    assert normalize("  The  Eiffel-Tower, (Paris)\tand a hat. ") == "eiffeltower paris and hat"
    assert normalize("Thea and Ann") == "thea and ann"
    assert normalize("the") == ""


def test_exact_match_is_against_any_answer() -> None:
    assert exact_match("The Beatles!", ["Queen", "beatles"])
    assert not exact_match("The Beatles", ["Queen", "the Beatles of Liverpool"])
    assert not exact_match("", [])


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("the cat sat", ["cat sat"], (1.0, 1.0, 1.0)),
        ("black cat sat down", ["cat slept"], (1 / 3, 1 / 4, 1 / 2)),
        ("cat cat", ["cat dog"], (1 / 2, 1 / 2, 1 / 2)),
        ("dog", ["cat"], (0.0, 0.0, 0.0)),
        ("red fox", ["red", "red fox runs"], (4 / 5, 1.0, 2 / 3)),
        ("yes it is", ["yes"], (0.0, 0.0, 0.0)),
        ("no", ["no idea"], (0.0, 0.0, 0.0)),
        ("noanswer", ["noanswer given"], (0.0, 0.0, 0.0)),
        ("Yes.", ["yes"], (1.0, 1.0, 1.0)),
        ("", [""], (0.0, 0.0, 0.0)),
        ("cat", [], (0.0, 0.0, 0.0)),
    ],
)
def test_f1(prediction: str, answers: list[str], expected: tuple[float, float, float]) -> None:
    assert f1(prediction, answers) == pytest.approx(expected, abs=1e-12)


SAME = """
10 = 10
10.00 = 10
010 = 10
10. = 10
+10 = 10
-0 = 0
.5 = 0.5
-5 = −5
1,000 = 1000
1,234,567.50 = 1234567.5
1'000 = 1000
1’000 = 1000
1,00,000 = 100000
$10 = 10
$10.00. = 10
-$5 = -5
$-5 = -5
€10 = 10
10€ = 10
10 € = 10
₹ 1,500 = 1500
¥500 = 500
US$13 = 13
A$ 7 = 7
USD 42 = 42
42 CHF = 42
Rs. 42 = 42
kr 42 = 42
42 zł = 42
$1,234.50 = 1234.5
42 dollars = 42
42 US dollars = 42
42 Canadian dollars = 42
50% = 50
50 % = 50
50 percent = 50
50 per cent = 50
**42** = 42
*42* = 42
_42_ = 42
__42__ = 42
`42` = 42
“42” = 42
**_$42_**. = 42
**42** clips = 42
$42$ = 42
$$42$$ = 42
\\boxed{42} = 42
\\(42\\) = 42
\\$42 = 42
72 clips = 72
72 hair clips. = 72
5km = 5
60 km/h = 60
$5/hour = 5
9 miles per hour = 9
20 °C = 20
20 degrees Celsius = 20
120 m² = 120
120 ft^2 = 120
5 p.m. = 5
6' = 6
3 times = 3
1e3 = 1000
1.5E-2 = 0.015
10^3 = 1000
10**3 = 1000
10³ = 1000
10⁻³ = 0.001
2^{10} = 1024
1.5 x 10^6 = 1500000
1.5 × 10⁶ = 1500000
3*10^2 = 300
1/2 = 0.5
-1/2 = -0.5
1 / 2 = 0.5
½ = 0.5
1 1/2 = 1.5
1½ = 1.5
3/4 cup = 0.75
10 million = 10000000
$1.7 billion = 1700000000
$5m = 5000000
10k = 10000
2 dozen eggs = 24
5 hundred thousand = 500000
1\u202f234\u202f567 = 1234567
10 000 km = 10000
The answer is 42. = 42
**Answer:** $42 = 42
= 42 = 42
１０ = 10
"""
"""A prediction and the answer that it is right for."""

DIFFERENT = """
12 | 1/2
31 | 3-1
3-1 | 31
1.5 | 15
15 | 1.5
-5 | 5
5 | -5
--5 | 5
1:5 | 15
10.01 | 10
9.999999999999999999 | 10
1,0 | 10
10,00 | 10
1.234,50 EUR | 1234.5
1.234 | 1234
1_0 | 10
1 0 | 10
10 0000 | 100000
12 34 | 1234
10 10 | 10
٣ | 3
10⁻¹ | 101
10² | 102
1½ | 5.5
1/0 | 1
10 million | 10
10k | 10
5M | 5
5M | 5000000
2 dozen | 2
50% | 0.5
0.5 | 50%
50 cents | 0.5
1e3 | 1
1e3 | 13
10^3 | 10
2^10 | 210
10-12 | 10
10–12 | 10
10 to 12 | 10
10 or 11 | 10
10, 11 | 10
ten | 10
3 and a half | 3
2 thirds | 2
10 squared | 10
5 + 5 = 10 | 10
11th | 11
1990s | 1990
1990's | 1990
3x | 3
7-Eleven | 7
10-year | 10
Apollo 11 | 11
11 | Apollo 11
Route 66 | 66
66 | Route 66
50 | 50 Cent
50 Cent | 50
3 Doors Down | 3
12 Angry Men | 12
Boeing 747 | 747
7 March | 7
7 March 1990 | 1990
March 7 | 7
44 BC | 44
2006 season | 2006
7/3/1990 | 1990
1990-91 | 199091
5:30 | 530
5'10" | 510
5 feet 10 inches | 5
5. Paris | 5
12 mi southeast of Rome | 12
10 apples | 10 pears
10 | 10 apples
42 euros | 42 dollars
10 apples and 2 pears | 10
1.50 miles | 150 miles
-5 degrees | 5 degrees
x10 | 10
x = 10 | 10
about 10 | 10
nan | 10
"""
"""A prediction and the answer that it is wrong for."""


def pairs(table: str, between: str) -> list[tuple[str, str]]:
    """The pairs of lines `left between right`."""
    return [(left, right) for left, _, right in (line.rpartition(between) for line in table.strip().split("\n"))]


@pytest.mark.parametrize(("prediction", "answer"), pairs(SAME, " = "))
def test_a_number_is_right_as_people_write_it(prediction: str, answer: str) -> None:
    assert grade(prediction, [answer])
    assert same_number(prediction, answer)
    assert same_number(answer, prediction)


@pytest.mark.parametrize(("prediction", "answer"), pairs(DIFFERENT, " | "))
def test_another_number_is_wrong(prediction: str, answer: str) -> None:
    assert not grade(prediction, [answer])


@pytest.mark.parametrize("one", ["10", "10.00", "$10", "10%", "€10", "$10.00."])
def test_currency_and_per_cent_signs_are_not_compared(one: str) -> None:
    assert all(same_number(one, other) for other in ("10", "10.00", "$10", "10%", "€10", "$10.00."))


@pytest.mark.parametrize(
    "text", ["", " ", ".", "$", "-", "%", "-$-10", "10\x00", "1" * 5000, "1" * 101, "ten", "Paris"]
)
def test_what_is_no_number_is_not_the_same_one(text: str) -> None:
    assert not same_number(text, "10")
    assert not same_number(text, text)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("the Paris", "paris"),
        ("7 march 1990", "7 March 1990"),
        ("October 9 1990", "October 9, 1990"),
        ("110 Miles", "110 miles"),
        ("1,200 pages", "1200 pages"),
        ("the 110 miles", "110 miles"),
        ("1.50 miles", "1.5 miles"),
        ("10 million", "$10 million"),
        ("$42", "42 dollars"),
        ("F16", "F-16"),
        ("3-1", "3-1"),
        ("3:1", "3-1"),
        ("1990–91", "1990-91"),
        ("apollo 11", "Apollo 11"),
        ("221b Baker Street", "221B Baker Street"),
        ("5m", "5M"),
    ],
)
def test_texts_with_figures_that_are_right(prediction: str, answer: str) -> None:
    assert grade(prediction, ["twelve", answer])


@pytest.mark.parametrize(
    ("prediction", "answer", "official"),
    [
        ("the Beatles’ song", "The Beatles' song", False),
        ("“Heroes”", '"Heroes"', False),
        ("Cafe\u0301 Tortoni", "Café Tortoni", False),
        ("Mauthausen-Gusen", "Mauthausen–Gusen", False),
        ("Jean\u2011Luc", "Jean-Luc", False),
        ("Hawaiʻi", "Hawai'i", False),
        ("ﬁlm noir", "film noir", False),
        ("Ｔｏｋｙｏ", "Tokyo", False),
        ("H₂O", "H2O", False),
        ("New\u00a0York", "New York", True),
        ("zero\u200bwidth", "zerowidth", False),
        ("Louis Ⅻ", "Louis XII", False),
    ],
)
def test_what_only_looks_different_is_right_and_stays_wrong_officially(
    prediction: str, answer: str, official: bool
) -> None:
    assert grade(prediction, [answer])
    assert grade(answer, [prediction])
    assert exact_match(prediction, [answer]) is official


@pytest.mark.parametrize(("prediction", "answer"), [("cafe", "café"), ("Malmo", "Malmö"), ("resume", "résumé")])
def test_another_letter_is_another_letter(prediction: str, answer: str) -> None:
    assert not grade(prediction, [answer])


@pytest.mark.parametrize("answer", ["A", "The The", "the", "!?", "+"])
def test_no_answer_is_never_right(answer: str) -> None:
    for nothing in ("", " ", "\u200b"):
        assert not grade(nothing, [answer])
    assert grade(answer, [answer])
    assert grade(f" {answer.lower()} ", [answer])


def test_answers_of_articles_or_punctuation_are_told_apart() -> None:
    assert grade("a.", ["A"])
    assert not grade("The", ["A"])
    assert not grade("the", ["The The"])
    assert not grade("-", ["+"])
    assert not grade(".", ["A"])
    assert exact_match("", ["A"]), "as HotPotQA's own script has it"


def test_grade_is_against_any_answer() -> None:
    assert grade("the Paris", ["London", "paris"])
    assert grade("-5", ["twelve", "-5"])
    assert not grade("Paris", ["London"])
    assert not grade("anything", [])


@given(st.text(alphabet="0123456789.,$%-+/^*_'½² theexkmM€\\", max_size=12) | st.text(), st.text())
def test_total(prediction: str, answer: str) -> None:
    assert exact_match(answer, [answer])
    assert same_number(prediction, answer) == same_number(answer, prediction)
    assert grade(prediction, [prediction]) == bool(fold(prediction).strip())
    assert 0 <= f1(prediction, [answer])[0] <= 1


def test_long_texts_take_no_time() -> None:
    started = time.process_time()
    for text in ("1," * 50_000, "*" * 100_000, "1,111" * 20_000, "-" * 100_000, "9^999", "9" * 90 + "^999"):
        assert grade(text, [text])
    assert time.process_time() - started < 5
