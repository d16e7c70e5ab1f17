"""`swirl browse`: the trajectory browser of what a project has so far, or of another folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def browse(
    folder: Annotated[
        Path | None, typer.Argument(help="A project's folder.", show_default="the project that this is run in")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write.", show_default=".swirl/browser in that project")
    ] = None,
) -> None:
    """Write the trajectory browser, and print its page, to be opened from disk.

    Stage `report` writes the same into reports/browser at the end of a run. This one takes what there is already: the
    synthesised trajectories before anything is trained, or the evaluation of one model. Where there is a report, the
    page says whose results these are, as `swirl report` does.
    """
    import os

    from swirl.cli.project import project_layout
    from swirl.core import records
    from swirl.core.errors import DataError
    from swirl.core.layout import Layout
    from swirl.core.types import Question
    from swirl.reporting import provenance
    from swirl.reporting.browser.origins import origins
    from swirl.reporting.browser.writing import write
    from swirl.reporting.labelled import answered
    from swirl.reporting.results import MODELS, load_predictions
    from swirl.wiring.oracles import oracles_of

    layout = project_layout() if folder is None else Layout(folder)
    target = to or layout.root / ".swirl/browser"
    evaluated = [model for model in MODELS if layout.predictions(model).exists()]
    if not evaluated and not layout.trajectories.exists():
        raise DataError(f"{layout.root} has no trajectories yet, neither in data/trajectories nor in data/predictions")
    questions = {question.id: question for question in records.load(Question, layout.questions)}
    sources = origins(layout, load_predictions(layout, evaluated), oracles_of(layout, answered(questions.values())))
    report = os.path.relpath(layout.page, target) if layout.page.exists() else ""
    whose = provenance.found(layout) if layout.results.exists() else None
    given = (whose.results, provenance.as_script(whose)) if whose else ("", "")
    count = write(sources, questions, target, report, *given)
    print(f"{count:,} trajectories: {target / 'index.html'}")
