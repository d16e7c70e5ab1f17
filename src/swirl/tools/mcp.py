"""Tools of MCP servers (Model Context Protocol), through the official client: stdio and streamable HTTP.

A server is opened once per process, is served by an event loop in a thread of its own, and ends with the process.
Memory is not bounded: the client reads a whole message before the result is cut to the output limit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swirl.core.errors import ParamsError, SwirlError, ToolError
from swirl.core.nesting import depth
from swirl.core.untrusted import no_constant
from swirl.tools.base import MAX_DESCRIPTION, MAX_HANGING, MAX_TIME_LIMIT_S, one_line

START_LIMIT_S = 60.0
"""Seconds that a server may take for each answer while it is being opened."""
MAX_RESTARTS = 10
"""How often a server that has ended, or no longer answers, is restarted."""

_CLOSE_LIMIT_S = 15.0
_MIN_OUTPUT = 20
_DEEPEST = 100
"""Objects and lists in one another that the arguments of a call may have; the client cannot send far deeper ones."""
_servers: dict[tuple[str, str], Server] = {}
_servers_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Description:
    """How a server is reached: by `command` (stdio) or by `url` (streamable HTTP)."""

    command: tuple[str, ...]
    """Program and arguments, started in `tools.folder`; empty with a `url`."""
    url: str
    env: tuple[str, ...]
    """Names of environment variables for the program, in addition to HOME, LOGNAME, PATH, SHELL, TERM and USER."""
    time_limit_s: float
    """Seconds that one call may take."""
    output_limit: int
    """Maximum number of characters of one observation."""


def describe(server: str, options: Mapping[str, object]) -> Description:
    """The description in a server's options. Raises `ParamsError` naming server, option and what is expected."""
    keys = ("command", "url", "env", "time_limit_s", "output_limit")
    if unknown := [str(key) for key in options if key not in keys]:
        raise ParamsError(f"mcp:{server}: no such option: {', '.join(unknown)}; the options are {', '.join(keys)}")
    command, url = _words(server, options, "command"), options.get("url", "")
    if bool(command) == bool(url):
        raise ParamsError(f"mcp:{server}: expected either command (a list: program and arguments) or url")
    if not isinstance(url, str) or (url and not url.startswith(("http://", "https://"))):
        raise ParamsError(f"mcp:{server}: url is {url!r}; expected http://... or https://...")
    env = _words(server, options, "env")
    if "?" in url or "@" in url:
        raise ParamsError(f"mcp:{server}: url must hold no query and no password: it is written into logs")
    if url and env:
        raise ParamsError(f"mcp:{server}: env is for a server with a command; one with a url gets no variables")
    seconds, limit = options.get("time_limit_s"), options.get("output_limit")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_TIME_LIMIT_S:
        raise ParamsError(
            f"mcp:{server}: time_limit_s is {repr(seconds)[:100]}; "
            f"expected a number of seconds above 0, at most {MAX_TIME_LIMIT_S:g}"
        )
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < _MIN_OUTPUT:
        raise ParamsError(f"mcp:{server}: output_limit is {limit!r}; expected characters, at least {_MIN_OUTPUT}")
    return Description(command, url, env, float(seconds), limit)


def open_server(server: str, options: Mapping[str, object], root: Path) -> Server:
    """The server of that name, opened at the first call and reused afterwards.

    Raises `ParamsError` for a description that is not valid, that differs from the one at the first call, or whose
    server cannot be started.
    """
    description = describe(server, options)
    key = (str(root), server)
    with _servers_lock:
        if key not in _servers:
            if not _servers:
                atexit.register(close_all)
            _servers[key] = Server(server, description, root)
        opened = _servers[key]
    if opened.description != description:
        raise ParamsError(f"mcp:{server} is open already, with other options; all its tools share one description")
    return opened


def close_all() -> None:
    """End every open server; a process that does not end by itself is killed."""
    with _servers_lock:
        for server in _servers.values():
            server.close()
        _servers.clear()
    atexit.unregister(close_all)


class _Ended(ToolError):
    """A server has ended, with `calls` calls that it had not answered."""

    def __init__(self, said: str, calls: int) -> None:
        super().__init__(said)
        self.calls = calls


