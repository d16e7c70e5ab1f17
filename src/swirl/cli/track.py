"""`swirl track`: runs that were recorded while the MLflow server was down."""

from __future__ import annotations

from typing import Annotated

import typer

from swirl.cli.project import project_layout

app = typer.Typer(help="Records of runs that wait for an MLflow server.", no_args_is_help=True)


@app.command()
def sync(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what waits and send nothing.")] = False,
) -> None:
    """Send the runs that were recorded while the server of MLFLOW_TRACKING_URI was down.

    Runs keep their original times, and nothing is sent twice, even if the server goes down again in between. Without
    MLFLOW_TRACKING_URI, runs go to mlflow.db in the project.
    """
    from swirl.tracking.delivery import sync as deliver

    number = deliver(project_layout(), print, dry_run)
    print(f"{number} {'run' if number == 1 else 'runs'} {'waiting' if dry_run else 'sent'}")
