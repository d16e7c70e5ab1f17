"""A tuned model as one LoRA adapter, on a copy of its base or on weights that anybody can get.

With the base beside it, the adapter is the one that was trained, and `DIR/base` holds the weights below it as they are.
Alone, it must stand on what others have. models/base may have been taught by an adapter that was merged into it, and
models/swirl is then an adapter on weights that exist only here. Their sum is one adapter of the summed rank on the
weights that were taught:

    W + s1 B1 A1 + s2 B2 A2  =  W + [s1 B1, s2 B2] [A1; A2]

This is exact but for rounding: of what is stored, and of models/base itself where its weights are kept in bfloat16.

Names and settings are those that peft writes and vLLM's LoRA loading takes: `base_model.model.LAYER.lora_A.weight`,
plain LoRA on linear layers (no DoRA, no rsLoRA, no bias, nothing in `modules_to_save`), one rank for all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.config.params import Params
from swirl.core.checksums import checksum
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.models.adapters import CONFIG, WEIGHTS
from swirl.models.loading import Dtype, is_adapter, load_tokenizer
from swirl.models.pointers import NAME as POINTER
from swirl.models.pointers import Pointer, files_of, follow, points_to_gguf, read_pointer, write_pointer
from swirl.pretraining.cold_start_base import ADAPTER
from swirl.serving.export_folder import check_folder, lossless, settings_along, write_along
from swirl.serving.model_card import write_card

if TYPE_CHECKING:
    from torch import Tensor

_A, _B = ".lora_A.weight", ".lora_B.weight"
_SPECIAL = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "target_parameters")
"""Settings of an adapter that would make it another sum than (alpha / r) B A."""
_BASE = "base"
"""The folder inside of the exported one that has the weights which the adapter stands on."""
_NAMED = "additional_chat_templates"
"""Where transformers keeps chat templates beside the default one, such as one for tools; no pointer lists it."""
_DOWNLOADS = Path("data/weights")
"""Where `make weights` puts files, from the project's folder."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rank: int
    parameters: int
    bytes: int
    """Of the adapter's weights."""
    dtype: Dtype
    """Of its numbers."""
    weights: str
    """What it stands on: a hub id, or a path from the project's folder."""


def export_adapter(
    model: Path, folder: Path, params: Params, layout: Layout, dtype: Dtype | None = None, beside: bool | None = None
) -> Exported:
    """Write `model` into `folder` as one adapter, with a pointer, the settings of `params` and a model card.

    `dtype` None: bfloat16 if that loses nothing, else float32. `beside`: put the weights that it stands on into
    `folder`/base (True), or nothing but the adapter into `folder` (False); None: the former, unless they are a commit
    of the hub, which others find by itself. The tokenizer goes with it unless False. Raises `ModelError` when `model`
    is no adapter, or is to stand alone and is none on weights that others can get, and when `folder` holds something
    else.
    """
    own = settings_along(params, layout)
    parts, given = _parts(model, layout)
    if not parts:
        raise _no_adapter(model, parts)
    lowest = read_pointer(parts[0])
    on_hub = given and lowest is not None and bool(lowest.revision)
    if beside or (beside is None and not on_hub):
        check_folder(folder, model, "adapter")
        exported = _with_base(parts[-1], folder, dtype, layout)
    elif not given:
        raise _no_adapter(model, parts)
    else:
        exported = _alone(parts, model, folder, dtype, layout)
    if beside is not False:
        load_tokenizer(folder).save_pretrained(folder)
    write_along(folder, own, params, layout)
    write_card(folder, "adapter", model, params, layout, exported.rank)
    return exported


def _with_base(part: Path, folder: Path, dtype: Dtype | None, layout: Layout) -> Exported:
    """Write one adapter and its tokenizer, and the weights that it stands on as they are into `folder`/base."""
    tensors = _sum([_terms(part)], dtype)
    place, _ = follow(part)
    pointer = read_pointer(part)
    assert pointer is not None
    names = list(pointer.files)
    if points_to_gguf(part):  # what was converted from it; its list of checksums has no suffix
        names = [file.name for file in place.iterdir() if file.suffix]
    base = folder / _BASE
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    for name in names:
        shutil.copyfile(place / name, base / name)
    if (place / _NAMED).is_dir():
        shutil.copytree(place / _NAMED, base / _NAMED)
    write_pointer(folder, _BASE, trust_remote_code=pointer.trust_remote_code, root=folder)
    where = os.path.relpath(base.resolve(), layout.root.resolve())
    return _write(part, folder, tensors, str(base.resolve()), "", str(base) if where.startswith("..") else where)


def _alone(parts: Sequence[Path], model: Path, folder: Path, dtype: Dtype | None, layout: Layout) -> Exported:
    """Write the sum of all adapters, with a pointer to the weights that others can get."""
    pointer = _public(parts[0], layout)
    if not pointer.revision and not folder.resolve().is_relative_to(layout.root.resolve()):
        raise ModelError(
            f"{folder} is outside of the project, from which the path {pointer.model} counts; choose one inside"
        )
    check_folder(folder, model, "adapter")
    tensors = _sum([_terms(part) for part in parts], dtype)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / _BASE, ignore_errors=True)
    place = pointer.model
    if not pointer.revision:
        pointer = replace(pointer, model=os.path.relpath(layout.root.resolve() / place, folder.resolve()))
    save_json({"source": "pretrained", **asdict(pointer)}, folder / POINTER)
    return _write(parts[-1], folder, tensors, place if pointer.revision else f"./{place}", pointer.revision, place)