class ServerTool:
    """One tool of a server.

    A call is a JSON object of arguments, or plain text when the tool has exactly one required string argument (an
    object that holds that argument is still read as arguments). `Server.call` enforces the time limit itself: it
    cancels the call, and leaves no thread behind.
    """

    time_limit_s = 0.0

    def __init__(self, server: Server, listed: Any) -> None:
        """`listed` is the tool as its server lists it (name, description, input_schema)."""
        schema = listed.input_schema if isinstance(listed.input_schema, dict) else {}
        properties = schema.get("properties")
        self._arguments: dict[str, Any] = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        self._required = [str(name) for name in required] if isinstance(required, list) else []
        first = self._arguments.get(self._required[0]) if len(self._required) == 1 else None
        self._text_argument = self._required[0] if isinstance(first, dict) and first.get("type") == "string" else ""
        self._server, self._tool = server, str(listed.name)
        self.name = self.kind = f"mcp:{server.name}/{listed.name}"
        self.tag = _tag(self._tool)
        self.summary = str(listed.description or f"the tool {listed.name} of {server.name}")
        self.description = self._described(self.summary)
        self.parameters = schema
        self.output_limit = server.description.output_limit

    def run(self, payload: str) -> str:
        """The text of the server's result. Raises `ToolError` for bad arguments and for what the server refuses."""
        return self._server.call(self._tool, self._parse(payload))

    def _parse(self, payload: str) -> dict[str, Any]:
        """The arguments of a call. Raises `ToolError` saying what they should be."""
        arguments: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(payload, parse_constant=no_constant)
        if self._text_argument and not (isinstance(arguments, dict) and self._text_argument in arguments):
            arguments = {self._text_argument: payload}
        if not isinstance(arguments, dict):
            raise ToolError(f"expected a JSON object with {self._signature()}")
        if missing := [name for name in self._required if name not in arguments]:
            raise ToolError(f"missing: {', '.join(missing)}; expected a JSON object with {self._signature()}")
        if depth(arguments) > _DEEPEST:
            raise ToolError(f"the arguments are nested more than {_DEEPEST} deep")
        try:
            json.dumps(arguments, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which would end the connection
            raise ToolError("the arguments hold characters that cannot be sent") from None
        return arguments

    def _described(self, said: str) -> str:
        """The server's description and how to write a call; neither crowds out the other, however long both are."""
        written = f"a JSON object with {self._signature()}" if self._arguments else "{}"
        if self._text_argument:
            written = f"{self._text_argument} as plain text, or {written}"
        half = MAX_DESCRIPTION // 2
        how = one_line(f"Write {written}", max(half, MAX_DESCRIPTION - len(said) - 2))
        return f"{one_line(said, MAX_DESCRIPTION - len(how) - 2).rstrip('.')}. {how}"

    def _signature(self) -> str:
        """`query (string, required), k (integer)`."""
        said = []
        for name, about in self._arguments.items():
            kind = str(about.get("type", "any")) if isinstance(about, dict) else "any"
            said.append(f"{name} ({kind}{', required' if name in self._required else ''})")
        return ", ".join(said) or "no arguments"


class Server:
    """An open server. Calls may come from any thread; a call that finds the server lost restarts it first."""

    def __init__(self, name: str, description: Description, root: Path) -> None:
        """Start it and list its tools. Raises `ParamsError` saying why that fails."""
        if find_spec("mcp") is None:
            raise SwirlError("tools of MCP servers need the extra mcp: pip install -c constraints.txt -e '.[mcp]'")
        self.name, self.description, self._root = name, description, root
        self._variables = {}
        for variable in description.env:
            if variable not in os.environ:
                raise ParamsError(f"mcp:{name}: the environment variable {variable}, which env names, is not set")
            self._variables[variable] = os.environ[variable]
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"mcp:{name}", daemon=True).start()
        self._lock = threading.Lock()
        self._unanswered = 0
        """Calls in a row that got no answer."""
        self._lost = False
        self._restarts = 0
        self._open: Counter[int] = Counter()
        """`id` of a client -> calls that its server has not answered."""
        self._again = threading.Lock()
        try:
            self._start()
        except ParamsError:
            self.close()
            raise

    def tool(self, name: str) -> ServerTool:
        """One of its tools. Raises `ParamsError`, naming the tools there are, for any other name."""
        if name not in self._tools:
            there = ", ".join(sorted(self._tools)) or "none"
            raise ParamsError(f"mcp:{self.name} has no tool {name!r}; its tools are {there}")
        return self._tools[name]

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """The text of one result. Raises `ToolError` when the server reports an error, is too slow, or has ended.

        A server that ends takes all calls with it that it has not answered. One of them may have ended it; so where
        there are several, each is made once more, one after another.
        """
        try:
            return self._call(tool, arguments)
        except _Ended as ended:
            if ended.calls == 1:
                raise
        with self._again:
            return self._call(tool, arguments)

    def _call(self, tool: str, arguments: dict[str, Any]) -> str:
        """As `call`, made once."""
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        seconds = self.description.time_limit_s
        late = ToolError(f"{tool} took longer than {seconds:g} s")
        client = self._connected()
        future = asyncio.run_coroutine_threadsafe(
            client.call_tool(tool, arguments, read_timeout_seconds=seconds), self._loop
        )
        try:
            result = future.result(2 * seconds + 1)  # the client's own limit is reached first
        except TimeoutError:
            future.cancel()
            self._note(client, answered=False)
            raise late from None
        except MCPError as error:
            if error.code == REQUEST_TIMEOUT:
                self._note(client, answered=False)
                raise late from None
            if error.code == CONNECTION_CLOSED:
                self._note(client, answered=False, lost=True)
                raise _Ended(f"the server of {tool} has ended", self._open[id(client)]) from None
            self._note(client, answered=True)
            raise ToolError(f"{tool} failed: {error}") from None
        except Exception as error:  # a result that is not as declared, or a broken connection
            self._note(client, answered=False)
            raise ToolError(f"{tool} failed: {_leaf(error)}") from error
        self._note(client, answered=True)
        text = _text(result)
        if result.is_error:
            raise ToolError(text or f"{tool} failed")
        return text

    def close(self) -> None:
        """End the server's process, or the connection to it."""
        self._stop()
        self._lost, self._restarts = True, MAX_RESTARTS
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._log.close()

    def _connected(self) -> Any:
        """The client; a server that was lost is restarted first."""
        with self._lock:
            if self._lost:
                if self._restarts >= MAX_RESTARTS:
                    raise ToolError(f"the server {self.name} has ended and is not started again")
                self._restarts += 1
                self._stop()
                try:
                    self._start()
                except ParamsError as error:
                    print(f"warning: {error}", file=sys.stderr, flush=True)
                    raise ToolError(f"the server {self.name} has ended and could not be started again") from error
            self._open[id(self._client)] += 1
            return self._client

    def _note(self, client: Any, answered: bool, lost: bool = False) -> None:
        """Record a call's outcome; the server is lost once it has ended, or left several calls in a row unanswered."""
        with self._lock:
            self._open[id(client)] -= not lost
            if client is not self._client:
                return  # the server that was called has been stopped since
            self._unanswered = 0 if answered else self._unanswered + 1
            self._lost = self._lost or lost or self._unanswered >= MAX_HANGING

    def _start(self) -> None:
        """Open a connection and list the tools. Raises `ParamsError`."""
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # the errors below report what goes wrong
        self._log.seek(0)
        self._log.truncate()
        ready: Future[tuple[Any, list[Any]]] = Future()
        self._end = asyncio.Event()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(ready, self._end), self._loop)
        try:
            self._client, listed = ready.result(3 * START_LIMIT_S)
        except TimeoutError:
            raise ParamsError(f"mcp:{self.name}: {self._what()} does not answer") from None
        except Exception as error:
            raise ParamsError(f"mcp:{self.name}: {self._why(_leaf(error))}") from error
        self._tools = {tool.name: ServerTool(self, tool) for tool in listed}
        self._unanswered, self._lost = 0, False
        self._open[id(self._client)] = 0

    async def _serve(self, ready: Future[tuple[Any, list[Any]]], end: asyncio.Event) -> None:
        """Keep the connection open until `end` is set; one and the same task must open and close it."""
        from mcp import Client, StdioServerParameters, stdio_client

        target: Any = self.description.url
        if self.description.command:
            program, *arguments = self.description.command
            parameters = StdioServerParameters(
                command=program, args=arguments, env=self._variables, cwd=self._root, encoding_error_handler="replace"
            )
            target = stdio_client(parameters, errlog=self._log)
        try:
            async with Client(target, read_timeout_seconds=START_LIMIT_S) as client:
                listed: list[Any] = []
                cursor: str | None = None
                for _ in range(100):
                    page = await client.list_tools(cursor=cursor)
                    listed += page.tools
                    cursor = page.next_cursor
                    if not cursor:
                        break
                ready.set_result((client, listed))
                await end.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else ConnectionError("it was cancelled"))

    def _stop(self) -> None:
        """End the connection; the client kills a process that does not end by itself within a few seconds."""
        with contextlib.suppress(Exception):
            self._loop.call_soon_threadsafe(self._end.set)
            self._serving.result(_CLOSE_LIMIT_S)
        self._serving.cancel()

    def _what(self) -> str:
        """What is opened; the arguments of a command may hold a key."""
        return self.description.url or f"the command {self.description.command[0]!r}"

    def _why(self, error: BaseException) -> str:
        """Why the server could not be opened, with the last line that its program wrote to stderr."""
        if self.description.command and isinstance(error, FileNotFoundError):
            return f"command not found: {self.description.command[0]!r}"
        self._log.seek(0)
        written = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        last = f"; it wrote: {written[-1][:300]}" if written else ""
        return f"{self._what()} cannot be opened: {type(error).__name__}: {error}{last}"


def _words(server: str, options: Mapping[str, object], key: str) -> tuple[str, ...]:
    """The option `key`, a list of strings; () when it is missing."""
    value = options.get(key, ())
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and word for word in value):
        raise ParamsError(f"mcp:{server}: {key} is {value!r}; expected a list of strings")
    return tuple(value)


def _tag(name: str) -> str:
    """A tool's name as a plain word: `getWeather-now` becomes `get_weather_now`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    word = re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")
    return word if word[:1].isalpha() and word != "answer" else f"tool_{word}"


def _text(result: Any) -> str:
    """The texts of a result, or its structured content; an image or sound is only named, as `[image]`."""
    said = []
    for block in result.content:
        text = block.text if block.type == "text" else getattr(getattr(block, "resource", None), "text", None)
        said.append(text if isinstance(text, str) else f"[{block.type}]")
    if not said and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(said)


def _leaf(error: BaseException) -> BaseException:
    """The first error inside a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
