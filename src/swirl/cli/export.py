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
        Literal["adapter", "merged", "gguf"],
        typer.Option(
            "--as", help="One LoRA adapter (peft, vLLM), whole weights (transformers), or a file (llama.cpp)."
        ),
    ] = "adapter",
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(help="Type of its numbers.", show_default="bfloat16 if that loses nothing, else float32"),
    ] = None,
    base: Annotated[
        bool | None,
        typer.Option(
            "--base/--no-base",
            help="For an adapter: put the weights that it stands on beside it, as DIR/base; or let it stand alone, on "
            "a file or a commit that others have.",
            show_default="--base, unless they are a commit of the hub",
        ),
    ] = None,
    converter: Annotated[
        Path | None,
        typer.Option(help="For gguf: llama.cpp's convert_hf_to_gguf.py, if not on PATH.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="The settings that it was made with, if not params.yaml's: a preset, or a YAML file."),
    ] = None,
) -> None:
    """Write a tuned model as a folder that transformers, peft, vLLM or llama.cpp take as it is.

    Prompts, settings and a model card go with it.
    """
    layout = project_layout()
    source = models.source(model, layout)
    if not isinstance(source, Path) or not source.is_dir():
        raise ModelError(f"{model} is no model's folder; one that was tuned here is, as models/swirl")
    if base is not None and form != "adapter":
        raise ModelError(f"--base and --no-base are for --as adapter; {form} holds all weights")
    if converter is not None and form != "gguf":
        raise ModelError(f"--converter is for --as gguf, not for {form}")
    models.check(source, layout)
    from swirl.config import presets
    from swirl.pipeline.progress import if_slow
    from swirl.serving import standalone, whole

    params = presets.settings(layout.root, preset)
    with if_slow(f"writing {folder} ..."):
        if form == "adapter":
            made = standalone.export_adapter(source, folder, params, layout, dtype, base)
            what = f"a LoRA adapter of rank {made.rank}, {made.parameters:,} parameters in {made.dtype}"
            said = f"{what}, {made.bytes / 1e6:.1f} MB, on {made.weights}"
        else:
            if form == "merged":
                written, what = whole.export_merged(source, folder, params, layout, dtype), "whole weights"
            else:
                written, what = whole.export_gguf(source, folder, params, layout, dtype, converter), "a GGUF file"
            said = f"{what}, {written.parameters:,} parameters in {written.dtype}, {written.bytes / 1e6:.1f} MB"
    print(f"{folder}: {said}")
