"""The arguments of calls, as JSON text, whatever form a log gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swirl.agent_logs.conversation import Call, LoggedTool
from swirl.agent_logs.exchanges import Change
from swirl.core.nesting import DEEPEST, TooDeep, depth, loads

Schemas = Mapping[str, Mapping[str, Any]]
"""Name of a tool -> the JSON schema of its arguments."""

_MAY_BE_NULL = ("default", "const")
_decoder = json.JSONDecoder()
_NEXT = re.compile(r"\S|\Z")
"""The next character that is no white space, or the end."""


def to_text(value: Any) -> str:
    """Compact JSON in the order given, for what a log has as a value."""
    return json.dumps(value, ensure_ascii=False)


def schemas_of(tools: Sequence[LoggedTool] | None) -> dict[str, dict[str, Any]]:
    """The schemas of tools, by their names."""
    return {tool.name: json.loads(tool.parameters) for tool in tools or ()}


def read_arguments(given: Any, schema: Mapping[str, Any] | None, native_object: bool, changes: list[Change]) -> str:
    """The arguments as JSON text. `changes` is added to; `native_object`: the format itself gives an object.

    Text stays as it is, unless it is empty, or is an object encoded twice where `schema` (None: not known) wants one.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        changes.append(Change.EMPTY)
        return "{}"
    if isinstance(given, str):
        return _decoded(given, schema, changes)
    if not native_object:
        changes.append(Change.OBJECT)
    if schema is not None and isinstance(given, dict):
        known = _properties(schema)
        unknown = [key for key, value in given.items() if value is None and key not in known]
        if unknown and not schema.get("additionalProperties"):
            changes.append(Change.NULL_KEYS)
            given = {key: value for key, value in given.items() if key not in unknown}
    return _decoded(to_text(given), schema, changes)


def _decoded(text: str, schema: Mapping[str, Any] | None, changes: list[Change]) -> str:
    """`text`, with objects that stand there as strings decoded where the schema wants an object."""
    if schema is None or '\\"' not in text:
        return text
    try:
        value = loads(text)
    except (ValueError, TooDeep):
        return text
    once = _decode(value, {"type": "object", **schema})
    if once == value:
        return text
    changes.append(Change.DECODED)
    return to_text(once)


def _decode(value: Any, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "object" and isinstance(value, str):
        try:
            inner = loads(value)
        except (ValueError, TooDeep):
            return value
        value = inner if isinstance(inner, dict) else value
    if isinstance(value, dict):
        known = _properties(schema)
        return {key: _decode(one, known[key]) if key in known else one for key, one in value.items()}
    return value


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema's properties that are schemas themselves."""
    given = schema.get("properties")
    return {key: one for key, one in given.items() if isinstance(one, dict)} if isinstance(given, dict) else {}


def unglued(call: Call) -> tuple[Call, ...]:
    """The call once for each object, where its arguments are several objects in a row; otherwise nothing."""
    text, at, found = call.arguments.strip(), 0, list[str]()
    if not text.startswith("{") or text.count("{") < 2:
        return ()
    try:
        while at < len(text):
            value, end = _decoder.raw_decode(text, at)
            if not isinstance(value, dict) or depth(value) > DEEPEST:
                return ()
            found.append(text[at:end])
            at = next(_NEXT.finditer(text, end)).start()
    except (ValueError, RecursionError):
        return ()
    return tuple(Call(call.name, one, call.id) for one in found) if len(found) > 1 else ()


def without_nulls(value: Any) -> Any:
    """A schema without the keys that a column store filled in with null; a null that JSON schema knows stays."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None or key in _MAY_BE_NULL}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value
