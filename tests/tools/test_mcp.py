"""Tools of a real MCP server (tests/mcp_server.py), as a process over stdio and over HTTP on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swirl.core.errors import ParamsError, SwirlError
from swirl.core.types import Observation
from swirl.tools import mcp
from swirl.tools.base import MAX_DESCRIPTION, Tool, call
from swirl.tools.by_name import open_tool
from tests.servers import held_port

pytest.importorskip("mcp", reason="the extra mcp is not installed")

HERE = Path(__file__).parents[1]
LIMITS = {"time_limit_s": 10, "output_limit": 200}
OPTIONS: dict[str, Any] = {"command": [sys.executable, "mcp_server.py"], **LIMITS}

Open = Callable[[str], Tool]


@pytest.fixture(scope="module")
def facts() -> Iterator[Open]:
    """Opens tools of one server over stdio, by their names on the server."""
    yield lambda tool: open_tool(f"mcp:facts/{tool}", OPTIONS, HERE)
    mcp.close_all()


@pytest.fixture
def fresh() -> Iterator[Callable[..., Open]]:
    """Opens tools of a server that belongs to one test, with other options."""

    def opened(**options: Any) -> Open:
        return lambda tool: open_tool(f"mcp:fresh/{tool}", {**OPTIONS, **options}, HERE)

    yield opened
    server = mcp._servers.pop((str(HERE), "fresh"), None)
    if server is not None:
        server.close()


def gone(pid: int) -> bool:
    """Whether a process ends within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_what_a_tool_is_called(facts: Open) -> None:
    tool = facts("addUp")
    assert tool.name == tool.kind == "mcp:facts/addUp"
    assert (tool.tag, tool.output_limit) == ("add_up", 200)
    assert tool.description == (
        "The sum of two numbers. Write a JSON object with a (integer, required), b (integer, required)"
    )
    assert facts("capital").description == (
        "The capital of a country. "
        "Write country as plain text, or a JSON object with country (string, required), shout (boolean)"
    )
    assert facts("process").description == "The server's process id. Write {}"
    assert [mcp._tag(name) for name in ("get-Weather.now", "7up", "answer", "ÄÄ", "HTTPGet")] == [
        "get_weather_now",
        "tool_7up",
        "tool_answer",
        "tool_",
        "httpget",
    ]


@pytest.mark.parametrize(("words", "arguments"), [(3, 200), (5000, 1), (5000, 200)])
def test_a_long_description_keeps_how_a_call_is_written(words: int, arguments: int) -> None:
    schema = {"properties": {f"x{i}\n{{question}}": {"type": "number"} for i in range(arguments)}}
    listing = SimpleNamespace(name="far", description="word\n" * words, input_schema=schema)
    server = SimpleNamespace(name="odd", description=SimpleNamespace(output_limit=200))
    description = mcp.ServerTool(server, listing).description  # type: ignore[arg-type]
    assert len(description) <= MAX_DESCRIPTION
    assert description.startswith("word word word")
    assert "Write a JSON object with x0 {question} (number)" in description


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        ("Norway", "Oslo"),
        ('{"country": "Peru", "shout": true}', "LIMA"),
        ('{"country": "Peru"}', "Lima"),
        ('"Peru"', "error: Error executing tool capital: no such country"),
        ('{"land": "Peru"}', "error: Error executing tool capital: no such country"),
        ('{"country": "Norway", "shout": "loud"}', "error: Error executing tool capital: 1 validation error"),
        ('{"country": "\\ud800"}', "error: the arguments hold characters that cannot be sent"),
        ("\ud800", "error: the arguments hold characters that cannot be sent"),
        ("[" * 2000, "error: Error executing tool capital: no such country"),
    ],
)
def test_plain_text_is_the_one_required_string(facts: Open, payload: str, answer: str) -> None:
    seen = call(facts("capital"), payload)
    assert seen.text.startswith(answer)
    assert seen.error == answer.startswith("error")


