"""`swirl.core.quantities`, through the graders: numbers in many spellings against their own and other numbers."""

from __future__ import annotations

import pytest

from swirl.core.grading import grade, same_number

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
50¢ = 50
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
50¢ | $0.50
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
5 km | 5 km²
5 km³ | 5 km²
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
