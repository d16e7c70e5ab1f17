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
from swirl.models.pointers import Pointer, read_pointer
from swirl.pretraining.cold_start_base import ADAPTER
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
    for place, pointer in pointers_below(model):
        below = (place / pointer.model).resolve()
        if not pointer.revision and below.is_relative_to(folder.resolve()):
            raise ModelError(f"{model} stands on {below}, which the export would overwrite; choose another folder")


def pointers_below(model: Path) -> Iterator[tuple[Path, Pointer]]:
    """Each pointer by which a model's folder stands on something, and the folder that it is in; the highest first.

    Also those of the adapters that whole weights were merged from.
    """
    seen, waiting = set[Path](), [model.resolve()]
    while waiting:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen.add(place)
        for part in (place, place / ADAPTER):
            if pointer := read_pointer(part):
                yield part, pointer
                waiting += [] if pointer.revision else [(part / pointer.model).resolve()]


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
