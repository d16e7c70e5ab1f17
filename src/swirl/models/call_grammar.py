"""The form in which a chat template writes tool calls: found from how it writes known ones, and then read.

Four shapes are known: JSON objects with name and arguments (Qwen, Hermes, Llama 3), one JSON list of them (Mistral), a
name followed by the arguments as a JSON object (newer Mistral, DeepSeek), and a name followed by each argument between
tags (Qwen3-Coder, Qwen3.5, Nemotron 3). No text of a model is run as code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swirl.core.untrusted import no_constant

MAX_CALLS = 16
"""Calls of one turn that are read; a turn with more is malformed."""

_DECODER = json.JSONDecoder(parse_constant=no_constant)
_NAME = r"[A-Za-z0-9_.:-]{1,128}"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_OPTIONAL = "<|python_tag|>"
"""Llama 3 may write this before a call; its template does not show it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a model wrote it."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    """The id that the model gave the call; empty for none, and for one that is no plain word."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a model said in one turn."""

    before: str
    """The text before the calls; all of it where there are none."""
    calls: tuple[Call, ...]
    after: str = ""
    """What follows the calls."""
    broken: bool = False
    """Whether a call was begun that cannot be read, or there are more than `MAX_CALLS`."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """How calls are written. White space between the parts does not count."""

    shape: Literal["objects", "list", "named", "tagged"]
    opening: str
    """Before the first call; may be empty, and then a turn with calls holds nothing else."""
    closing: str
    """After the last call; may be empty."""
    separator: str | None
    """Between two calls that are not in a list; None where a turn may hold one call only."""
    between: str = ""
    """With shapes `named` and `tagged`, between name and arguments; `\\0` stands for an id."""
    assigns: str = ""
    """With shape `tagged`, between an argument's name and its value, a text; ends with \\n if values have own lines."""
    following: str = ""
    """With shape `tagged`, between a value and the next argument's name."""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = "id"

    @property
    def several(self) -> bool:
        """Whether a turn may hold several calls."""
        return self.separator is not None

    def read(self, text: str) -> Turn:
        """The calls of a turn; never raises, and takes time linear in the length of `text`."""
        at = self._begin(text)
        if at is None:
            return Turn(text, ())
        calls: list[Call] = []
        rest, place = text[: at[0]], at[1]
        while True:
            found = self._one(text, place)
            if found is None:
                return Turn(rest, tuple(calls), "", True)
            more, place = found
            calls += more
            again = self._again(text, place)
            if again is None or len(calls) > MAX_CALLS:
                break
            place = again
        end = _after(self.closing, text, place)
        many = len(calls) > (MAX_CALLS if self.several else 1)
        if end is None or many or not calls:
            return Turn(rest, tuple(calls), "", True)
        return Turn(rest, tuple(calls), text[end:].strip())

    def _begin(self, text: str) -> tuple[int, int] | None:
        """Where the calls begin, and where the first one's text does; None where none was begun."""
        if self.opening:
            match = re.search(_loose(self.opening), text)
            return (len(text[: match.start()].rstrip()), match.end()) if match else None
        bare = text.lstrip()
        start = len(text) - len(bare)
        if bare.startswith(_OPTIONAL):
            return start, start + len(_OPTIONAL)
        decoded = _json(text, start)
        said = decoded[0] if decoded else None
        if any(isinstance(one, dict) and self.name_key in one for one in (said if isinstance(said, list) else [said])):
            return start, start
        if re.search(rf'[{{\[]\s*"{re.escape(self.name_key)}"\s*:', bare):  # one that is broken, or not alone
            return start, start
        return None

    def _again(self, text: str, place: int) -> int | None:
        """Where another call begins, after one that ends at `place`."""
        if self.separator is None or self.shape == "list":
            return None
        begun = _after(self.separator, text, place)
        return begun if begun is not None and (self.separator or text.startswith("{", _skip(text, begun))) else None

    def _one(self, text: str, place: int) -> tuple[list[Call], int] | None:
        """The call or list of calls at `place`, and where it ends; None if it cannot be read."""
        if self.shape == "tagged":
            return self._tagged(text, place)
        name, key = "", ""
        if self.shape == "named":
            match = _named(self.between).match(text, place)
            if match is None:
                return None
            name, place = match["name"], match.end()
            key = match.groupdict().get("id") or ""
        decoded = _json(text, _skip(text, place))
        if decoded is None:
            return None
        value, end = decoded
        if self.shape == "named":
            return ([Call(name, value, key)], end) if isinstance(value, dict) else None
        if (self.shape == "list") != isinstance(value, list):
            return None
        calls = [self._call(item) for item in (value if isinstance(value, list) else [value])]
        return None if any(call is None for call in calls) else ([call for call in calls if call], end)

    def _tagged(self, text: str, place: int) -> tuple[list[Call], int] | None:
        """As `_one`, of a call whose arguments stand between tags."""
        named = _named(self.between).match(text, place)
        if named is None:
            return None
        parts = {"more": self.following, "again": self.separator or "", "over": self.closing}
        ends = re.compile("|".join(f"(?P<{name}>{_loose(part)})" for name, part in parts.items() if part))
        arguments: dict[str, Any] = {}
        place = named.end()
        while True:
            key = _named(self.assigns).match(text, place)
            end = key and ends.search(text, key.end())
            if key is None or end is None:
                return None
            value = text[key.end() : end.start()]
            if self.assigns.endswith("\n"):
                value = value.removeprefix("\n").removesuffix("\n")
            arguments[key["name"]] = value
            place = end.end()
            if end.lastgroup != "more":
                return [Call(named["name"], arguments)], end.start()

    def _call(self, item: object) -> Call | None:
        if not isinstance(item, dict):
            return None
        name, arguments, key = item.get(self.name_key), item.get(self.arguments_key, {}), item.get(self.id_key)
        if isinstance(arguments, str):  # encoded twice, as servers do
            decoded = _json(arguments, _skip(arguments, 0))
            arguments = decoded[0] if decoded and not arguments[decoded[1] :].strip() else None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        return Call(name, arguments, key if isinstance(key, str) and _ID.fullmatch(key) else "")


