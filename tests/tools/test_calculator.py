"""The calculator tool: values, refusals, bounds, GSM8K's annotations; and how a call of any tool is bounded."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.core.errors import ToolError
from swirl.core.types import Observation
from swirl.tools import Calculator
from swirl.tools.base import MAX_INPUT, Tool, call
from swirl.tools.calculator import canonical

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k/train.jsonl"


def run(expression: str) -> str:
    return Calculator().run(expression)


VALUES = """
48 / 2 -> 24
1 / 3 -> 0.333333
2/3 -> 0.666667
0.1 + 0.2 -> 0.3
.5 -> 0.5
5. -> 5
-1/8 -> -0.125
007 -> 7
1e3 -> 1000
-0.0000001 -> 0
0.0000005 -> 0.000001
1,000*2 -> 2000
1,234,567.50 + 1 -> 1234568.5
48/2= -> 24
12 + 3 = 15 -> 15
12 + 3 = 16 -> 15
12+3=? -> 15
12 + 3 == 15 -> 15
12 + 3 = $15.00 -> 15
12 + 3 = 15 apples -> 15
5 - 9 = −4 -> -4
1/2 + 1/4 = 3/4 -> 0.75
max(1, 2) = 2 -> 2
1=1 -> 1
2(3) -> 6
2(3+4) -> 14
2 (3 + 4) -> 14
(1+2)(3+4) -> 21
2(3)(4) -> 24
2(3)^2 -> 18
2^3(4) -> 32
-2(3) -> -6
6/2(3) -> 9
5!(2) -> 240
sqrt(4)(3) -> 6
pi(2) -> 6.283185
£5*2 -> 10
€1,000 + €20 -> 1020
5€ * 2 -> 10
₹7(2) -> 14
-£5 + ¥2 -> -3
$5 x $3 -> 15
2X3 -> 6
−3×4÷2^2 -> -3
7 – 2 -> 5
2·3 -> 6
20% of 50 -> 10
-2**2 -> -4
2**3**2 -> 512
2**-1 -> 0.5
-2**-2 -> -0.25
3*+6 -> 18
71+-3 -> 68
--3 -> 3
2 + 3 * 4 -> 14
(2 + 3) * 4 -> 20
8 / 4 / 2 -> 1
8 - 4 - 2 -> 2
180//3 -> 60
-7 // 2 -> -4
-7 % 3 -> 2
10 % 3 -> 1
7.5 % 2 -> 1.5
10 % (3) -> 1
10% -> 0.1
(10%) -> 0.1
10%= -> 0.1
10% + 1 -> 1.1
20% * 50 -> 10
50 - 20% -> 49.8
10 % -3 -> -2.9
20%**2 -> 0.04
10%% -> 0.001
0.5% % 0.002 -> 0.001
max(5%, 3%) -> 0.05
sqrt(16) -> 4
sqrt(2) -> 1.414214
sqrt(1/4) -> 0.5
sqrt(1,000,000) -> 1000
4**.5 -> 2
8**(1/3) -> 2
2**0.25 -> 1.189207
abs(-3) -> 3
floor(-3.5) -> -4
ceil(3.1) -> 4
min(3, 2, 1) -> 1
max(1,200) -> 200
round(2.5) -> 3
round(-2.5) -> -3
round(2/3, 2) -> 0.67
round(1250, -2) -> 1300
exp(1) -> 2.718282
ln(e) -> 1
log(100) -> 4.60517
log(100, 10) -> 2
log10(1/1000) -> -3
log2(8) -> 3
sin(pi/6) -> 0.5
cos(pi) -> -1
tan(pi/4) -> 1
sin(pi) -> 0
π -> 3.141593
factorial(5) -> 120
5! -> 120
0**0 -> 1
(-1)**(10**100) -> 1
(-2)**3 -> -8
(1 + 0.05/12)**360 -> 4.467744
(1 + 0.05/365)**3650 -> 1.648665
"""

REFUSALS = """
 -> empty
