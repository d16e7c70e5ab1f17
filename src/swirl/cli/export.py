"""`swirl export`: a tuned model as a folder that others can use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from swirl.cli import models
from swirl.cli.project import project_layout
from swirl.core.errors import ModelError


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's folder, as models/swirl.", show_default=False)
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes: a new folder.", show_default=False)],
    form: Annotated[
        Literal["adapter"], typer.Option("--as", help="One LoRA adapter on the weights that the base was taught from.")
    ] = "adapter",
    dtype: Annotated[Literal["bfloat16", "float32"], typer.Option(help="Type of its numbers.")] = "bfloat16",
    preset: Annotated[
        str | None,
        typer.Option(help="The settings that it was made with, if not params.yaml's: a preset, or a YAML file."),
    ] = None,
) -> None:
    """Write a tuned model as an adapter that stands alone on weights that anybody can get.

    What a base was taught by an adapter and what training added are summed. Prompts and settings go with it.
    """
    layout = project_layout()
    source = models.source(model, layout)
    if not isinstance(source, Path) or not source.is_dir():
        raise ModelError(f"{model} is no model's folder; one that was tuned here is, as models/swirl")
    models.check(source)
    from swirl.config import presets
    from swirl.serving.standalone import export_adapter

    made = export_adapter(source, folder, presets.settings(layout.root, preset), layout, dtype)
    print(
        f"{folder}: a LoRA {form} of rank {made.rank}, {made.parameters:,} parameters in {dtype}, "
        f"{made.bytes / 1e6:.1f} MB, on {made.weights}"
    )
