"""The `swirl` command. Slow imports are left to the subcommand that needs them."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from swirl.cli import browse, compare, evaluate, export, import_logs, judge, models, pool, run_bench, track
from swirl.cli.project import project_layout
from swirl.core.errors import ParamsError, SwirlError
from swirl.core.suggestions import meant
from swirl.pipeline import environment
from swirl.pipeline.stages import STAGES
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


app.add_typer(track.app, name="track")
app.add_typer(judge.app, name="judge")
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(pool.seeds)
app.command()(run_bench.bench)
app.command()(export.export)
app.command("import")(import_logs.import_logs)
app.command()(browse.browse)


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


@app.command()
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
    from swirl.cli.run_stage import run_stage

    run_stage(name, item, resolved, layout)


@app.command()
def params() -> None:
    """Check params.yaml and print it as the stages will see it."""
    from swirl.config.params import load
    from swirl.config.yaml_text import dump

    print(dump(load(project_layout().root / "params.yaml").model_dump()), end="")


@app.command()
def preset(
    name: Annotated[
        str | None, typer.Argument(help="A preset, or a YAML file of your own that says what differs from mini.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
) -> None:
    """Write a preset to params.yaml and show what changes; without a name, list the presets."""
    from swirl.config import presets
    from swirl.config.yaml_text import inline

    root = project_layout().root
    if name is None:
        if not presets.names(root):
            raise ParamsError(f"{root / 'presets'} holds no preset; give a YAML file of your own")
        print(_listed({one: presets.summary(root, one) for one in presets.names(root)}))
        return
    settings = presets.tree(root, name)
    path = root / "params.yaml"
    changes = list(presets.differences(_before(path), settings))
    for key, old, new in changes:
        print(f"{key}: {inline(old)} -> {inline(new)}")
    kept = None if dry_run else presets.write(root, settings, name)
    keys = "1 key" if len(changes) == 1 else f"{len(changes)} keys"
    if dry_run:
        print(f"params.yaml would become preset {name}: {keys} would change")
    else:
        print(
            f"params.yaml is now preset {name}: {keys} changed"
            + (f"; the previous file is kept as {kept}" if kept else "")
        )


def _before(path: Path) -> Mapping[str, object]:
    """The settings that a preset replaces; none, which is said, where the file is broken."""
    from swirl.config.yaml_text import read

    if not path.exists():
        return {}
    try:
        before = read(path)
        if isinstance(before, dict):
            return before
        why = f"{path} holds no settings"
    except ParamsError as error:
        why = str(error)
    print(f"swirl: warning: {why}; it is replaced as a whole", file=sys.stderr)
    return {}


@app.command()
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
        from swirl.planning import durations

        print("\n".join(["", *durations.lines(resolved, root)]))


@app.command()
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


@app.command()
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


@app.command()
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


def _listed(described: Mapping[str, str]) -> str:
    """Names and what they are, wrapped at the terminal's width (at most 100 columns) beside the names."""
    columns = min(100, shutil.get_terminal_size((100, 24)).columns)
    indent = " " * (max(map(len, described)) + 2)
    return "\n".join(
        textwrap.fill(
            text,
            max(columns, len(indent) + 20),
            initial_indent=f"{name:{len(indent)}}",
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        for name, text in described.items()
    )


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
