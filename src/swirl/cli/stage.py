"""`swirl stage`: one stage on the outputs of earlier ones, as DVC calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from swirl.cli.project import project_layout
from swirl.core.errors import SwirlError
from swirl.core.suggestions import meant
from swirl.pipeline import environment
from swirl.pipeline.stages import STAGES


def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}.")],
    item: Annotated[str | None, typer.Option(help="Which model, for train (sft, swirl) and evaluate.")] = None,
) -> None:
    """Run one stage on the outputs of earlier stages. `dvc repro NAME` also brings those up to date."""
    _check_stage(name, item)
    layout = project_layout()
    _warn_of_other_source(layout.root / "src/swirl")
    _warn_of_other_versions(name, layout.root / "constraints-compute.txt")
    from swirl.config import params

    resolved = params.load(layout.root / "params.yaml")
    if name == "synthesize":  # the first stage that may cost much
        from swirl.planning.keys import check_keys

        check_keys(resolved)
    if STAGES[name].uses_torch:
        environment.set_up_process(resolved.runtime.threads)
        from swirl.planning.precision import warning

        if said := warning(resolved):
            print(f"swirl: warning: {said}", file=sys.stderr)
    from swirl.cli.run_stage import run_stage

    run_stage(name, item, resolved, layout)


def _warn_of_other_source(watched: Path) -> None:
    """Warn when the code that runs is not the code whose hashes DVC records."""
    running = Path(__file__).resolve().parents[1]
    if watched.is_dir() and watched.resolve() != running:
        print(f"swirl: warning: running {running}, while DVC watches {watched}; activate .venv here", file=sys.stderr)


def _warn_of_other_versions(stage: str, file: Path) -> None:
    """Warn when a library that the stage computes with is not installed in the version that DVC records."""
    if not file.exists():
        return
    from importlib.metadata import version

    from swirl.pipeline.source import libraries

    written = dict(line.split("==") for line in file.read_text(encoding="utf-8").splitlines() if "==" in line)
    for library in libraries(stage):
        installed = version(library).partition("+")[0]  # a CPU build is called 2.13.0+cpu
        if installed != written.get(library, installed):
            print(
                f"swirl: warning: {library} {installed} is installed, while {file.name}, which DVC watches, says "
                f"{written[library]}: install that one (make venv), or write {installed} there",
                file=sys.stderr,
            )


def _check_stage(name: str, item: str | None) -> None:
    """Raise `SwirlError` unless dvc.yaml can have a stage of that name and item."""
    if name not in STAGES:
        raise SwirlError(f"there is no stage {name!r}; there are {', '.join(STAGES)}{meant(name, STAGES)}")
    items = STAGES[name].items
    if items and item not in items:
        given = f", not {item!r}{meant(item, items)}" if item else ""
        raise SwirlError(f"stage {name} needs --item {' or --item '.join(items)}{given}")
    if not items and item is not None:
        raise SwirlError(f"stage {name} has no items; leave out --item {item}")
