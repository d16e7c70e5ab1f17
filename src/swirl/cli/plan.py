"""`swirl plan`: what a run would do, and what it needs."""

from __future__ import annotations

from typing import Annotated

import typer

from swirl.cli.project import project_layout
from swirl.pipeline import environment


def plan(
    name: Annotated[str | None, typer.Option("--preset", help="A preset instead of params.yaml.")] = None,
    machine: Annotated[
        str,
        typer.Option(
            help="What another machine reaches, as gb=80,flops=4e14,bandwidth=2e12,served=9000,asked=16: memory of its "
            "device, FLOPs and bytes a second, tokens a second of servers, requests a second of a judge. What fits "
            "there, and how long it takes."
        ),
    ] = "",
    time: Annotated[
        bool, typer.Option("--time", help="Measure the policy here for about half a minute: how long stages take.")
    ] = False,
) -> None:
    """Show what a run would do, stage by stage, and the servers and keys it needs.

    It loads no model, unless `--time` asks how long the stages take, and asks no server.
    """
    from swirl.config import presets
    from swirl.planning import estimates, footprint, keys, machines, signal, unasked

    root, elsewhere = project_layout().root, machines.parsed(machine)
    resolved = presets.settings(root, name)
    if time:
        environment.set_up_process(resolved.runtime.threads)
    stages = estimates.plan(resolved, root)
    names = [one.stage for one in stages]
    print(estimates.text(stages, keys.lines(resolved, root, names), signal.lines(resolved, names)))
    held, hours = footprint.lines(resolved, root, elsewhere.free), machines.lines(resolved, root, elsewhere)
    print("\n".join(["", *held, *hours]), flush=True)
    for line in unasked.lines(resolved):
        print(f"\n{line}", flush=True)
    if time:
        from swirl.planning import durations, precision

        if said := precision.warning(resolved):
            print(f"\n{said[0].upper()}{said[1:]}.", flush=True)
        print("\n".join(["", *durations.lines(resolved, root)]))
