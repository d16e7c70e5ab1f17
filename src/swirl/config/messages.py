"""Error messages about params.yaml that name the key, its value and what is allowed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from swirl.config.section import Section
from swirl.core.suggestions import meant

NO_SUCH_CHOICE = "no_such_choice"
"""Type of an error whose message names the choices; the value is not shown: it may hold a key."""


_VALUES = reprlib.Repr()
"""Shows a value, cut where it is long: it may come from a file that somebody else wrote."""
_VALUES.maxstring = _VALUES.maxother = _VALUES.maxlong = 200
_VALUES.maxlist = _VALUES.maxdict = 20


def explain(item: Mapping[str, Any], root: type[Section]) -> str:
    """One of pydantic's errors as a message.

    For example `filter.strategy = 'proces': Input should be 'none', 'process', 'outcome' or 'both'`.
    """
    shown, section = _place(item["loc"], root)
    where = ".".join(shown) or "params"
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        if why := section.refused.get(shown[-1]):
            return f"{where} = {_VALUES.repr(item['input'])}: {why}"
        known = list(section.model_fields)
        return f"{where}: no such key; the keys here are {', '.join(known)}{meant(shown[-1], known)}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == NO_SUCH_CHOICE:
        return f"{where}: {item['msg']}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    if kind == "union_tag_not_found":
        return f"{where}.source: missing"
    if kind == "union_tag_invalid":
        return f"{where}.source = {_VALUES.repr(context['tag'])}: Input should be one of {context['expected_tags']}"
    return f"{where} = {_VALUES.repr(item['input'])}: {item['msg']}"


def _place(location: tuple[Any, ...], root: type[Section]) -> tuple[list[str], Any]:
    """(the keys as params.yaml has them, the section that holds the last of them).

    Where a section is chosen by its `source`, pydantic puts the source's name between the keys: that one is left out.
    """
    shown: list[str] = []
    section: Any = root
    inside: Any = root
    for part in location:
        if kinds := chosen_by_source(inside):
            inside = kinds.get(part, inside)
            continue
        shown.append(str(part))
        section = inside
        if isinstance(inside, type) and issubclass(inside, Section):
            field = inside.model_fields.get(part)
            inside = field.annotation if field else None
        else:
            inside = (get_args(inside) or (None,))[-1]
        inside = _alone(inside)
    return shown, section


def _alone(annotation: Any) -> Any:
    """The section of an optional one; any other annotation as it is."""
    sections = [one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, Section)]
    return sections[0] if len(sections) == 1 and type(None) in get_args(annotation) else annotation


def chosen_by_source(annotation: Any) -> dict[str, Any]:
    """Value of `source` -> section class, for a union that `source` discriminates; empty for any other annotation."""
    members = [get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(annotation)]
    kinds = [one for one in members if isinstance(one, type) and issubclass(one, Section)]
    return {get_args(kind.model_fields["source"].annotation)[0]: kind for kind in kinds} if len(kinds) > 1 else {}
