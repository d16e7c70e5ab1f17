"""`swirl compare`: two runs, or two models, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from swirl.cli.project import project_layout


def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="A project's folder in which the pipeline ran, or a git revision or DVC experiment of this one."
        ),
    ] = "HEAD",
    second: Annotated[str, typer.Argument(help="Another; . is this folder as it is now.")] = ".",
    models: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Compare model A of the first run with model B of the second: ceiling, base, sft or swirl. Default: "
            "each with the same one.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show two runs side by side: the settings that differ, and each model's accuracy with paired intervals.

    Without arguments, what is committed against this folder. `swirl compare . . --models base swirl` compares two
    models of one run; `dvc exp show` names the experiments. Questions are paired by id and text, so runs with another
    seed may share none.
    """
    import json
    import sys
    from dataclasses import asdict

    from swirl.core.errors import ParamsError
    from swirl.core.suggestions import meant
    from swirl.reporting import compared_runs
    from swirl.reporting.results import MODELS
    from swirl.reporting.text import show_runs

    for model in models or ():
        if model not in MODELS:
            raise ParamsError(f"there is no model {model!r}; there are {', '.join(MODELS)}{meant(model, MODELS)}")
    root = project_layout().root
    wanted = [(one,) for one in models] if models else [MODELS, MODELS]
    one, other = (compared_runs.read(run, root, which) for run, which in zip((first, second), wanted, strict=True))
    for run in (one, other):
        if run.stale:
            print(
                f"swirl: warning: {run.name}: its answers are not of its params.yaml: {run.stale[0]}", file=sys.stderr
            )
    changed, rows = compared_runs.changed(one, other), compared_runs.compare(one, other, models)
    if as_json:
        settings = [{"key": key, "values": values} for key, *values in changed]
        print(
            json.dumps(
                {"runs": [first, second], "settings": settings, "scores": [asdict(row) for row in rows]}, indent=1
            )
        )
    else:
        names = ("first", "second") if first == second else (first, second)
        show_runs(names, changed, rows)
