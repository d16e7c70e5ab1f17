"""`swirl seeds`: runs that differ in their seed alone, pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def seeds(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Project folders in which the pipeline has run, with the same params.yaml but for `seed`, or files "
            "that --keep made of such.",
            show_default=False,
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything to this file, too.")
    ] = None,
    kept: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Also write a file of each run, seed-N.json, to stand in for it."),
    ] = None,
    against: Annotated[
        str, typer.Option(help="The model that the others are set against: base, or sft.", show_default=True)
    ] = "base",
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print one Markdown table instead of text.")] = False,
) -> None:
    """Pool the results of several seeds: base, SFT and SWiRL with intervals, and the differences from one of them.

    Accuracy, exact match, F1, answered, malformed, and the share of searches that bring a new supporting page, as means
    over seeds; a bootstrap over seeds and questions gives intervals and p-values. Nothing in the runs is changed. Seeds
    that ran on several machines: --keep makes a small file of each run, without texts of its questions.
    """
    from swirl.core.errors import DataError
    from swirl.core.records import save_json
    from swirl.reporting.kept_runs import keep, read_kept
    from swirl.reporting.pooled_runs import pooled, read, to_json
    from swirl.reporting.pooled_text import markdown
    from swirl.reporting.text import show_pooled

    if lost := [run for run in runs if not run.exists()]:
        raise DataError(f"{lost[0]} does not exist; a run is a project's folder, or a file that --keep made of one")
    if json_file and json_file.resolve() in {run.resolve() for run in runs}:
        raise DataError(f"--json {json_file} is one of the runs, and would be overwritten; name another file")
    every = [read_kept(run) if run.is_file() else read(run) for run in runs]
    results = pooled(every, against)
    if as_markdown:
        print(markdown(results), flush=True)
    else:
        show_pooled(results)
    if kept:
        for run in every:
            keep(run, kept / f"seed-{run.seed}.json")
    if json_file:
        try:
            save_json(to_json(results), json_file)
        except OSError as error:
            raise DataError(f"{json_file} cannot be written: {error}; --json wants a file") from error
