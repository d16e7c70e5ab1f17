"""Tools as functions: schemas from signatures and servers, and payloads from arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from swirl.core.errors import ParamsError
from swirl.tools import Calculator, Search
from swirl.tools.schemas import MAX_SCHEMA, Schema, Signatures, schema_of, signatures_of


class Own:
    """A tool of a user's project."""

    kind = name = "dictionary"
    tag = "look_up"
    description = "explains\na word"
    time_limit_s, output_limit = 1.0, 100

    def run(self, word: str) -> str:
        return word


PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "lines": {"type": "integer"}},
}


class Several(Own):
    """One that takes several arguments, as a JSON object."""

    def __init__(self, parameters: Any = PARAMETERS) -> None:
        self.parameters = parameters


def test_schemas_of_the_built_in_tools() -> None:
    assert schema_of(Calculator()).function == {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "evaluates an arithmetic expression",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    }
    search = schema_of(Search)  # the class: no index is needed
    assert (search.name, search.kind, search.text_argument) == ("search", "search", "query")
    assert search.description == "finds the passages that match a query"


def test_schemas_of_own_tools() -> None:
    one, several = schema_of(Own()), schema_of(Several())
    assert (one.name, one.kind, one.description, one.text_argument) == (
        "dictionary",
        "dictionary",
        "explains a word",
        "word",
    )
    assert (several.parameters, several.text_argument) == (PARAMETERS, "")
    assert several.payload({"word": "a", "lines": 2}) == '{"word": "a", "lines": 2}'
    assert several.payload({"word": "7", "lines": "2", "more": "3"}) == '{"word": "7", "lines": 2, "more": "3"}'
    assert several.payload({"lines": "two"}) == '{"lines": "two"}'


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([1], "expected a JSON schema of an object"),
        ({"properties": [1]}, "expected a JSON schema of an object"),
        ({"properties": {"x": {1}}}, "its parameters are no JSON"),
        ({"properties": {"x": {"description": "y" * MAX_SCHEMA}}}, r"its schema has 8,\d+ characters; at most 8,000"),
    ],
)
def test_parameters_that_are_no_schema_are_refused(given: Any, why: str) -> None:
    with pytest.raises(ParamsError, match=f"tool dictionary: .*{why}"):
        schema_of(Several(given))


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ({"query": " Ada "}, "Ada"),
        ({"query": 7}, "7"),
        ({"query": 0.5, "k": 3}, "0.5"),
        ({"query": "a\ud800"}, "a?"),
        ({"query": "  "}, None),
        ({"query": True}, None),
        ({"query": None}, None),
        ({"query": ["Ada"]}, None),
        ({"text": "Ada"}, None),
        ({}, None),
    ],
)
def test_the_payload_of_a_call(arguments: dict[str, Any], payload: str | None) -> None:
    assert schema_of(Search).payload(arguments) == payload


def test_a_name_that_is_no_plain_word_gives_way_to_the_tag_and_no_two_are_equal() -> None:
    tool = Own()
    tool.name = tool.kind = "mcp:facts/addUp"  # type: ignore[misc]
    assert schema_of(tool).name == "look_up"
    assert dict(signatures_of([Calculator(), Own()])) == {"calculator": "calculate", "dictionary": "dictionary"}
    with pytest.raises(ParamsError, match="two tools of a question are the function 'x'; with actions.format: native"):
        Signatures([Schema("x", kind, "", {}, "") for kind in ("a", "b")])


def test_an_mcp_tool_has_its_servers_schema() -> None:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    from swirl.tools import mcp
    from swirl.tools.by_name import open_tool

    options = {"command": [sys.executable, "mcp_server.py"], "time_limit_s": 10, "output_limit": 200}
    try:
        tool = open_tool("mcp:schemas/capital", options, Path(__file__).parents[1])
        schema = schema_of(tool)
        assert (schema.name, schema.kind, schema.description) == (
            "capital",
            "mcp:schemas/capital",
            "The capital of a country.",
        )
        properties = schema.parameters["properties"]
        assert {name: about["type"] for name, about in properties.items()} == {"country": "string", "shout": "boolean"}
        assert schema.parameters["required"] == ["country"]
        assert schema.payload({"q": "Peru"}) is None
        payload = schema.payload({"country": "Peru", "shout": True})
        assert payload is not None
        assert tool.run(payload) == "LIMA"
    finally:
        mcp.close_all()
