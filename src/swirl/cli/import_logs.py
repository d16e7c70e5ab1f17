"""`swirl import`: tries an import of agents' logs without a pipeline."""

from __future__ import annotations

import json
import sys
from collections import Counter
from enum import StrEnum
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
    from swirl.core.layout import Layout
    from swirl.models.native_chat import AnyChat


class Format(StrEnum):
    """Values of `--format`."""

    TAGS = "tags"
    NATIVE = "native"


class Thinking(StrEnum):
    """Values of `--thinking`."""

    NONE = "none"
    KEEP = "keep"
    STRIP = "strip"


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
    form: Annotated[
        Format, typer.Option("--format", help="As actions.format: our tags, or the model's own tool calls.")
    ] = Format.TAGS,
    thinking: Annotated[
        Thinking,
        typer.Option(help="As actions.thinking: without thoughts, or with; then one that was withheld cuts."),
    ] = Thinking.NONE,
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

    models.check(model, _project())
    environment.set_torch_variables(1)
    if changes and changes.resolve() in {Path(name).resolve() for name in (*files, *([tools] if tools else ()))}:
        raise DataError(
            f"--changes {changes} is one of the files that are read, and would be overwritten; name another"
        )
    given = read_tools(tools) if tools else ()
    chat = _chat(model, form, thinking)
    with tempfile.TemporaryDirectory(prefix="swirl-import-") as folder:
        paths = [_file(name, Path(folder), number) for number, name in enumerate(files)]
        if changes:
            with _opened(changes) as written:
                found = _read(paths, files, chat, given, by or (), thinking, written)
        else:
            found = _read(paths, files, chat, given, by or (), thinking, None)
    if as_json:
        from swirl.agent_logs.found import as_dict

        print(json.dumps({**as_dict(found), "cuts": found.cuts}, ensure_ascii=False))
    else:
        print(_text(found))


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _chat(model: Path, form: Format, thinking: Thinking) -> AnyChat:
    from swirl.models.loading import load_chat, load_native_chat

    load = load_native_chat if form is Format.NATIVE else load_chat
    chat: AnyChat = load(model, thinking is not Thinking.NONE, thinking is Thinking.STRIP)
    for note in chat.notes:
        print(f"note: {note}", file=sys.stderr)
    return chat


def _read(
    paths: Sequence[Path],
    names: Sequence[str],
    chat: AnyChat,
    tools: Sequence[LoggedTool],
    by: Sequence[str],
    thinking: Thinking,
    changes: TextIO | None,
) -> Summary:
    """Import the files, which places call by `names`, and render every conversation."""
    from swirl.agent_logs.logs import Logs
    from swirl.agent_logs.tokenised import renderer_of
    from swirl.pipeline.progress import SHORT, Progress, counted, megabytes

    def changed(change: Change, place: Place) -> None:
        if changes:
            row = {"file": place.file, "line": place.line, "turn": place.turn, "change": str(change)}
            print(json.dumps(row, ensure_ascii=False), file=changes)

    renderer = renderer_of(chat)
    logs = Logs(paths, tools, by, changed, names, thinking is not Thinking.NONE)
    with Progress(logs.size // 1_000_000, "import: MB read", after=SHORT) as bar:
        logs.read(megabytes(bar))
    for conversation in counted(logs.conversations(), logs.trajectories, "import: conversations rendered"):
        renderer.render(conversation)
        logs.summary.cuts += renderer.cuts(conversation)
    return logs.summary


def _file(name: str, folder: Path, number: int) -> Path:
    """The file of that name, or one with the traces of the experiment that it names."""
    if not name.startswith("mlflow:"):
        return Path(name)
    from swirl.traces.trace_files import fetch_traces

    return fetch_traces(name.removeprefix("mlflow:"), folder / f"traces-{number}.jsonl", _project())


def _project() -> Layout | None:
    """The project that this is run in; None where it is run outside of one, as logs can be looked at there, too."""
    try:
        return project_layout()
    except SwirlError:
        return None


def _text(found: Summary) -> str:
    """The counts, the changes, and what is left out by reason with the first place of each."""
    lines = [
        f"{_several(found.conversations, 'conversation')}, {_several(found.trajectories, 'trajectory')} with "
        f"{_several(found.steps, 'step')} in {_several(found.groups, 'group')}; "
        f"{_several(found.near_duplicates, 'near-duplicate')}"
    ]
    if found.cuts:
        lines.append(f"cut       {found.cuts:>7,}         states before which the chat template rewrites the past")
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
