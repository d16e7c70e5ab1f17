"""`swirl track`: what was recorded while the tracking server was away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swirl.errors import SwirlError
from swirl.layout import Layout

app = typer.Typer(help="Records of runs that wait for an MLflow server.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Records of runs that wait for an MLflow server."""


@app.command()
def sync(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what waits and send nothing.")] = False,
) -> None:
    """Send the runs that were recorded while the server of MLFLOW_TRACKING_URI was down.

    Runs keep their times; what has arrived is not sent twice, however often the server goes away in between. Without
    MLFLOW_TRACKING_URI they go to mlflow.db in the project.
    """
    from swirl import environment
    from swirl.tracking import sync as sending

    environment.quiet()
    number = sending.sync(_layout(), print, dry_run)
    print(f"{number} {'record' if number == 1 else 'records'} {'waiting' if dry_run else 'sent'}")


def _layout() -> Layout:
    """The layout of the project that holds the current folder. Raises `SwirlError` outside of one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return Layout(folder)
    raise SwirlError(f"no dvc.yaml in {here} or above it; run swirl inside the project")
