"""A tuned model as whole weights that transformers loads as they are, and as a GGUF file for llama.cpp."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from swirl.config.params import Params
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.models import adapters
from swirl.models.loading import Dtype, load_model, load_tokenizer
from swirl.models.pointers import follow
from swirl.serving.export_folder import check_folder, lossless, settings_along, write_along
from swirl.serving.model_card import write_card

CONVERTER = "convert_hf_to_gguf.py"
"""The name of llama.cpp's own converter."""
_TYPES: dict[Dtype, str] = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    parameters: int
    bytes: int
    """Of the weights."""
    dtype: Dtype


def export_merged(model: Path, folder: Path, params: Params, layout: Layout, dtype: Dtype | None = None) -> Written:
    """Write `model` into `folder` as one ordinary model with its tokenizer, settings of `params` and a model card.

    An adapter is added to the weights that it stands on. `dtype` None: bfloat16 if that loses nothing, else float32.
    Raises `ModelError` when there is no model, and when `folder` holds something else.
    """
    check_folder(folder, model, "merged")
    own = settings_along(params, layout)
    written = _merge(model, folder, dtype)
    write_along(folder, own, params, layout)
    write_card(folder, "merged", model, params, layout)
    return written


def export_gguf(
    model: Path, folder: Path, params: Params, layout: Layout, dtype: Dtype | None, converter: Path | None
) -> Written:
    """Write `model` into `folder`/NAME.gguf by llama.cpp's converter, with settings and a model card; see `Written`.

    `converter` is its path, or that of the folder it is in; None: it is looked for on PATH. Raises `ModelError` as
    `export_merged` does, and when there is no converter or it refuses the model.
    """
    check_folder(folder, model, "gguf")
    script = find_converter(converter)
    own = settings_along(params, layout)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".swirl-export-", dir=folder.parent) as place:
        whole = Path(place) / "whole"
        written = _merge(model, whole, dtype)
        name = folder.resolve().name
        made = Path(place) / "made.gguf"
        _convert(script, whole, made, _TYPES[written.dtype], name)
        size = made.stat().st_size
        made.replace(folder / f"{name}.gguf")
    write_along(folder, own, params, layout)
    write_card(folder, "gguf", model, params, layout)
    return Written(written.parameters, size, written.dtype)


def find_converter(given: Path | None) -> Path:
    """llama.cpp's converter. Raises `ModelError` saying how to get it when it is not there."""
    found = given / CONVERTER if given and given.is_dir() else given
    if found is None and (on_path := shutil.which(CONVERTER)):
        found = Path(on_path)
    if found and found.is_file():
        return found
    where = f"{given} is not llama.cpp's converter" if given else f"{CONVERTER}, llama.cpp's converter, is not on PATH"
    raise ModelError(
        f"{where}; get it with `git clone --depth 1 https://github.com/ggml-org/llama.cpp` and `pip install gguf "
        f"sentencepiece`, and name it: --converter llama.cpp/{CONVERTER}"
    )


def _merge(model: Path, folder: Path, dtype: Dtype | None) -> Written:
    """Save the model of a folder as whole weights, with its tokenizer."""
    import torch

    loaded = load_model(model, "cpu", "eager", "float32")
    if adapters.is_on(loaded):
        adapters.merge(loaded)
    if dtype is None:
        dtype = lossless(loaded.parameters())
    loaded.to(getattr(torch, dtype)).save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    _copy_code(model, folder)
    parameters = sum(weight.numel() for weight in loaded.parameters())
    return Written(parameters, sum(file.stat().st_size for file in folder.glob("*.safetensors")), dtype)


def _copy_code(model: Path, folder: Path) -> None:
    """Copy the Python files that come with a model whose code may run; they are named in its configuration."""
    source, trusted = follow(model, weights=False)
    for file in source.glob("*.py") if trusted else ():
        shutil.copyfile(file, folder / file.name)


def _convert(script: Path, whole: Path, made: Path, kind: str, name: str) -> None:
    """Run the converter. Raises `ModelError` with its last line when it fails or writes no GGUF file."""
    program = [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    command = [*program, str(whole), "--outfile", str(made), "--outtype", kind, "--model-name", name]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0 and made.is_file():
        with made.open("rb") as file:
            if file.read(4) == b"GGUF":
                return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = lines[-1][:500] if lines else "it says nothing"
    raise ModelError(f"{script} did not convert the model (exit status {done.returncode}): {last}")
