"""`swirl judge`: how often the judge errs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swirl.cli.project import project_layout
from swirl.pipeline import environment

app = typer.Typer(help="Look at the judge: how often it errs.", no_args_is_help=True)


@app.command()
def calibrate(
    labelled: Annotated[
        Path,
        typer.Argument(
            help="JSON lines: question, conversation, action, label GOOD or BAD; or question, answer, golden, "
            "label YES or NO."
        ),
    ],
    grader: Annotated[bool, typer.Option("--grader", help="Ask judge.grader instead of the reward model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Measure the false-positive and false-negative rates of the judge of params.yaml on a labelled file.

    A judge behind a server needs no output of a stage; a local judge needs models/reward.
    """
    layout = project_layout()
    from swirl.config import params

    resolved = params.load(layout.root / "params.yaml")
    environment.set_up_process(resolved.runtime.threads)
    from swirl.judging.calibrate import as_text
    from swirl.wiring.calibration import measure
    from swirl.wiring.servers import print_usage

    rates = measure(labelled, grader, resolved, layout)
    if as_json:
        import dataclasses
        import json

        print(json.dumps(dataclasses.asdict(rates), indent=1))
    else:
        print(as_text(rates))
        print_usage()
