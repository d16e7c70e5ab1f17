"""Settings of servers and tools that no stage asks: misspelt, left over, or for commands that are given a server."""

from __future__ import annotations

from collections.abc import Iterator

from swirl.config.params import Params, evaluated
from swirl.config.served import DEFAULT, is_for
from swirl.core.suggestions import meant
from swirl.planning.keys import servers
from swirl.tools.by_name import options_name


def lines(params: Params) -> Iterator[str]:
    """A line for each entry of `clients`, `evaluate.servers` and `tools.options` whose server or tool no stage asks."""
    asked = [need.server for need in servers(params)]
    known = list(dict.fromkeys(name for one in asked for name in (one.url, f"{one.url}#{one.model}")))
    for entry in params.clients:
        if entry != DEFAULT and not any(is_for(entry, server) for server in asked):
            yield (
                f"clients: no stage asks {entry}, so its entry counts for commands alone that are given this server, "
                f"as `swirl evaluate`{meant(entry, known)}"
            )
    for model in params.evaluate.servers:
        if model not in evaluated(params):
            yield (
                f"evaluate.servers: {model} is not evaluated, so its server is not asked; train.methods is "
                f"[{', '.join(params.train.methods)}]"
            )
    tools = {options_name(tool) for task in params.tasks.values() for tool in task.tools}
    for name in params.tools.options:
        if name not in tools:
            yield f"tools.options: no task has the tool {name}, so its options are not read{meant(name, tools)}"
