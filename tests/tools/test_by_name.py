"""Tools by name: which there are, what a user's class must declare, and which tools may be used together."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from swirl.core.errors import ParamsError
from swirl.core.types import Observation, Passage
from swirl.tools import Calculator, Search
from swirl.tools.base import MAX_HANGING, call
from swirl.tools.by_name import by_kind, check, open_tool, options_name

WEATHER = '''
from places import PLACES

class Weather:
    """Sunny somewhere."""

    name = kind = "weather"
    tag = "weather"
    description = "says what the weather is in a place"
    time_limit_s = 5
    output_limit = 100

    def __init__(self, where="Oslo"):
        self.where = where

    def run(self, payload):
        return f"{PLACES[payload]}, not as in {self.where}"

made = Weather()
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `own_weather.py`, which imports a module next to it, and two modules that fail to import."""
    (tmp_path / "own_weather.py").write_text(WEATHER)
    (tmp_path / "places.py").write_text('PLACES = {"Lima": "sunny"}')
    (tmp_path / "own_broken.py").write_text("import no_such_library")
    (tmp_path / "own_failing.py").write_text("1 / 0")
    (tmp_path / "own_leaving.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_the_calculator(tmp_path: Path) -> None:
    assert open_tool("calculator", {}, tmp_path).run("48 / 2") == "24"
    with pytest.raises(ParamsError, match="calculator takes no options, not digits"):
        open_tool("calculator", {"digits": 3}, tmp_path)


def test_a_class_of_the_project(project: Path) -> None:
    tool = open_tool("own_weather:Weather", {"where": "Rome"}, project)
    assert (tool.name, tool.kind, tool.tag) == ("weather", "weather", "weather")
    assert call(tool, "Lima") == Observation("sunny, not as in Rome", error=False)
    assert call(tool, "Rome") == Observation("error: weather failed with KeyError: 'Rome'", error=True)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("search", {}, "the tool search needs an index"),
        (
            "weather",
            {},
            "no tool 'weather'; a tool is calculator, search, package.module:Class, or mcp:SERVER/TOOL",
        ),
        ("mcp:weather", {}, "there is no tool 'mcp:weather'"),
        ("os.system('x'):y", {}, "there is no tool"),
        ("own_nothing:Weather", {}, "there is no module own_nothing in "),
        ("own_nothing.deep:Weather", {}, "there is no module own_nothing.deep in "),
        ("own_broken:Tool", {}, "importing own_broken failed: No module named 'no_such_library'"),
        ("own_failing:Tool", {}, "importing own_failing failed: ZeroDivisionError: division by zero"),
        ("own_leaving:Tool", {}, "importing own_leaving failed: SystemExit: 3"),
        ("own_weather:Wether", {}, "own_weather.py has no class Wether"),
        ("own_weather:made", {}, "own_weather.py has no class made"),
        ("own_weather:Weather", {"town": "secret"}, r"cannot be made with its options \(town\): TypeError: .*'town'"),
    ],
)
def test_what_cannot_be_opened(name: str, options: dict[str, object], said: str, project: Path) -> None:
    with pytest.raises(ParamsError, match=said):
        open_tool(name, options, project)


class Declared:
    """A valid tool, whose attributes tests replace."""

    name = kind = tag = "own"
    description = "does"
    time_limit_s = 1.5
    output_limit = 20

    def run(self, payload: str) -> str:
        return payload


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("name", "", "Declared.name is ''; expected one word"),
        ("name", "two words", "Declared.name is 'two words'; expected one word"),
        ("name", "malformed", "Declared.name is 'malformed'; expected none of answer, malformed"),
        ("kind", "other", "Declared.kind is 'other'; expected its name, 'own'"),
        ("tag", "Own", "Declared.tag is 'Own'; expected a word of a-z, 0-9 and _"),
        ("tag", "own>", "Declared.tag is 'own>'"),
        ("tag", "own\n", "Declared.tag is"),
        ("tag", "answer", "Declared.tag is 'answer'; expected not 'answer', which ends a trajectory"),
        ("tag", None, "Declared.tag is None"),
        ("description", " ", "Declared.description is ' '; expected a sentence"),
        ("time_limit_s", 0, "Declared.time_limit_s is 0; expected a number of seconds above 0"),
        ("time_limit_s", float("inf"), "Declared.time_limit_s is inf"),
        pytest.param(
            "time_limit_s", 10**400, "is 1000*; expected a number of seconds above 0, at most 1e.09", id="huge"
        ),
        ("time_limit_s", "5", "Declared.time_limit_s is '5'"),
        ("time_limit_s", True, "Declared.time_limit_s is True"),
        ("output_limit", 19, "Declared.output_limit is 19; expected a number of characters, at least 20"),
        ("output_limit", 99.5, "Declared.output_limit is 99.5"),
        ("run", "text", "Declared.run is 'text'; expected a method"),
    ],
)
def test_what_an_own_tool_declares(attribute: str, value: Any, said: str) -> None:
    tool = Declared()
    check(tool, "own:Declared")
    setattr(tool, attribute, value)
    with pytest.raises(ParamsError, match=f"tool own:Declared: .*{said}"):
        check(tool, "own:Declared")


