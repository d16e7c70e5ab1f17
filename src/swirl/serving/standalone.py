"""A tuned model as one adapter that stands alone on weights that anybody can get.

models/base may have been taught by an adapter that was merged into it, and models/swirl is then an adapter on weights
that exist only here. The sum of both is one adapter of the summed rank on the weights that were taught:

    W + s1 B1 A1 + s2 B2 A2  =  W + [s1 B1, s2 B2] [A1; A2]

This is exact but for rounding: of what is stored, and of models/base itself where its weights are kept in bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from swirl.config.own_settings import NAME as SETTINGS
from swirl.config.own_settings import own_settings, write_own
from swirl.config.params import Params
from swirl.core.checksums import checksum
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.records import load_json, save_json
from swirl.models.adapters import CONFIG, WEIGHTS
from swirl.models.loading import Dtype, is_adapter
from swirl.models.pointers import NAME as POINTER
from swirl.models.pointers import Pointer, files_of, follow, points_to_gguf, read_pointer
from swirl.pretraining.cold_start_base import ADAPTER
from swirl.wiring.prompts import read_prompts

if TYPE_CHECKING:
    from torch import Tensor

_A, _B = ".lora_A.weight", ".lora_B.weight"
_SPECIAL = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "target_parameters")
"""Settings of an adapter that would make it another sum than (alpha / r) B A."""
_DOWNLOADS = Path("data/weights")
"""Where `make weights` puts files, from the project's folder."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rank: int
    parameters: int
    bytes: int
    """Of the adapter's weights."""
    weights: str
    """What it stands on: a hub id, or a path from the project's folder."""


def export_adapter(model: Path, folder: Path, params: Params, layout: Layout, dtype: Dtype) -> Exported:
    """Write `model` into `folder` as one adapter of type `dtype`, with a pointer and the settings of `params`.

    Raises `ModelError` when it is no adapter on such weights, and when `folder` holds something else.
    """
    from safetensors.torch import save_file

    own = own_settings(params)
    read_prompts(params, layout)  # refuses what is missing
    parts = _parts(model, layout)
    pointer = _public(parts[0], layout)
    if not pointer.revision and not folder.resolve().is_relative_to(layout.root.resolve()):
        raise ModelError(
            f"{folder} is outside of the project, from which the path {pointer.model} counts; choose one inside"
        )
    given = folder.exists() and any(folder.iterdir())
    if given and (not (folder / SETTINGS).exists() or folder.resolve() == model.resolve()):
        raise ModelError(f"{folder} holds something else than an exported model; choose a new folder, or empty it")
    tensors = _sum([_terms(part) for part in parts], dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    rank = tensors[min(tensors)].shape[0]  # the first is an A
    save_json(load_json(parts[-1] / CONFIG) | _described(tensors, rank, pointer), folder / CONFIG)
    place = pointer.model
    if not pointer.revision:
        pointer = replace(pointer, model=os.path.relpath(layout.root.resolve() / place, folder.resolve()))
    save_json({"source": "pretrained", **asdict(pointer)}, folder / POINTER)
    write_own(folder, own, layout.root / params.prompts.policy)
    sizes = [value.numel() for value in tensors.values()]
    return Exported(rank, sum(sizes), (folder / WEIGHTS).stat().st_size, place)


def _parts(model: Path, layout: Layout) -> list[Path]:
    """The folders of the adapters whose sum `model` is, the lowest first."""
    found: list[Path] = []
    place = model
    while is_adapter(part := place if is_adapter(place) else place / ADAPTER) and part not in found:
        found.insert(0, part)
        if read_pointer(part) is None:
            raise ModelError(f"{part} has no {POINTER}, which says what it stands on")
        if _is_public(part):
            return found
        place, _ = follow(part)
    if found and place.resolve() != layout.model("base").resolve():
        return found  # a folder of weights
    if not found and read_pointer(model) is not None:
        raise ModelError(f"{model} only points to weights, and nothing was taught here; name these weights themselves")
    what = f"{model} is an adapter on {place}, which holds" if found else f"{model} holds"
    raise ModelError(
        f"{what} whole weights that were made here, so there is no adapter on weights that others can get: teach the "
        "base by an adapter (base_model.source: cold_start with lora) or take it as it is (pretrained), and train with "
        "train.lora"
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


def _sum(parts: Sequence[Mapping[str, tuple[Tensor, Tensor]]], dtype: Dtype) -> dict[str, Tensor]:
    """The tensors of an adapter whose rank is the sum of the parts' ranks; zeros where a part lacks a layer."""
    import torch

    ranks = [next(iter(part.values()))[0].shape[0] for part in parts]
    made = {}
    for layer in sorted({layer for part in parts for layer in part}):
        down, up = next(part[layer] for part in parts if layer in part)
        zeros = [(down.new_zeros(rank, down.shape[1]), up.new_zeros(up.shape[0], rank)) for rank in ranks]
        pieces = [part.get(layer, zero) for part, zero in zip(parts, zeros, strict=True)]
        made[layer + _A] = torch.cat([a for a, _ in pieces], 0).to(getattr(torch, dtype))
        made[layer + _B] = torch.cat([b for _, b in pieces], 1).to(getattr(torch, dtype))
    return made


def _described(tensors: Mapping[str, Tensor], rank: int, pointer: Pointer) -> dict[str, object]:
    """What differs in adapter_config.json from that of the last part."""
    return {
        "r": rank,
        "lora_alpha": rank,  # the scaling is in B
        "target_modules": sorted({name.removesuffix(_A).rpartition(".")[2] for name in tensors if name.endswith(_A)}),
        "base_model_name_or_path": pointer.model if pointer.revision else f"./{pointer.model}",
        "revision": pointer.revision or None,
    }
