"""The `swirl` command. Slow imports are left to the subcommand that needs them."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from swirl.cli import (
    browse,
    compare,
    evaluate,
    export,
    import_logs,
    judge,
    models,
    plan,
    pool,
    preset,
    run_bench,
    stage,
    track,
)
from swirl.cli.project import project_layout
from swirl.core.errors import SwirlError
from swirl.pipeline import environment
from swirl.pipeline.user_errors import sentence

app = typer.Typer(
    help="Step-wise reinforcement learning for multi-step reasoning and tool use.\n\n"
    "`dvc repro` runs the whole pipeline; the commands here run one part of it or look at what it made. "
    "Run them inside the project, where dvc.yaml and params.yaml are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"swirl {version('swirl')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `swirl` itself."""


SETTINGS, RESULTS, MODELS, MORE = "Settings", "Results", "Models and logs", "Stages, speed, records"
"""Headings of the commands in `swirl --help`."""

app.command(rich_help_panel=SETTINGS)(preset.preset)
app.command(rich_help_panel=SETTINGS)(plan.plan)


def main() -> None:
    """Run the command line; an error that the user can fix becomes one message and exit status 1."""
    environment.disable_telemetry()
    environment.bypass_proxy_for_localhost()
    warnings.formatwarning = _one_line
    try:
        app()
    except Exception as error:
        if not (said := sentence(error)):
            raise
        print(f"swirl: {said}", file=sys.stderr)
        sys.exit(1)


_formatwarning = warnings.formatwarning


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format this package's warnings without file and line, and other warnings as Python does."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"swirl: warning: {message}\n"
    return _formatwarning(message, category, filename, lineno, line)


@app.command(rich_help_panel=SETTINGS)
def params() -> None:
    """Check params.yaml and print it as the stages will see it."""
    from swirl.config.params import load
    from swirl.config.yaml_text import dump

    print(dump(load(project_layout().root / "params.yaml").model_dump()), end="")


@app.command(rich_help_panel=RESULTS)
def show(
    what: Annotated[
        str | None,
        typer.Argument(
            help="The id of a synthesised or evaluated trajectory, or an exported model's folder. Without one, a "
            "random question, as every evaluated model answers it."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose evaluation to look in: ceiling, base, sft or swirl. Default: that of every model that has it."
        ),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="A random one of this benchmark.")] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="A random one that one of the models answers wrong.")] = False,
    drawn: Annotated[bool, typer.Option("--random", help="A random one, which is the default without an id.")] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="A random question that model B answers right and model A does not, as both answer it: base swirl.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same one again. Default: another each time.")] = None,
) -> None:
    """Print a trajectory: its question, every action and observation, what the judge said, and how it was graded.

    Of an exported model it prints what it stands on and the settings that it brings along.
    """
    from swirl.cli import show as showing

    layout = project_layout()
    drawing = {"random": drawn, "benchmark": benchmark, "wrong": wrong, "diff": diff, "seed": seed is not None}
    showing.check(what, model, [f"--{option}" for option, given in drawing.items() if given])
    if what and Path(what).is_dir():
        print(showing.show_model(Path(what)))
    elif what:
        print(showing.show(what, layout, model))
    else:
        whose = diff or ((model,) if model else showing.evaluated(layout))
        if not diff and not model:
            print(f"drawn       from the evaluations of {', '.join(whose)}; --model shows one of them alone\n")
        print(showing.show_random(layout, whose, benchmark, wrong, seed, diff is not None))


@app.command(rich_help_panel=MODELS)
def ask(
    question: Annotated[str, typer.Argument(help="The question, in plain words; - reads it from standard input.")],
    benchmark: Annotated[
        str | None, typer.Option(help="Whose tools to use, as mini-hotpotqa; not needed where there is only one.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's folder, a .gguf file, a registered agent (models:/swirl-policy@champion), or an "
            "OpenAI-compatible server (http://127.0.0.1:8000/v1#NAME).",
            show_default="models/swirl",
        ),
    ] = None,
    key_env: Annotated[
        str, typer.Option(help="The environment variable that holds a server's key.", show_default=False)
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Let the tuned model answer a question step by step, with a benchmark's tools."""
    layout = project_layout()
    source = models.source(model, layout)
    from swirl.config import params

    resolved = params.load(layout.root / "params.yaml")
    environment.set_up_process(resolved.runtime.threads)
    from swirl.cli import ask as asking

    asking.ask(question, benchmark, source, models.settings_of(source, resolved), layout, as_json, key_env)


@app.command(rich_help_panel=RESULTS)
def report(
    text: Annotated[
        bool, typer.Option("--text", help="Print the tables here (the default is to say where they are).")
    ] = False,
) -> None:
    """Show the results of the last run, and whether they are the committed ones, yours, or stale."""
    layout = project_layout()
    if layout.page.exists() and layout.results.exists():
        from swirl.reporting import provenance

        found = provenance.found(layout)
        with contextlib.suppress(OSError):  # a project that can only be read
            provenance.write(layout, found)  # the pages show it, too
    if text:
        from swirl.reporting.text import show as show_report

        show_report(layout)
    elif layout.page.exists():
        print(layout.page)
    else:
        raise SwirlError(f"{layout.page} does not exist; run `dvc repro` to make it")


app.command(rich_help_panel=RESULTS)(browse.browse)
app.command(rich_help_panel=RESULTS)(compare.compare)
app.command(rich_help_panel=RESULTS)(pool.seeds)
app.add_typer(judge.app, name="judge", rich_help_panel=RESULTS)
app.command(rich_help_panel=MODELS)(evaluate.evaluate)
app.command(rich_help_panel=MODELS)(export.export)
app.command("import", rich_help_panel=MODELS)(import_logs.import_logs)
app.command(rich_help_panel=MORE)(stage.stage)
app.command(rich_help_panel=MORE)(run_bench.bench)
app.add_typer(track.app, name="track", rich_help_panel=MORE)
