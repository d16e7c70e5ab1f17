"""`swirl preset`: settings by name, written to params.yaml."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from swirl.cli.project import project_layout
from swirl.core.errors import ParamsError


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
