"""The calculator's grammar: parses text into operations in postfix order. No text of a model is run as code.

    expression = term {("+" | "-") term}
    term       = unary {("*" | "/" | "//" | "%" | "of" | nothing before "(") unary}
    unary      = ("+" | "-") unary | power
    power      = postfix ["**" unary]                       right-associative, binds tighter than a sign before it
    postfix    = primary {"%" | "!"}                        a `%` here is per cent
    primary    = number | "pi" | "e" | function "(" expression {"," expression} ")" | "(" expression ")"

Other spellings are read too: `x`, `X`, `×`, `·` for `*`; `÷` for `/`; `^` for `**`; `−`, `–` for `-`. Currency signs
are skipped. `2(3+4)` is `2*(3+4)`, and `6/2(3)` therefore `6/2*3`. Of an equation, `12 + 3 = 15`, the left side is
read; after `=` may stand nothing, `?` or one number, which is ignored even where it is wrong, because the model then
sees the right one. `%` is per cent before an operator, a closing parenthesis, a comma or the end, otherwise
modulo. `1,000` is one number, but inside the parentheses of a function of several arguments a comma separates them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from swirl.core.errors import ToolError
from swirl.core.grading import fold
from swirl.core.quantities import SIGNS, read

MAX_INPUT = 400
"""Maximum number of characters of an expression."""

MAX_DEPTH = 40
"""Maximum number of levels of parentheses, signs and powers inside one another."""

CONSTANTS = frozenset({"pi", "e"})

ARITY: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("sqrt", "abs", "floor", "ceil", "exp", "ln", "log10", "log2", "sin", "cos", "tan"), (1, 1)),
    **{"factorial": (1, 1), "log": (1, 2), "round": (1, 2), "min": (1, 20), "max": (1, 20)},
}
"""Function name -> fewest and most arguments."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Takes `arity` values from the stack and puts one back. `name` is an operator, a function or a constant."""

    name: str
    arity: int


Postfix = list[Fraction | Operation]

_SPELLINGS = {"×": "*", "·": "*", "x": "*", "of": "*", "÷": "/", "^": "**", "−": "-", "–": "-", "π": "pi"}
_BINARY = frozenset({"+", "-", "*", "/", "//", "**"})
_PLAIN = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]*)?"
_OTHER = (
    r"(?P<word>log10|log2|[A-Za-z]+)|(?P<sign>\*\*|//|[-+*/%^()!,×·÷−–π])"
    rf"|(?P<skip>[\s{SIGNS}]+)"
)
_TOKEN = re.compile(rf"(?P<number>{_GROUPED}|{_PLAIN})|{_OTHER}")
_TOKEN_AMONG_ARGUMENTS = re.compile(rf"(?P<number>{_PLAIN})|{_OTHER}")


def parse(expression: str) -> Postfix:
    """The operations of `expression` in postfix order. Raises `ToolError` saying what does not parse."""
    if len(expression) > MAX_INPUT:
        raise ToolError(f"the expression is too long: {len(expression)} characters, at most {MAX_INPUT} are read")
    tokens = list(_tokens(_left_side(expression)))
    if not tokens:
        raise ToolError("the expression is empty")
    parser = _Parser(tokens)
    parser.expression()
    if parser.token:
        raise ToolError(f"expected an operator before {parser.token!r}")
    return parser.output


def _left_side(expression: str) -> str:
    """What stands before `=`. Raises `ToolError` where more than a number follows, because nobody calculates that."""
    left, _, right = expression.partition("=")
    if right.strip() not in ("", "?") and read(fold(right)) is None:
        said = right.strip()[:40]
        raise ToolError(f"only a number may follow '=', not {said!r}; write one expression to calculate, without '='")
    return left


def _tokens(expression: str) -> Iterator[str]:
    """Numbers (without separators), words, and operators, each in its one standard spelling."""
    position, several, word = 0, [False], ""
    while position < len(expression):
        match = (_TOKEN_AMONG_ARGUMENTS if several[-1] else _TOKEN).match(expression, position)
        if match is None:
            raise ToolError(f"unexpected character {expression[position]!r}")
        position = match.end()
        if match["skip"]:
            continue
        token = match.group()
        if token == "(":
            several.append(ARITY.get(word, (1, 1))[1] > 1)
        elif token == ")" and len(several) > 1:
            several.pop()
        word = token.lower() if match["word"] else ""
        if match["number"]:
            yield token.replace(",", "")
        else:
            yield _SPELLINGS.get(word or token, word or token)


class _Parser:
    """Recursive descent over the tokens; each rule appends its operations to `output`."""

    def __init__(self, tokens: list[str]) -> None:
        self.output: Postfix = []
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def token(self) -> str:
        """The token to be read next, empty at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self.token
        self._next += 1
        return token

    def _emit(self, name: str, arity: int) -> None:
        self.output.append(Operation(name, arity))

    def expression(self) -> None:
        self._term()
        while self.token in ("+", "-"):
            operator = self._take()
            self._term()
            self._emit(operator, 2)

    def _term(self) -> None:
        self._unary()
        while self.token in ("*", "/", "//", "%", "("):
            operator = "*" if self.token == "(" else self._take()
            self._unary()
            self._emit("mod" if operator == "%" else operator, 2)

    def _unary(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ToolError(f"the expression is nested too deeply, at most {MAX_DEPTH} levels are read")
        if self.token in ("+", "-"):
            sign = self._take()
            self._unary()
            if sign == "-":
                self._emit("neg", 1)
        else:
            self._power()
        self._depth -= 1

    def _power(self) -> None:
        self._primary()
        while self.token == "!" or (self.token == "%" and self._is_percent()):
            self._emit("factorial" if self._take() == "!" else "percent", 1)
        if self.token == "**":
            self._take()
            self._unary()
            self._emit("**", 2)

    def _is_percent(self) -> bool:
        """Whether the `%` to be read next is per cent; otherwise it is modulo."""
        following = self._tokens[self._next + 1] if self._next + 1 < len(self._tokens) else ""
        return following in _BINARY or following in ("", ")", ",", "%", "!")

    def _primary(self) -> None:
        token = self._take()
        if token[:1].isdigit() or token[:1] == ".":
            self.output.append(Fraction(token))
        elif token == "(":
            self.expression()
            self._close()
        elif token in CONSTANTS:
            self._emit(token, 0)
        elif token in ARITY:
            self._call(token)
        elif token.isalpha():
            raise ToolError(f"unknown name {token[:40]!r}")
        else:
            raise ToolError(f"expected a number, not {token!r}" if token else "the expression ends too early")

    def _call(self, function: str) -> None:
        fewest, most = ARITY[function]
        if self._take() != "(":
            raise ToolError(f"{function} needs its argument in parentheses")
        self.expression()
        count = 1
        while self.token == ",":
            self._take()
            self.expression()
            count += 1
        self._close()
        if not fewest <= count <= most:
            raise ToolError(f"{function} takes {fewest if fewest == most else f'{fewest} to {most}'} argument(s)")
        self._emit(function, count)

    def _close(self) -> None:
        if self._take() != ")":
            raise ToolError("a closing parenthesis is missing")