def found(one: str, two: str | None, calls: Sequence[Call]) -> Grammar | None:
    """The grammar in which a template wrote the first of two `calls` (`one`), and both (`two`; None: it cannot).

    Names, ids and arguments must differ from all else in the texts, and the first call have two arguments. None for a
    form that is not known, or in which the calls cannot be read back.
    """
    first, second = calls
    for shape in (_objects, _named_calls, _tagged_calls):
        grammar = shape(one, two, first, second)
        if grammar and _same(grammar, one, [first]) and (two is None or _same(grammar, two, [first, second])):
            return grammar
    return None


def _objects(one: str, two: str | None, first: Call, second: Call) -> Grammar | None:
    """The grammar of JSON objects, each or in a list, that hold the name and the arguments."""
    for match in re.finditer(r"[{\[]", one):
        decoded = _json(one, match.start())
        if decoded is None:
            continue
        value, end = decoded
        item = value[0] if isinstance(value, list) and len(value) == 1 else value
        keys = _keys(item, first)
        if keys is None:
            continue
        opening, closing = one[: match.start()].strip(), one[end:].strip()
        if isinstance(value, list):
            return Grammar("list", opening, closing, None if two is None else "", "", "", "", *keys)
        separator = None
        if two is not None:
            begun = two.find(one[match.start() : end])
            ends = begun + end - match.start()
            places = [m.start() for m in re.finditer(r"\{", two[ends:])]
            starts = [ends + p for p in places if (d := _json(two, ends + p)) and _keys(d[0], second)]
            if begun < 0 or not starts:
                return None
            separator = two[ends : starts[0]].strip()
        return Grammar("objects", opening, closing, separator, "", "", "", *keys)
    return None


def _named_calls(one: str, two: str | None, first: Call, second: Call) -> Grammar | None:
    """The grammar of names that are followed by the arguments."""
    if one.count(first.name) != 1:
        return None
    opening, rest = one.split(first.name)
    start = rest.find("{")
    decoded = _json(rest, start) if start >= 0 else None
    if decoded is None or decoded[0] != first.arguments:
        return None
    between, closing = rest[:start].replace(first.id, "\0").strip(), rest[decoded[1] :].strip()
    separator = None
    if two is not None:
        if two.count(second.name) != 1 or not two.startswith(one[: len(opening) + len(first.name) + decoded[1]]):
            return None
        separator = two[len(opening) + len(first.name) + decoded[1] :].split(second.name)[0].strip()
    return Grammar("named", opening.strip(), closing, separator, between) if opening.strip() and between else None


def _tagged_calls(one: str, two: str | None, first: Call, second: Call) -> Grammar | None:
    """The grammar of names that are followed by each argument between tags."""
    parts, rest = list[str](), one
    for mark in (first.name, *(str(part) for pair in first.arguments.items() for part in pair)):
        before, found_it, rest = rest.partition(mark)
        if not found_it or one.count(mark) != 1:
            return None
        parts.append(before)
    if len(parts) != 5 or parts[2] != parts[4] or not all(part.strip() for part in (*parts, rest)):
        return None
    opening, between, assigns, following, _ = parts
    if assigns.strip()[-1] in "'\"=":  # a program's text, whose values have a syntax of their own
        return None
    separator = None
    if two is not None:
        start = len(one) - len(rest)
        separator, found_it, _ = two[start:].partition(second.name)
        if not found_it or two[:start] != one[:start]:
            return None
        separator = separator.strip()
    return Grammar("tagged", opening.strip(), rest.strip(), separator, between.strip(), assigns, following.strip())


def _keys(item: object, call: Call) -> tuple[str, str, str] | None:
    """The keys of name, arguments and id in an object that is this call."""
    if not isinstance(item, dict):
        return None
    names = [key for key, value in item.items() if value == call.name]
    arguments = [key for key, value in item.items() if value == call.arguments or _decoded(value) == call.arguments]
    ids = [key for key, value in item.items() if value == call.id]
    return (names[0], arguments[0], ids[0] if ids else "id") if names and arguments else None


def _decoded(value: object) -> object:
    decoded = _json(value, 0) if isinstance(value, str) else None
    return decoded[0] if decoded else None


def _same(grammar: Grammar, text: str, calls: Sequence[Call]) -> bool:
    turn = grammar.read(text)
    read = [(call.name, dict(call.arguments)) for call in turn.calls]
    return not (turn.broken or turn.after) and read == [(call.name, dict(call.arguments)) for call in calls]


def _json(text: str, at: int) -> tuple[Any, int] | None:
    """The JSON value at a place, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _skip(text: str, at: int) -> int:
    """The next place that is not white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _loose(part: str) -> str:
    """A pattern of a part in which any white space may stand where it has some."""
    return r"\s*".join(re.escape(word) for word in part.split())


def _after(part: str, text: str, place: int) -> int | None:
    """Where `part` ends, if it stands at `place`."""
    match = re.compile(_loose(part)).match(text, _skip(text, place))
    return match.end() if match else None


def _named(between: str) -> re.Pattern[str]:
    middle = r"\s*".join(re.escape(word).replace("\0", r"(?P<id>[A-Za-z0-9_-]{1,64})") for word in between.split())
    return re.compile(rf"\s*(?P<name>{_NAME}?)\s*{middle}", re.ASCII)
