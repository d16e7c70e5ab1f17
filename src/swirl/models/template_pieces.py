"""What a chat template does with tools, calls and results: found by rendering conversations of sentinels.

A template that loses or rewrites any of it is refused, by the name of what is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swirl.core.errors import ModelError
from swirl.models.call_grammar import Grammar, found
from swirl.models.tool_template import (
    ASK,
    CALLS,
    DESCRIPTION,
    FIX,
    NAMES,
    QUESTION,
    REPLY,
    RESULTS,
    TOOLS,
    VALUES,
    Messages,
    Template,
    Tool,
    acted,
    moved,
    results,
    said,
)

_ODD = ' a "b" \\ <c> & \u00e9\n{"d": [1]}\n'


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a template writes around what is said, as text; calls in it are those of the sentinels."""

    head: str
    """What precedes the question."""
    given: str
    """What follows the question: the opening of the model's turn."""
    generation: str
    """The end of `given`, which is written only where a reply is asked for."""
    end_id: int
    """The token that closes a turn of the model."""
    end_text: str
    stays: str
    """What `given` becomes in past turns."""
    one: str
    """A turn with the first call."""
    before: str
    """From the end of a turn to the first result."""
    after: str
    """From the last result to the next turn of the model, its opening included."""
    between: str = ""
    """Between two results; empty where the model says one call a turn."""

    @property
    def dropped(self) -> str:
        """What the template writes at the start of the model's turn and drops from past turns."""
        return self.given[len(_common(self.given, self.stays)) :]

    @property
    def added(self) -> str:
        """What past turns have instead of `dropped`."""
        return self.stays[len(_common(self.given, self.stays)) :]

    @property
    def past(self) -> str:
        """`after`, where the turn that it opens is past."""
        return self.after.removesuffix(self.dropped) + self.added


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a template."""

    pieces: Pieces
    grammar: Grammar
    spaced: bool
    """Whether past results have other white space than the last one (Hermes)."""
    as_is: bool
    """Whether results are written as they are, not in JSON."""
    trims: bool
    """Whether white space around the question is dropped."""
    beside: bool
    """Whether past turns keep what is said beside a call."""


def take_apart(template: Template) -> Found:
    """Find what a template does, and check that longer conversations are made of its pieces.

    Raises `ModelError`, naming what is lost, where a rendering lacks the tools, a call, its arguments or a result,
    where earlier turns are rewritten, where calls are written in a form that is not known
    (`swirl.models.call_grammar`), and where no special token closes a model turn.
    """
    pieces, two = _pieces(template)
    grammar = found(pieces.one, two, CALLS[:2])
    if grammar is None:
        raise ModelError(f"the chat template writes calls in a form that is not known here ({pieces.one!r}): {FIX}")
    spaced = _check(template, pieces, [ASK], TOOLS)
    written = written_result(template, pieces, _ODD)
    if _ODD.strip() not in (written.strip(), str(_decoded(f'"{written}"')).strip()):
        raise ModelError(f"the chat template changes results ({_ODD!r} becomes {written!r}): {FIX}")
    opening = f"{pieces.head}{QUESTION}{pieces.given}"
    return Found(
        pieces,
        grammar,
        spaced,
        as_is=written == _ODD,
        trims=template.render([{**ASK, "content": f" {QUESTION} "}], "tools") == opening,
        beside=REPLY in template.render([ASK, {**acted(1), "content": REPLY}, *results(1)], "calls and results"),
    )


def _pieces(template: Template) -> tuple[Pieces, str | None]:
    """The pieces between a model's turns, and two calls of one turn; None if there cannot be two."""
    head, given, generation = _opening(template)
    end_id, end_text = _end(template)
    told = template.render([ASK, acted(1), *results(1)], "calls and results")
    _all_shown(told, head, 1)
    after_question = told.partition(QUESTION)[2]
    stays = _common(after_question, _plain(template))
    if len(_common(given, stays)) < len(given) - len(generation):
        raise _rewrites("the opening of the model's turn")
    turn = after_question[len(stays) :]
    end, shown = turn.find(end_text, turn.find("VALUE-SENTINEL")), turn.find(RESULTS[0])
    if not 0 <= end < shown:
        raise ModelError(f"the chat template does not close a turn with calls by {end_text!r}: {FIX}")
    one, before, after = turn[:end], turn[end:shown], turn[shown + len(RESULTS[0]) :]
    if not after.endswith(generation):
        raise _rewrites("the opening of the model's turn after a result")
    pieces = Pieces(head, given, generation, end_id, end_text, stays, one, before, after)
    two, between = _several(template, pieces)
    return replace(pieces, between=between), two


def _opening(template: Template) -> tuple[str, str, str]:
    """What precedes the question, what follows it, and the end of that which asks for a reply."""
    opening, bare = template.render([ASK], "tools"), template.render([ASK], "tools", generation=False)
    for what, text in (("name", NAMES[0]), ("description", DESCRIPTION), ("arguments", "argument_sentinel")):
        if text not in opening:
            raise ModelError(f"the chat template leaves out the {what} of tools: {FIX}")
    if opening.count(QUESTION) != 1 or not opening.startswith(bare):
        raise _rewrites("the question")
    head, given = opening.split(QUESTION)
    return head, given, opening[len(bare) :]


def _end(template: Template) -> tuple[int, str]:
    """The token that closes a model turn, the first one after a reply; and its text."""
    follows = template.render([ASK, said(REPLY)], "replies", generation=False).partition(REPLY)[2]
    end = template.special_start(follows)
    if end is None:
        raise ModelError(
            f"the chat template closes a model turn with no special token ({follows[:40]!r}), so that its end "
            "cannot be told from what the model says"
        )
    return end, template.markup([end]).strip()