= -> empty
$ -> empty
2 + -> too early
5 % of -> too early
* 2 -> number
2 3 -> operator
5 apples -> operator
apples -> unknown name
12 + 3 = 10 + 5 -> only a number may follow '=', not '10 \\+ 5'; write one expression to calculate, without '='
x = 12 + 3 -> only a number may follow '=', not '12 \\+ 3'; write one
= 12 + 3 -> write one expression to calculate, without '='
12 + 3 = 15 = 15 -> only a number
= 15 -> empty
50¢ * 2 -> character
(1+2)3 -> operator before '3'
2( -> too early
2() -> number
1,00 -> operator
12,3 -> operator
1,0000 -> operator
1.2.3 -> operator
1) -> operator
(1 -> parenthesis
sqrt 4 -> parentheses
sqrt() -> number
sqrt(4, 2) -> sqrt takes 1 argument
__import__('os') -> character
a.b -> character
[1] -> character
٣+1 -> character
1/0 -> division by zero
1//0 -> division by zero
1 % 0 -> division by zero
0**-1 -> division by zero
sqrt(-1) -> not a real
(-8)**(1/3) -> not a real
ln(0) -> positive
log(2, 1) -> base
factorial(2.5) -> whole
factorial(-1) -> whole
round(1, .5) -> whole
tan(pi/2) -> no value
9**9**9 -> too large
1e999 -> too large
factorial(10**6) -> too large
7!! -> too large
exp(10**9) -> too large
exp(300) -> all its digits
2**(10**12) -> exponent
2**-99999999 -> close to zero
exp(-10**9) -> close to zero
sin(10**99) -> angle
"""


def table(text: str) -> list[tuple[str, str]]:
    """The pairs (left, right) of lines `left -> right`."""
    return [(left, right) for left, _, right in (line.partition(" -> ") for line in text.strip("\n").split("\n"))]


@pytest.mark.parametrize(("expression", "value"), table(VALUES))
def test_value(expression: str, value: str) -> None:
    assert run(expression) == value


@pytest.mark.parametrize(("expression", "reason"), table(REFUSALS))
def test_refusal_says_why(expression: str, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        run(expression)


def test_size_limits_are_exact() -> None:
    assert run("0" * 399 + "7") == "7"
    with pytest.raises(ToolError, match="too long: 401 characters, at most 400"):
        run("0" * 401)
    assert run("(" * 39 + "7" + ")" * 39) == "7"
    for nested in ("(" * 40 + "7" + ")" * 40, "-" * 40 + "7", "2**" * 40 + "1"):
        with pytest.raises(ToolError, match="nested too deeply, at most 40"):
            run(nested)
    assert run("9" * 200) == "9" * 200
    with pytest.raises(ToolError, match="too large"):
        run("9" * 203)


def test_hostile_expressions_take_milliseconds() -> None:
    run("sqrt(2)")
    hostile = [
        "2**(123456789/987654321)",
        "1.0000001**(10**9)",
        "(1+1/10**90)**999999999",
        "(10**199)**(1/10**199)",
        "((1/7)**300)*((1/11)**300)*((1/13)**300)",
        "+".join(["exp(1.1)"] * 40),
        "*".join(["(1/7)**300"] * 30),
        "sqrt(sqrt(sqrt(sqrt(sqrt(1e180 + 1e-180)))))",
        "tan(10**9 - 1e-200)",
        "%".join(["1e99"] * 60),
        "(99)" * 100,
        "(1/7)" * 80,
        "1=" + "9" * 90 + "^999",
        "1=" + "," * 398,
    ]
    gc.disable()  # after torch and mlflow are imported, one collection takes longer than the limit below
    try:
        for expression in hostile:
            started = time.process_time()
            call(Calculator(), expression)
            assert time.process_time() - started < 0.25, expression
    finally:
        gc.enable()


def test_gsm8k_annotations() -> None:
    """Every `<<expression=result>>` of the training file, in all digits of its result."""
    if not GSM8K.exists():
        pytest.skip(f"GSM8K's training file is not at {GSM8K}")
    with GSM8K.open(encoding="utf-8") as lines:
        annotations = [note for line in lines for note in re.findall(r"<<(.*?)=([^=]*?)>>", json.loads(line)["answer"])]
    assert len(annotations) == 23716
    calculator = Calculator()
    wrong = [(left, right) for left, right in annotations if Fraction(calculator.run(left)) != Fraction(right)]
    assert wrong == []


def _expressions() -> st.SearchStrategy[tuple[str, Fraction | None]]:
    """Expressions with their value in Python's own fractions; None where it divides by zero."""
    numbers = st.decimals(min_value=0, max_value=9999, places=2).map(lambda d: (str(d), Fraction(d)))

    def combine(
        children: st.SearchStrategy[tuple[str, Fraction | None]],
    ) -> st.SearchStrategy[tuple[str, Fraction | None]]:
        binary = st.tuples(st.sampled_from(["+", "-", "*", "/", "//"]), children, children).map(_apply)
        return binary | children.map(lambda c: (f"-({c[0]})", None if c[1] is None else -c[1]))

    return st.recursive(numbers, combine, max_leaves=6)


def _apply(parts: tuple[str, tuple[str, Fraction | None], tuple[str, Fraction | None]]) -> tuple[str, Fraction | None]:
    operator, (left, a), (right, b) = parts
    text = f"({left}) {operator} ({right})"
    if a is None or b is None or (b == 0 and operator in ("/", "//")):
        return text, None
    if operator in ("/", "//"):
        return text, a / b if operator == "/" else Fraction(a // b)
    return text, {"+": a + b, "-": a - b, "*": a * b}[operator]


@given(_expressions())
def test_agrees_with_fractions(case: tuple[str, Fraction | None]) -> None:
    expression, value = case
    if value is None:
        with pytest.raises(ToolError, match="division by zero"):
            run(expression)
    else:
        assert abs(Fraction(run(expression)) - value) <= Fraction(1, 2_000_000)


@given(
    st.lists(st.sampled_from([*"0123456789.,+-*/%^()!= xe$£?", "**", "sqrt(", "log(", "of"])).map("".join) | st.text()
)
@settings(deadline=None)
def test_a_call_is_total(expression: str) -> None:
    observation = call(Calculator(), expression)
    assert observation.error == observation.text.startswith("error: ")
    if not observation.error:
        assert re.fullmatch(r"-?[0-9]+(\.[0-9]{1,6})?", observation.text)
        assert canonical(expression) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 12", "12+3"),
        ("1,000 * 2.50", "2.5x1000="),
        ("1 + 2 + 3", "3 + (1 + 2)"),
        ("(3 + 12) * 2", "2 * (12 + 3)"),
        ("20% * 50", "50 * 0.2"),
        ("2(3 + £4) = 14", "(4+3)*2"),
        ("((12)) - 3", "12 − 3"),
    ],
)
def test_canonical_equal(one: str, other: str) -> None:
    assert canonical(one) == canonical(other) is not None


