"""The calculator's numbers: exact fractions, and SymPy for irrational values. Every operation is bounded.

Sums, products, quotients and whole powers are exact. A function or power with an irrational value is computed by
SymPy to 60 digits and kept as a fraction with its first 40, so `8 ** (1/3)` is 2 and `sin(pi)` is 0. Sizes are
checked before anything large is computed. Angles are in radians, `log` is the natural logarithm, halves are rounded
away from zero, `//` and `mod` round down as in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from swirl.core.errors import ToolError

if TYPE_CHECKING:
    import sympy

MAX_DIGITS = 200
"""Digits before the point of any value, give or take one; longer values are refused."""

_EXACT_DIGITS = 1000
"""Maximum number of digits of a fraction that is kept exact; a longer denominator is replaced by `_FINE`."""

_WORKING = 60
"""Digits that SymPy computes with."""

_CARRIED = 40
"""Digits kept of an irrational value, which must be at most 10^30 so that all digits before the point are right."""

_FINE = 10 ** (_CARRIED + MAX_DIGITS)
"""The denominator that replaces one of more than `_EXACT_DIGITS` digits."""

_TOO_LARGE = f"the result is too large, at most about {MAX_DIGITS} digits"


def compute(name: str, values: list[Fraction]) -> Fraction:
    """The value of one operation of `swirl.tools.grammar`. Raises `ToolError` when there is none within bounds."""
    return bounded(_OPERATIONS[name](*values))


def bounded(value: Fraction) -> Fraction:
    """`value`, rounded down if its denominator is too long. Raises `ToolError` when it is too large."""
    if _digits(value.numerator) - _digits(value.denominator) > MAX_DIGITS:
        raise ToolError(_TOO_LARGE)
    if _digits(value.denominator) > _EXACT_DIGITS:
        return Fraction(math.floor(value * _FINE), _FINE)
    return value


def decimal(value: Fraction, places: int = 6) -> str:
    """`value` with at most `places` decimals, without trailing zeros or separators: 24, 0.333333, -0.5."""
    scaled = _rounded(value * 10**places).numerator
    whole, part = divmod(abs(scaled), 10**places)
    text = f"{whole}.{part:0{places}d}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


def _digits(number: int) -> int:
    """The number of decimal digits, or one more."""
    return number.bit_length() * 30103 // 100000 + 1


def _rounded(value: Fraction, places: Fraction | int = 0) -> Fraction:
    """`value` rounded to `places` decimals (-1: to tens), halves away from zero."""
    if Fraction(places).denominator != 1 or abs(Fraction(places)) > 50:
        raise ToolError("round takes a whole number of decimals, at most 50")
    scale = Fraction(10) ** int(places)
    whole = math.floor(abs(value) * scale + Fraction(1, 2))
    return Fraction(whole if value >= 0 else -whole) / scale


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise ToolError("division by zero")
    return a / b


def _floor_divide(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.floor(_divide(a, b)))


def _modulo(a: Fraction, b: Fraction) -> Fraction:
    return a - b * _floor_divide(a, b)


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise ToolError("factorial needs a whole number that is not negative")
    if value > MAX_DIGITS:
        raise ToolError(_TOO_LARGE)
    return Fraction(math.factorial(int(value)))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent; exact where a whole exponent keeps it short enough."""
    if base == 0:
        if exponent < 0:
            raise ToolError("division by zero")
        return Fraction(int(exponent == 0))
    if base < 0 and exponent.denominator != 1:
        raise ToolError("a negative number to a fractional power is not a real number")
    if exponent == Fraction(1, 2):
        return _sqrt(base)
    length = max(_digits(base.numerator), _digits(base.denominator))
    if exponent.denominator == 1 and (abs(base) == 1 or length * abs(exponent) <= _EXACT_DIGITS):
        return base ** (int(exponent) % 2 if abs(base) == 1 else int(exponent))
    if abs(exponent) > 10**9:
        raise ToolError("the exponent is too large")
    magnitude = float(exponent) * (math.log10(abs(base.numerator)) - math.log10(base.denominator))
    if magnitude > MAX_DIGITS:
        raise ToolError(_TOO_LARGE)
    if magnitude < -MAX_DIGITS:
        raise ToolError("the result is too close to zero")
    value = _carried(_float(abs(base)) ** _float(exponent))
    return -value if base < 0 and exponent.numerator % 2 else value


def _sqrt(value: Fraction) -> Fraction:
    if value < 0:
        raise ToolError("the square root of a negative number is not a real number")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else _by_sympy("sqrt", value)


def _exp(value: Fraction) -> Fraction:
    if abs(value) > 400:
        raise ToolError(_TOO_LARGE if value > 0 else "the result is too close to zero")
    return _by_sympy("exp", value)


def _log(value: Fraction, base: Fraction | None = None) -> Fraction:
    if value <= 0 or (base is not None and (base <= 0 or base == 1)):
        raise ToolError("the logarithm needs a positive number, and a positive base other than 1")
    logarithm = _function("log")(_float(value))
    return _carried(logarithm if base is None else logarithm / _function("log")(_float(base)))


def _angle(name: str) -> Callable[[Fraction], Fraction]:
    """The function sin, cos or tan; an absolute value below 10^-40 is taken for 0, one above 10^40 for a pole."""

    def compute_angle(value: Fraction) -> Fraction:
        if abs(value) > 10**9:
            raise ToolError(f"the angle of {name} is too large, at most 10^9 radians")
        result = _function(name)(_float(value))
        if abs(result) > 10**_CARRIED:
            raise ToolError(f"{name} has no value there")
        return _carried(result) if abs(result) > Fraction(1, 10**_CARRIED) else Fraction(0)

    return compute_angle


def _by_sympy(name: str, value: Fraction) -> Fraction:
    return _carried(_function(name)(_float(value)))


def _function(name: str) -> Callable[[sympy.Float], sympy.Float]:
    """One of SymPy's functions; its name comes from this module, never from a model."""
    import sympy

    function: Callable[[sympy.Float], sympy.Float] = getattr(sympy, name)
    return function


def _float(value: Fraction) -> sympy.Float:
    """`value` to 60 digits, so that computing a function of it costs the same whatever its size."""
    import sympy

    return sympy.Float(sympy.Rational(value.numerator, value.denominator), _WORKING)


def _carried(value: sympy.Float) -> Fraction:
    """The first 40 digits of `value`, as an exact fraction. Raises `ToolError` above 10^30."""
    import sympy

    if abs(value) > 10**30:
        raise ToolError("the result is too large to be computed to all its digits")
    return Fraction(str(sympy.Float(value, _CARRIED)))


_PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494")
_E = Fraction("2.71828182845904523536028747135266249775724709369995957496697")

_OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "//": _floor_divide,
    "mod": _modulo,
    "**": _power,
    "neg": lambda a: -a,
    "percent": lambda a: a / 100,
    "factorial": _factorial,
    "sqrt": _sqrt,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "round": _rounded,
    "min": min,
    "max": max,
    "exp": _exp,
    "ln": _log,
    "log": _log,
    "log10": lambda a: _log(a, Fraction(10)),
    "log2": lambda a: _log(a, Fraction(2)),
    "sin": _angle("sin"),
    "cos": _angle("cos"),
    "tan": _angle("tan"),
    "pi": lambda: _PI,
    "e": lambda: _E,
}