def test_an_own_tool_that_lacks_an_attribute() -> None:
    class Bare:
        name = kind = "bare"

    with pytest.raises(ParamsError, match="Bare has no tag"):
        check(Bare(), "own:Bare")  # type: ignore[arg-type]


def test_an_own_tool_may_stand_in_for_a_built_in_one() -> None:
    tool = Declared()
    tool.kind = "search"
    check(tool, "own:Declared")


def test_tools_of_one_question() -> None:
    own, search = Declared(), Search.over([Passage("a", "", "red")])
    assert by_kind([search, Calculator(), own]).keys() == {"search", "calculate", "own"}
    other = Declared()
    other.name = other.kind = "other"
    with pytest.raises(ParamsError, match="called by the tag 'own': own and other"):
        by_kind([own, other])
    own.kind = "search"
    with pytest.raises(ParamsError, match="have the kind 'search': swirl.tools.search.Search and .*Declared"):
        by_kind([search, own])


def test_where_options_stand() -> None:
    names = ["calculator", "a.b:C", "mcp:files/read", "mcp:files/write/all"]
    assert [options_name(name) for name in names] == ["calculator", "a.b:C", "mcp:files", "mcp:files"]


class Mute(Exception):
    """Fails even at saying what it is."""

    def __str__(self) -> str:
        raise asyncio.CancelledError


class Gate:
    """A tool that hangs until it is released."""

    name = kind = tag = "gate"
    description = "hangs"
    time_limit_s = 0.05  # for the calls that hang
    output_limit = 200

    def __init__(self) -> None:
        self.open = threading.Event()

    def run(self, payload: str) -> str:
        if payload == "hang":
            self.open.wait(300)
        if payload == "exit":
            sys.exit("gone")
        if payload == "cancel":
            raise asyncio.CancelledError
        if payload == "mute":
            raise Mute
        return {"number": 5, "half": "a \ud800"}.get(payload, payload)  # type: ignore[return-value]


def test_a_tool_with_hanging_calls_is_refused_until_one_ends() -> None:
    gate, other = Gate(), Gate()
    other.time_limit_s = 60
    late = Observation("error: gate took longer than 0.05 s", error=True)
    assert [call(gate, "hang") for _ in range(MAX_HANGING)] == [late] * MAX_HANGING
    assert call(gate, "quick").text == "error: gate is not called: 4 earlier calls of it took too long and still run"
    assert call(other, "quick") == Observation("quick", error=False)
    gate.open.set()
    gate.time_limit_s = 60
    deadline = time.monotonic() + 60
    while call(gate, "quick").error and time.monotonic() < deadline:
        time.sleep(0.01)
    assert call(gate, "quick") == Observation("quick", error=False)


def test_what_foreign_code_may_do_wrong() -> None:
    gate = Gate()
    gate.time_limit_s = 60
    assert call(gate, "exit") == Observation("error: gate failed with SystemExit: gone", error=True)
    assert call(gate, "cancel") == Observation("error: gate failed with CancelledError: ", error=True)
    assert call(gate, "mute") == Observation("error: gate failed with Mute: (it cannot say why)", error=True)
    assert call(gate, "number") == Observation("error: gate failed with TypeError: run gave int, not a str", error=True)
    assert call(gate, "half") == Observation("a ?", error=False)