EXPECTED = "expected a JSON object with a (integer, required), b (integer, required)"


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        ('{"a": 2, "b": 3}', "5"),
        ("2 + 3", f"error: {EXPECTED}"),
        ("[2, 3]", f"error: {EXPECTED}"),
        ('{"a": NaN, "b": 3}', f"error: {EXPECTED}"),
        ('{"a": 2}', f"error: missing: b; {EXPECTED}"),
        ('{"a": 2, "b": "x"}', "error: Error executing tool addUp: 1 validation error"),
        ('{"a": 2, "b": ' + "[" * 99 + "]" * 99 + "}", "error: Error executing tool addUp: 1 validation error"),
        ('{"a": 2, "b": ' + "[" * 100 + "]" * 100 + "}", "error: the arguments are nested more than 100 deep"),
        ('{"a": 2, "b": ' + '{"x":' * 300 + "1" + "}" * 301, "error: the arguments are nested more than 100 deep"),
    ],
)
def test_other_calls_are_json_objects(facts: Open, payload: str, answer: str) -> None:
    assert call(facts("addUp"), payload).text.startswith(answer)


def test_the_result_is_cut(facts: Open) -> None:
    assert call(facts("repeat"), '{"text": "ab", "times": 500000}') == Observation("ab" * 95 + " ... [cut]", False)