def _write(part: Path, folder: Path, tensors: Mapping[str, Tensor], base: str, revision: str, weights: str) -> Exported:
    """Write an adapter's tensors and configuration: that of `part`, with what differs."""
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / WEIGHTS)
    first = tensors[min(tensors)]  # an A
    layers = {name.removesuffix(_A).rpartition(".")[2] for name in tensors if name.endswith(_A)}
    described = {
        "r": first.shape[0],
        "lora_alpha": first.shape[0],  # the scaling is in B
        "target_modules": sorted(layers),
        "base_model_name_or_path": base,
        "revision": revision or None,
    }
    save_json(load_json(part / CONFIG) | described, folder / CONFIG)
    dtype: Dtype = "float32" if first.dtype.itemsize == 4 else "bfloat16"
    size = (folder / WEIGHTS).stat().st_size
    return Exported(first.shape[0], sum(value.numel() for value in tensors.values()), size, dtype, weights)


def _parts(model: Path, layout: Layout) -> tuple[list[Path], bool]:
    """The folders of the adapters whose sum `model` is, the lowest first, and whether others can have what is below."""
    found: list[Path] = []
    place = model
    while is_adapter(part := place if is_adapter(place) else place / ADAPTER) and part not in found:
        found.insert(0, part)
        if read_pointer(part) is None:
            raise ModelError(f"{part} has no {POINTER}, which says what it stands on")
        if _is_public(part):
            return found, True
        place, _ = follow(part)
    return found, place.resolve() != layout.model("base").resolve()  # True: a folder of weights


def _no_adapter(model: Path, parts: Sequence[Path]) -> ModelError:
    if not parts and read_pointer(model) is not None:
        return ModelError(f"{model} only points to weights, and nothing was taught here; name these weights themselves")
    what = f"{model} is an adapter on {follow(parts[0])[0]}, which holds" if parts else f"{model} holds"
    ways = "--as merged writes whole weights"
    if parts:
        ways += ", --base an adapter with these weights beside it"
    return ModelError(
        f"{what} whole weights that were made here, so there is no adapter on weights that others can get: {ways}; or "
        "teach the base by an adapter (base_model.source: cold_start with lora) or take it as it is (pretrained), and "
        "train with train.lora"
    )


def _is_public(part: Path) -> bool:
    """Whether an adapter's pointer names a commit of the hub or a GGUF file."""
    pointer = read_pointer(part)
    return pointer is not None and (bool(pointer.revision) or points_to_gguf(part))


def _public(part: Path, layout: Layout) -> Pointer:
    """The pointer of the lowest adapter; a path in it counts from the project's folder."""
    pointer = read_pointer(part)
    assert pointer is not None
    if pointer.revision:
        return pointer
    source, file = files_of(part)
    place, root = source / file, layout.root.resolve()
    if place.is_relative_to(root):
        return replace(pointer, model=place.relative_to(root).as_posix())
    named = _DOWNLOADS / file
    if file and (layout.root / named).is_file() and checksum(layout.root / named).sha256 == pointer.files[file]:
        return replace(pointer, model=named.as_posix())
    raise ModelError(
        f"{part} stands on {place}, outside of the project, where others do not find it; put a copy into {_DOWNLOADS}"
    )


def _terms(part: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> A (rank, in) and B (out, rank) in float32, the scaling in B."""
    from safetensors.torch import load_file

    config, tensors = load_json(part / CONFIG), load_file(part / WEIGHTS)
    odd = [key for key in _SPECIAL if config.get(key)] + [name for name in tensors if not name.endswith((_A, _B))]
    if config.get("peft_type") != "LORA" or odd:
        raise ModelError(
            f"{part} is no plain LoRA adapter, of which a sum could be made: it has "
            f"{odd[0] if odd else 'peft_type ' + repr(config.get('peft_type'))}"
        )
    scaling = config["lora_alpha"] / config["r"]
    layers = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
    return {layer: (tensors[layer + _A].float(), tensors[layer + _B].float() * scaling) for layer in layers}


def _sum(parts: Sequence[Mapping[str, tuple[Tensor, Tensor]]], dtype: Dtype | None) -> dict[str, Tensor]:
    """The tensors of an adapter whose rank is the sum of the parts' ranks; zeros where a part lacks a layer.

    `dtype` None: bfloat16 if that holds every number, otherwise float32.
    """
    import torch

    ranks = [next(iter(part.values()))[0].shape[0] for part in parts]
    made = {}
    for layer in sorted({layer for part in parts for layer in part}):
        down, up = next(part[layer] for part in parts if layer in part)
        zeros = [(down.new_zeros(rank, down.shape[1]), up.new_zeros(up.shape[0], rank)) for rank in ranks]
        pieces = [part.get(layer, zero) for part, zero in zip(parts, zeros, strict=True)]
        made[layer + _A] = torch.cat([a for a, _ in pieces], 0)
        made[layer + _B] = torch.cat([b for _, b in pieces], 1)
    if dtype is None:
        dtype = lossless(made.values())
    return {name: value.to(getattr(torch, dtype)) for name, value in made.items()}
