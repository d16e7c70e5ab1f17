"""The calculator tool: exact arithmetic on a model's expressions, behind a strict grammar."""

from __future__ import annotations

from fractions import Fraction

from swirl.core.errors import ToolError
from swirl.core.types import ActionKind
from swirl.tools import arithmetic, grammar


class Calculator:
    """Answers an arithmetic expression with a decimal; `swirl.tools.grammar` defines what may be written.

    A call takes milliseconds whatever the expression, because its length, its nesting and the size of every
    intermediate value are limited before anything is computed; so no time limit has to be enforced.
    """

    name = "calculator"
    kind = ActionKind.CALCULATE
    tag = "math_exp"
    description = "evaluates an arithmetic expression"
    time_limit_s = 0.0
    output_limit = arithmetic.MAX_DIGITS + 10

    def run(self, expression: str) -> str:
        """The value with at most 6 decimals and without separators: `48 / 2` gives `24`, `1 / 3` gives `0.333333`.

        Raises `ToolError` for what does not parse, has no real value, or is out of bounds.
        """
        return arithmetic.decimal(_evaluate(grammar.parse(expression)))


def canonical(expression: str) -> str | None:
    """A normal form, equal for two expressions that differ only in spelling and in the order of + and * operands.

    Spacing, the spelling of a number (1,000 or 1000.0; 20% or 0.2) and redundant parentheses make no difference; the
    operands of + and of * are sorted at every level, where a chain of one operator counts as one operation. Nothing
    else is rewritten: `12 - 3` is not `3 - 12`, and `1/2` is not `0.5`. None for an expression that does not parse.
    """
    try:
        operations = grammar.parse(expression)
    except ToolError:
        return None
    stack: list[tuple[str, list[str]]] = []
    for item in operations:
        if isinstance(item, Fraction):
            stack.append(("", [str(item)]))
            continue
        split = len(stack) - item.arity
        operands = stack[split:]
        del stack[split:]
        stack.append(_normal(item.name, operands))
    return _text(stack[0])


def _evaluate(operations: grammar.Postfix) -> Fraction:
    """The value of a postfix expression."""
    stack: list[Fraction] = []
    for item in operations:
        if isinstance(item, Fraction):
            stack.append(arithmetic.bounded(item))
            continue
        split = len(stack) - item.arity
        values = stack[split:]
        del stack[split:]
        stack.append(arithmetic.compute(item.name, values))
    return stack[0]


def _normal(name: str, operands: list[tuple[str, list[str]]]) -> tuple[str, list[str]]:
    """An operation's normal form: ("", [text]) for a number, otherwise (operation, texts of its operands)."""
    if name in ("percent", "neg") and operands[0][0] == "":
        value = Fraction(operands[0][1][0])
        return "", [str(value / 100 if name == "percent" else -value)]
    if name in ("+", "*"):
        texts = [text for form in operands for text in (form[1] if form[0] == name else [_text(form)])]
        return name, sorted(texts)
    return name, [_text(form) for form in operands]


def _text(form: tuple[str, list[str]]) -> str:
    """A normal form as text: `3`, `(+ 12 3)`."""
    name, operands = form
    return f"({' '.join([name, *operands])})" if name else operands[0]