def test_a_server_gets_no_variable_that_is_not_named(
    facts: Open, fresh: Callable[..., Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWIRL_TEST_KEY", "opensesame")
    assert call(facts("variable"), "SWIRL_TEST_KEY").text == "not set"
    assert call(fresh(env=["SWIRL_TEST_KEY"])("variable"), "SWIRL_TEST_KEY").text == "opensesame"
    monkeypatch.delenv("SWIRL_TEST_KEY")
    with pytest.raises(ParamsError, match="the environment variable SWIRL_TEST_KEY, which env names, is not set"):
        open_tool("mcp:other/variable", {**OPTIONS, "env": ["SWIRL_TEST_KEY"]}, HERE)


@pytest.mark.slow
def test_a_late_call_is_cancelled_and_the_next_one_answered(fresh: Callable[..., Open]) -> None:
    tools = fresh(time_limit_s=3)
    pid = call(tools("process"), "{}").text
    started = time.monotonic()
    assert call(tools("wait"), '{"seconds": 60}') == Observation("error: wait took longer than 3 s", error=True)
    assert time.monotonic() - started < 50
    assert call(tools("process"), "{}").text == pid


def test_a_server_that_ends_is_started_again_a_few_times(
    fresh: Callable[..., Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "MAX_RESTARTS", 2)
    tools = fresh()
    seen = []
    for _ in range(3):
        seen.append(call(tools("process"), "{}").text)
        assert call(tools("end"), "{}") == Observation("error: the server of end has ended", error=True)
    assert len(set(seen)) == 3
    assert all(text.isdigit() for text in seen)
    assert call(tools("process"), "{}").text == "error: the server fresh has ended and is not started again"


def test_a_server_that_cannot_be_started_again_tells_the_model_no_more_than_that(
    fresh: Callable[..., Open], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"""if True:
        import os, runpy, sys
        if os.path.exists({str(tmp_path / "broken")!r}):
            sys.exit("no disk")
        sys.argv = ["mcp_server.py"]
        runpy.run_path("mcp_server.py", run_name="__main__")
    """
    tools = fresh(command=[sys.executable, "-c", code, "--api-key", "sk-secret"])
    assert call(tools("end"), "{}").error
    (tmp_path / "broken").touch()
    seen = call(tools("process"), "{}")
    assert seen == Observation("error: the server fresh has ended and could not be started again", error=True)
    told = capsys.readouterr().err
    assert told.startswith(f"warning: mcp:fresh: the command {sys.executable!r} cannot be opened: ")
    assert told.endswith("; it wrote: no disk\n") and "sk-secret" not in told


@pytest.mark.slow
def test_a_call_that_ends_the_server_costs_no_other_call(fresh: Callable[..., Open]) -> None:
    tools = fresh(time_limit_s=60)
    pid = call(tools("process"), "{}").text
    server = mcp._servers[str(HERE), "fresh"]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(call, tools("wait"), '{"seconds": 5}') for _ in range(3)]
        deadline = time.monotonic() + 4.5  # the three are asked again after the end, whether or not all wait by now
        while server._open[id(server._client)] < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert call(tools("end"), "{}") == Observation("error: the server of end has ended", error=True)
    assert [future.result() for future in waiting] == [Observation("awake", error=False)] * 3
    assert call(tools("process"), "{}").text != pid


@pytest.mark.slow
def test_a_server_that_answers_nothing_is_started_again(
    fresh: Callable[..., Open], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "MAX_HANGING", 2)
    tools = fresh(time_limit_s=3)
    pid = call(tools("process"), "{}").text
    assert [call(tools("block"), '{"seconds": 600}').error for _ in range(2)] == [True] * 2
    again = call(tools("process"), "{}")
    assert again.text.isdigit()
    assert again.text != pid
    assert gone(int(pid))


def test_closing_ends_the_process(fresh: Callable[..., Open]) -> None:
    pid = int(call(fresh()("process"), "{}").text)
    mcp._servers.pop((str(HERE), "fresh")).close()
    assert gone(pid)


def test_the_end_of_the_program_ends_the_process() -> None:
    code = f"""if True:
        from pathlib import Path
        from swirl.tools.by_name import open_tool
        print(open_tool("mcp:facts/process", {OPTIONS!r}, Path({str(HERE)!r})).run("{{}}"))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stderr == ""
    assert gone(int(done.stdout))


def test_one_server_has_one_description(facts: Open) -> None:
    assert facts("capital") is facts("capital")
    with pytest.raises(ParamsError, match="mcp:facts is open already, with other options"):
        open_tool("mcp:facts/capital", {**OPTIONS, "output_limit": 300}, HERE)


def test_over_http() -> None:
    with held_port() as port:
        url = f"http://127.0.0.1:{port}/mcp"
        with pytest.raises(ParamsError, match=f"mcp:web: {url} cannot be opened: .*[Cc]onnect"):
            open_tool("mcp:web/capital", {"url": url, **LIMITS}, HERE)
    server = subprocess.Popen(
        [sys.executable, str(HERE / "mcp_server.py"), str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        tools = {name: open_tool(f"mcp:web/{name}", {"url": url, **LIMITS}, HERE) for name in ("capital", "addUp")}
        assert call(tools["capital"], "Norway") == Observation("Oslo", error=False)
        assert call(tools["addUp"], '{"a": 2, "b": 3}') == Observation("5", error=False)
    finally:
        mcp._servers.pop((str(HERE), "web")).close()
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ["no-such-program"]}, "mcp:bad: command not found: 'no-such-program'"),
        (
            {"command": [sys.executable, "-c", "import sys; sys.exit('no key given')"]},
            "cannot be opened: .*; it wrote: no key given",
        ),
        ({"command": ["echo", "hello"]}, "the command 'echo' cannot be opened"),
        ({"command": "python x"}, "command is 'python x'; expected a list of strings"),
        ({"command": []}, r"expected either command \(a list: program and arguments\) or url"),
        ({"url": "http://a"}, "expected either command"),
        ({"command": [], "url": "file:///etc"}, "url is 'file:///etc'; expected http://... or https://..."),
        ({"command": [], "url": "http://a", "env": ["X"]}, "env is for a server with a command"),
        ({"env": "KEY"}, "env is 'KEY'; expected a list of strings"),
        ({"command": ["echo", "--api-key", "sk-1"]}, "^mcp:bad: the command 'echo' cannot be opened: (?!.*sk-1)"),
        ({"time_limit_s": 0}, "time_limit_s is 0; expected a number of seconds above 0"),
        ({"time_limit_s": 10**400}, "time_limit_s is 1000*; expected a number of seconds above 0, at most 1e.09"),
        ({"output_limit": 5}, "output_limit is 5; expected characters, at least 20"),
        ({"timeout": 5}, "no such option: timeout; the options are command, url, env, time_limit_s, output_limit"),
    ],
)
def test_what_cannot_be_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        open_tool("mcp:bad/tool", {**OPTIONS, **options}, HERE)


@pytest.mark.slow
def test_a_program_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow because the client waits ten seconds for an answer to its first request."""
    monkeypatch.setattr(mcp, "START_LIMIT_S", 0.3)
    with pytest.raises(ParamsError, match="the command 'sleep' does not answer"):
        open_tool("mcp:bad/tool", {**OPTIONS, "command": ["sleep", "60"]}, HERE)


def test_no_such_tool(facts: Open) -> None:
    there = "addUp, block, capital, end, process, repeat, variable, wait"
    with pytest.raises(ParamsError, match=f"mcp:facts has no tool 'capitol'; its tools are {there}"):
        facts("capitol")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swirl.tools.mcp.find_spec", lambda name: None)
    with pytest.raises(SwirlError, match=r"pip install -c constraints.txt -e '\.\[mcp\]'"):
        open_tool("mcp:bad/tool", OPTIONS, HERE)
