"""Tools as models with a tool format of their own know them: a function's name, description and JSON schema."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swirl.core.errors import ParamsError
from swirl.core.untrusted import no_constant, writable
from swirl.tools.base import MAX_DESCRIPTION, Tool, one_line

MAX_SCHEMA = 8000
"""Maximum number of characters of the JSON schema of a tool's arguments, which stands in every prompt."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schema:
    """One tool as a function."""

    name: str
    """The tool's own name if that is a plain word, otherwise its tag."""
    kind: str
    """Kind of the actions that call it."""
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of its arguments, of type object."""
    text_argument: str
    """The one argument, a string, that is the payload of a call; empty: the payload is the arguments' JSON object."""

    @property
    def function(self) -> dict[str, Any]:
        """The tool as chat templates take it."""
        about = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": about}

    def payload(self, arguments: Mapping[str, Any]) -> str | None:
        """What the tool is run with.

        None where a required argument is missing, and where the one argument is blank, or neither text nor a number.
        """
        required = self.parameters.get("required")
        if isinstance(required, list | tuple) and not all(name in arguments for name in required):
            return None
        if not self.text_argument:
            typed = {name: self._typed(name, value) for name, value in arguments.items()}
            return writable(json.dumps(typed, ensure_ascii=False))
        value = arguments.get(self.text_argument)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        return writable(str(value)).strip() or None

    def _typed(self, name: str, value: Any) -> Any:
        """A value; for a text where the schema wants another type, the JSON that it is: some forms have texts alone."""
        about = self.parameters["properties"].get(name)
        kind = about.get("type", "string") if isinstance(about, Mapping) else "string"
        if not isinstance(value, str) or kind == "string" or (isinstance(kind, list) and "string" in kind):
            return value
        try:
            return json.loads(value, parse_constant=no_constant)
        except (ValueError, RecursionError):
            return value


class Signatures(dict[str, str]):
    """The functions that one question's model may call: name -> kind of action."""

    def __init__(self, schemas: Iterable[Schema]) -> None:
        """Raises `ParamsError` when two of them have the same name."""
        super().__init__()
        self.schemas: dict[str, Schema] = {}
        for schema in schemas:
            if schema.name in self.schemas:
                raise ParamsError(
                    f"two tools of a question are the function {schema.name!r}; with actions.format: native, a "
                    "question's tools need names that differ"
                )
            self.schemas[schema.name], self[schema.name] = schema, schema.kind


def schema_of(tool: Tool | type[Any]) -> Schema:
    """A tool's schema; of a class, too, whose instance is not needed.

    A tool with `parameters` (a JSON schema of type object: MCP tools, own tools) takes the arguments as a JSON object;
    any other takes the text of one argument, which has the name that its `run` gives it. Raises `ParamsError` for
    parameters that are no such schema, or are too long.
    """
    said: Any = tool
    name = said.name if _PLAIN.fullmatch(said.name) else said.tag
    described = one_line(str(getattr(said, "summary", said.description)), MAX_DESCRIPTION)
    given = getattr(said, "parameters", None)
    if given is None:
        named = [one for one in inspect.signature(said.run).parameters if one != "self"]
        argument = named[0] if named else "input"
        properties = {argument: {"type": "string"}}
        return Schema(
            name,
            said.kind,
            described,
            {"type": "object", "properties": properties, "required": [argument]},
            argument,
        )
    if not isinstance(given, Mapping) or not isinstance(given.get("properties", {}), Mapping):
        raise ParamsError(f"tool {said.name}: parameters are {str(given)[:80]!r}; expected a JSON schema of an object")
    parameters = {**given, "type": "object", "properties": dict(given.get("properties", {}))}
    try:
        size = len(json.dumps(parameters))
    except (TypeError, ValueError, RecursionError):
        raise ParamsError(f"tool {said.name}: its parameters are no JSON") from None
    if size > MAX_SCHEMA:
        raise ParamsError(f"tool {said.name}: its schema has {size:,} characters; at most {MAX_SCHEMA:,} are shown")
    return Schema(name, said.kind, described, parameters, "")


def signatures_of(tools: Iterable[Tool]) -> Signatures:
    """The functions of one question's tools. Raises `ParamsError` as `schema_of` and `Signatures` do."""
    return Signatures(map(schema_of, tools))
