"""`swirl.core.grading`: HotPotQA's metrics against values computed by hand, and numbers in different spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.core.grading import exact_match, f1, grade, normalize, same_number


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


@pytest.mark.parametrize(
    "spelling", ["10", "10.00", "$10", "$10.00", " 10 ", "+10", "10.", "10.0.", "010", "€10", "10%", "$10.00."]
)
def test_spellings_of_ten(spelling: str) -> None:
    assert same_number(spelling, "10")
    assert same_number("$10.00", spelling)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [("1,000", "1000"), ("1,234,567.50", "1234567.5"), (".5", "0.5"), ("-$5", "-5"), ("$-5", "−5"), ("-0", "0")],
)
def test_same_number(prediction: str, answer: str) -> None:
    assert same_number(prediction, answer)
    assert same_number(answer, prediction)


@pytest.mark.parametrize(
    "prediction",
    [
        *[
            "",
            " ",
            ".",
            "$",
            "-",
            "%",
            "10 apples",
            "10 million",
            "10/1",
            "1e1",
            "1,0",
            "10,00",
            "ten",
            "10 10",
            "--10",
        ],
        *["-$-10", "10-12", "x10", "1_0", "١٠", "10\x00", "-10", "10.01", "9.999999999999999999", "1" * 5000, "nan"],
        *["100", "1"],
    ],
)
def test_not_ten(prediction: str) -> None:
    assert not same_number(prediction, "10")


def test_text_is_never_the_same_number() -> None:
    assert not same_number("Paris", "Paris")
    assert not same_number("", "")


def test_grade() -> None:
    assert grade("the Paris", ["London", "paris"])
    assert not grade("Paris", ["London"])
    assert grade("$1,080.00", ["1080"])
    assert not grade("1.5", ["15"]), "normalisation would drop the point"
    assert not grade("-5", ["5"]), "normalisation would drop the sign"
    assert grade("-5", ["twelve", "-5"])
    assert not grade("24 apples", ["24"])
    assert grade("7 march 1990", ["7 March 1990"])
    assert not grade("anything", [])


@given(st.text(alphabet="0123456789.,$%-+ the€", max_size=12) | st.text(), st.text())
def test_total(prediction: str, answer: str) -> None:
    assert exact_match(answer, [answer])
    assert same_number(prediction, answer) == same_number(answer, prediction)
    assert grade(prediction, [prediction])
    assert 0 <= f1(prediction, [answer])[0] <= 1