@pytest.mark.parametrize(
    ("one", "other"), [("12 - 3", "3 - 12"), ("1/2", "0.5"), ("2 * 3", "2 + 3"), ("1 + 2", "1 + 2 + 0"), ("6", "2 * 3")]
)
def test_canonical_different(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_canonical_form() -> None:
    assert canonical("12 + 3 - max(4, 1.50)") == "(- (+ 12 3) (max 4 3/2))"
    assert canonical("1 +") is None


class Scripted:
    """A tool that sleeps, breaks or answers as its payload says."""

    name = kind = tag = "scripted"
    description = "does as it is told"
    output_limit = 40

    def __init__(self, time_limit_s: float = 0.0) -> None:
        self.time_limit_s = time_limit_s

    def run(self, payload: str) -> str:
        if payload == "break":
            raise KeyError("inside")
        if payload == "refuse":
            raise ToolError("I will not")
        if payload == "sleep":
            time.sleep(60)
        return payload


@pytest.mark.parametrize("tool", [Scripted(), Scripted(time_limit_s=60)])
def test_call_turns_failures_into_observations(tool: Tool) -> None:
    assert call(tool, "hello") == Observation("hello", error=False)
    assert call(tool, "refuse") == Observation("error: I will not", error=True)
    assert call(tool, "break") == Observation("error: scripted failed with Ke ... [cut]", error=True)
    assert call(tool, "y" * 41) == Observation("y" * 30 + " ... [cut]", error=False)
    assert call(tool, "y" * 40) == Observation("y" * 40, error=False)
    assert call(tool, "y" * (MAX_INPUT + 1)) == Observation("error: the call is too long: 2 ... [cut]", error=True)


def test_call_answers_at_the_time_limit() -> None:
    started = time.monotonic()
    assert call(Scripted(time_limit_s=0.05), "sleep") == Observation(
        "error: scripted took longer than 0.05 s", error=True
    )
    assert time.monotonic() - started < 40


def test_importing_the_tools_imports_no_library() -> None:
    code = (
        "import sys, swirl.tools, swirl.tools.actions, swirl.core.grading; print({'sympy', 'bm25s'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
