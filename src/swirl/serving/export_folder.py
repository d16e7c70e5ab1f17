"""What exported folders of every form have in common: where they may be, and what settings they bring along."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from swirl.config.own_settings import OwnSettings, own_settings, write_own
from swirl.config.params import Params
from swirl.core.errors import ModelError, ParamsError
from swirl.core.layout import Layout
from swirl.models.loading import is_adapter
from swirl.models.pointers import read_pointer
from swirl.wiring.prompts import read_prompts

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["adapter", "merged", "gguf"]
CARD = "README.md"
MARK = "exported by `swirl export`"
"""What the model card of an exported model says, so that the folder is known as one."""


def lossless(tensors: Iterable[Tensor]) -> Literal["bfloat16", "float32"]:
    """bfloat16 if it holds every number of these float32 tensors, else float32."""
    import torch

    return "bfloat16" if all(torch.equal(one, one.bfloat16().float()) for one in tensors) else "float32"


def check_folder(folder: Path, model: Path, form: Form) -> None:
    """Raise `ModelError` unless `folder` is new, empty, or an earlier export of this form that `model` needs not."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    found = _form_of(folder)
    if found is None or folder.resolve() == model.resolve():
        raise ModelError(f"{folder} holds something else than an exported model; choose a new folder, or empty it")
    if found != form:
        raise ModelError(f"{folder} holds a model that was exported as {found}; choose a new folder, or empty it")
    for place in stands_on(model):
        if place.is_relative_to(folder.resolve()):
            raise ModelError(f"{model} stands on {place}, which the export would overwrite; choose another folder")


def stands_on(model: Path) -> Iterator[Path]:
    """The folders, or the GGUF file, that a model's folder points to, and what these point to in turn."""
    seen, place = set[Path](), model.resolve()
    while place not in seen and (pointer := read_pointer(place)) and not pointer.revision:
        seen.add(place)
        place = (place / pointer.model).resolve()
        yield place


def _form_of(folder: Path) -> Form | None:
    """The form in which a folder was exported; None for one that was not."""
    card = folder / CARD
    if not card.is_file() or MARK not in card.read_text(encoding="utf-8", errors="replace"):
        return None
    if is_adapter(folder):
        return "adapter"
    return "merged" if (folder / "config.json").exists() else "gguf"


def settings_along(params: Params, layout: Layout) -> OwnSettings | None:
    """The settings that a model can bring along; None, with a warning that says why, for those that need the project.

    Raises `DataError` for a missing prompt.
    """
    read_prompts(params, layout)
    try:
        return own_settings(params)
    except ParamsError as error:
        warnings.warn(f"{error}\nso it goes without swirl.yaml, and is asked with params.yaml's", stacklevel=2)
        return None


def write_along(folder: Path, own: OwnSettings | None, params: Params, layout: Layout) -> None:
    """Write settings, if there are some, and prompts into an exported folder."""
    write_own(folder, own, params.tasks, layout.root / params.prompts.policy)