def _plain(template: Template) -> str:
    """What follows the question where the model's turn is a text and not the last."""
    try:
        return template.render([ASK, said(REPLY), *results(1)], "replies").partition(QUESTION)[2]
    except ModelError:  # results follow calls alone
        return template.render([ASK, said(REPLY), ASK], "replies").partition(QUESTION)[2]


def _several(template: Template, pieces: Pieces) -> tuple[str | None, str]:
    """Two calls of one turn as the template writes them, and what is between their results; None if it cannot."""
    try:
        both = template.render([ASK, acted(2), *results(2)], "several calls")
        _all_shown(both, pieces.head, 2)
    except ModelError:
        return None, ""
    two, _, rest = both.partition(QUESTION)[2].removeprefix(pieces.stays).partition(pieces.before + RESULTS[0])
    between, _, after = rest.partition(RESULTS[1])
    if after != moved(pieces.after, 1):
        raise _rewrites("several results")
    return two, between


def _all_shown(rendered: str, head: str, calls: int) -> None:
    """Raise `ModelError` naming what of the first calls and results is not in a rendering."""
    for name, value, result in list(zip(NAMES, VALUES, RESULTS, strict=True))[:calls]:
        for what, text in (("calls", name), ("arguments of calls", value.split()[0]), ("results", result)):
            if rendered.count(text) <= head.count(text):
                raise ModelError(f"the chat template leaves out the {what}: {FIX}")


def _check(template: Template, pieces: Pieces, asked: Messages, tools: Sequence[Tool]) -> bool:
    """Raise `ModelError` unless longer conversations begin with shorter ones, but for what is dropped or added.

    Returns whether past results have other white space than the last one.
    """
    told = f"{pieces.one}{pieces.before}{RESULTS[0]}"
    start = f"{pieces.head}{QUESTION}{pieces.stays}{told}"
    step = [acted(1), *results(1)]
    if template.render([*asked, *step], "calls and results", tools) != start + pieces.after:
        raise _rewrites("the turns before a call")
    longer = template.render([*asked, *step, *step], "calls and results", tools)
    made = start + pieces.past + told + pieces.after
    if _squeezed(longer) != _squeezed(made):
        raise _rewrites("earlier calls and results")
    answered = template.render([*asked, *step, said(REPLY)], "replies", tools, generation=False)
    if not _squeezed(answered).startswith(_squeezed(start + pieces.after.removesuffix(pieces.generation))):
        raise _rewrites("earlier calls and results once there is an answer")
    if pieces.between:
        three = template.render([*asked, acted(3), *results(3)], "several calls", tools)
        shown = RESULTS[0] + pieces.between + RESULTS[1] + moved(pieces.between, 1) + RESULTS[2]
        if not three.endswith(pieces.before + shown + moved(pieces.after, 2)):
            raise _rewrites("several results")
    return longer != made


def head_of(template: Template, pieces: Pieces, tools: Sequence[Tool], system: str) -> tuple[str, bool]:
    """What precedes the question with these tools and this system turn, and `Found.spaced` with them.

    Raises `ModelError` where the template leaves out a tool or the `system` turn, or rewrites what precedes.
    """
    plain = [template.plain(tool) for tool in tools]
    asked: Messages = [*([{"role": "system", "content": system}] if system else []), ASK]
    opening = template.render(asked, "a system turn" if system else "tools", plain)
    if opening.count(QUESTION) != 1 or opening.split(QUESTION)[1] != pieces.given:
        raise _rewrites("the question")
    head = opening.split(QUESTION)[0]
    if system.strip() not in head:
        raise ModelError(
            "the chat template leaves out the system turn: put what system.txt says into the tasks' prompts"
        )
    for function in (tool["function"] for tool in plain):
        names = [function["name"], *function["parameters"].get("properties", {})]
        if lost := [name for name in names if name not in head and json.dumps(name)[1:-1] not in head]:
            raise ModelError(f"the chat template leaves out {lost[0]!r} of the tool {names[0]}: {FIX}")
    return head, bool(tools) and _check(template, replace(pieces, head=head), asked, plain)


def written_result(template: Template, pieces: Pieces, text: str) -> str:
    """A result as the template writes it: in JSON, for example."""
    [message] = results(1)
    start = f"{pieces.head}{QUESTION}{pieces.stays}{pieces.one}{pieces.before}"
    told = template.render([ASK, acted(1), {**message, "content": text}], "results")
    fits = told.startswith(start) and told.endswith(pieces.after)
    return told[len(start) : len(told) - len(pieces.after)] if fits else text


def said_before(template: Template, pieces: Pieces, message: dict[str, Any]) -> str | None:
    """A message of the assistant as the template writes it in past turns, without its end; None if it cannot."""
    calls = message.get("tool_calls") or ()
    follows: Messages = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": RESULTS[0]}
        for call in calls
    ]
    told = template.render([ASK, message, *(follows or [ASK])], "several calls" if len(calls) > 1 else "this turn")
    start = f"{pieces.head}{QUESTION}{pieces.stays}" if calls else _before_text(template)
    text, closed, _ = told[len(start) :].partition(pieces.end_text)
    return text if closed and told.startswith(start) else None


def _before_text(template: Template) -> str:
    """What the template writes before a past turn that calls nothing; it may begin otherwise than one that does."""
    return template.render([ASK, said(REPLY), ASK], "this turn").partition(REPLY)[0]


def _common(one: str, other: str) -> str:
    """What both texts begin with."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _rewrites(what: str) -> ModelError:
    return ModelError(
        f"the chat template rewrites {what}, so states are not prefixes of one sequence; use a template that only "
        "appends (tokenizer_config.json or chat_template.jinja in the model's folder), or actions.format: tags"
    )
