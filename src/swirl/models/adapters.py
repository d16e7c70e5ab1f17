"""LoRA adapters (peft) inside a causal LM: only the adapter is trained, the base stays as it is.

A fresh adapter is float32, whatever the base's dtype, so that small updates are not lost to rounding; training may keep
that as a master and compute in the base's dtype (`swirl.models.masters`). A loaded one has the base's dtype. There is
no dropout, since training must see the log-probabilities that actions were sampled with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swirl.core.errors import ModelError
from swirl.models.pointers import point_to_same, target_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""The prefix of every parameter name in a file that peft's own wrapper writes."""


def add(model: Any, rank: int, alpha: int, targets: Sequence[str], seed: int) -> None:
    """Put a fresh adapter, which changes nothing yet, on the linear layers named `targets` (`all-linear`: all).

    Everything else is frozen. Raises `ModelError` for a name that no layer has, for the output layer, and for a model
    without linear layers below it.
    """
    import torch
    from peft import LoraConfig

    output = model.get_output_embeddings()
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
    known = sorted({name.rpartition(".")[2] for name, _ in layers})
    if not layers:
        raise ModelError(
            f"{type(model).__name__} has no linear layer (torch.nn.Linear) below its output, so it can have no "
            "adapter: set lora to null, or take another model"
        )
    every = list(targets) == ["all-linear"]
    wanted = _shortest([name for name, _ in layers], model) if every else sorted(set(targets))
    if unknown := [] if every else [name for name in wanted if name not in known]:
        raise ModelError(
            f"an adapter cannot be put on {', '.join(unknown)}: the layers of {type(model).__name__} that can have one "
            f"are {', '.join(known)}, or all-linear for all of them"
        )
    torch.manual_seed(seed % 2**32)
    _inject(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=wanted, lora_dropout=0.0, bias="none"))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def _shortest(layers: Sequence[str], model: Any) -> list[str]:
    """What names the layers for peft, which takes a name for every module whose own ends so.

    The last name where that means these layers alone. Else, and in a list of layers, whose last names are numbers as
    those of whole decoder layers are, the whole name.
    """
    lasts = {name: name.rpartition(".")[2] for name in layers}
    others = {name.rpartition(".")[2] for name, _ in model.named_modules() if name not in lasts}
    return sorted({name if last in others or last.isdigit() else last for name, last in lasts.items()})


def is_on(model: Any) -> bool:
    """Whether the model has an adapter."""
    return hasattr(model, "peft_config")


@contextmanager
def switched_off(model: Any) -> Iterator[None]:
    """Switch the adapter off in this block, which leaves the base alone.

    The switch is in the model, so no other thread may use the model meanwhile.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save(model: Any, base: Path, folder: Path, root: Path) -> None:
    """Save the adapter as peft does, with a pointer to the base in folder `base` instead of a copy of its weights.

    `root` is the project's folder, see `name_base`.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    point_to_same(base, folder)
    state = get_peft_model_state_dict(model, adapter_name="default")
    save_file(
        {_PREFIX + name.removeprefix(_PREFIX): value.detach().cpu().contiguous() for name, value in state.items()},
        folder / WEIGHTS,
    )
    # Sets are sorted, so that the same run writes the same bytes.
    config = model.peft_config["default"].to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    _write_config(folder, plain | {"inference_mode": True, "task_type": "CAUSAL_LM"})
    name_base(folder, root)


def name_base(folder: Path, root: Path) -> None:
    """Name the base that an adapter's pointer names in adapter_config.json, where transformers and peft look for it.

    A model of the hub is named by its id and commit, a folder by its path: absolute where the pointer's is, otherwise
    from `root`, since the libraries read a path from the current folder and no machine's path may be in a DVC output.
    """
    model, revision = target_of(folder, root)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _write_config(folder, config | {"base_model_name_or_path": model, "revision": revision or None})


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load(model: Any, folder: Path) -> None:
    """Put the adapter of a folder on its base, with all weights frozen. Raises `ModelError` when it does not fit."""
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    make: Any = LoraConfig.from_peft_type
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config.get("peft_type") != "LORA":
            raise ModelError(f"{folder / CONFIG} is of kind {config.get('peft_type')!r}; only LORA is known here")
        _inject(model, make(**config))
        result: Any = set_peft_model_state_dict(model, load_file(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no adapter that fits {type(model).__name__}: {error}") from error
    missing = [name for name in result.missing_keys if ".lora_" in name]
    if missing or result.unexpected_keys:
        raise ModelError(f"{folder / WEIGHTS} does not fit its base: {(missing + result.unexpected_keys)[0]}")
    model.requires_grad_(False)


def merge(model: Any) -> None:
    """Add the adapter to the weights below it and take it off, so that the model is an ordinary one again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    del model.peft_config


def _inject(model: Any, config: Any) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model)
