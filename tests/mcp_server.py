"""A small MCP server for tests: `python mcp_server.py` over stdio, `python mcp_server.py PORT` over HTTP."""

from __future__ import annotations

import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("facts")


@server.tool()
def capital(country: str, shout: bool = False) -> str:
    """The capital of a country."""
    if country not in ("Norway", "Peru"):
        raise ToolError(f"no such country: {country[:20]}")
    name = {"Norway": "Oslo", "Peru": "Lima"}[country]
    return name.upper() if shout else name


@server.tool(name="addUp")
def add_up(a: int, b: int) -> int:
    """The sum of two numbers."""
    return a + b


@server.tool()
def variable(name: str) -> str:
    """An environment variable of the server."""
    return os.environ.get(name, "not set")


@server.tool()
def process() -> str:
    """The server's process id."""
    return str(os.getpid())


@server.tool()
def wait(seconds: float) -> str:
    """Answers late."""
    time.sleep(seconds)
    return "awake"


@server.tool()
async def block(seconds: float) -> str:
    """Keeps the whole server busy."""
    time.sleep(seconds)
    return "awake"


@server.tool()
def end() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def repeat(text: str, times: int) -> str:
    """A text many times."""
    return text * times


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
