"""`swirl import`: tries an import of agents' logs without a pipeline."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from swirl.cli import models
from swirl.cli.project import project_layout
from swirl.core.errors import DataError, SwirlError
from swirl.pipeline import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swirl.agent_logs.conversation import LoggedTool, Place
    from swirl.agent_logs.exchanges import Change
    from swirl.agent_logs.logs import Summary


def import_logs(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Logs: Chat Completions, Responses, Anthropic Messages or MLflow traces, as JSON lines or one JSON "
            "document; or mlflow:EXPERIMENT, for the traces of a tracking server's experiment.",
            show_default=False,
        ),
    ],
    model: Annotated[Path, typer.Option(help="The folder of the model that will learn from them.")],
    tools: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help='A JSON list of tools, as in a request\'s "tools", for logs that name none.',
        ),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Only what this model wrote is an action; may be repeated. Default: all.")
    ] = None,
    keep_thoughts: Annotated[
        bool,
        typer.Option("--keep-thoughts", help="The model's template keeps past thoughts: one that was withheld cuts."),
    ] = False,
    changes: Annotated[
        Path | None, typer.Option(help="Write every change, with its place, to this JSON Lines file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Read agents' logs as trajectories, and say what was found, changed and left out. Nothing is trained.

    Every conversation is rendered for the model; one of which something is lost is an error.
    """
    import tempfile

    from swirl.agent_logs.log_shapes import read_tools

    models.check(model)
    environment.set_torch_variables(1)
    given = read_tools(tools) if tools else ()
    with tempfile.TemporaryDirectory(prefix="swirl-import-") as folder:
        paths = [_file(name, Path(folder), number) for number, name in enumerate(files)]
        if changes:
            with _opened(changes) as written:
                found = _read(paths, files, model, given, by or (), keep_thoughts, written)
        else:
            found = _read(paths, files, model, given, by or (), keep_thoughts, None)
    if as_json:
        from swirl.agent_logs.found import as_dict

        print(json.dumps(as_dict(found), ensure_ascii=False))
    else:
        print(_text(found))


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _read(
    paths: Sequence[Path],
    names: Sequence[str],
    model: Path,
    tools: Sequence[LoggedTool],
    by: Sequence[str],
    keep_thoughts: bool,
    changes: TextIO | None,
) -> Summary:
    """Import the files, which places call by `names`, and render every conversation."""
    from swirl.agent_logs.logs import Logs
    from swirl.agent_logs.tagged import TaggedRenderer
    from swirl.models.loading import load_chat

    def changed(change: Change, place: Place) -> None:
        if changes:
            row = {"file": place.file, "line": place.line, "turn": place.turn, "change": str(change)}
            print(json.dumps(row, ensure_ascii=False), file=changes)

    renderer = TaggedRenderer(load_chat(model))
    logs = Logs(paths, tools, by, changed, names, keep_thoughts)
    logs.read()
    for conversation in logs.conversations():
        renderer.render(conversation)
    return logs.summary


def _file(name: str, folder: Path, number: int) -> Path:
    """The file of that name, or one with the traces of the experiment that it names."""
    if not name.startswith("mlflow:"):
        return Path(name)
    from swirl.traces.trace_files import fetch_traces

    try:
        layout = project_layout()
    except SwirlError:
        layout = None
    return fetch_traces(name.removeprefix("mlflow:"), folder / f"traces-{number}.jsonl", layout)


def _text(found: Summary) -> str:
    """The counts, the changes, and what is left out by reason with the first place of each."""
    lines = [
        f"{_several(found.conversations, 'conversation')}, {_several(found.trajectories, 'trajectory')} with "
        f"{_several(found.steps, 'step')} in {_several(found.groups, 'group')}; "
        f"{_several(found.near_duplicates, 'near-duplicate')}"
    ]
    lines += [f"changed   {count:>7,}         {change}" for change, count in sorted(found.changed.items())]
    counts = Counter((one.unit, one.reason) for one in found.left_out)
    first = {(one.unit, one.reason): one.place for one in reversed(found.left_out)}
    lines += [
        f"left out  {_several(count, unit):>15}: {reason} (first: {first[unit, reason]})"
        for (unit, reason), count in counts.most_common()
    ]
    return "\n".join(lines)


def _several(count: int, what: str) -> str:
    """A count with its noun."""
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count:,} {what if count == 1 else plural}"
