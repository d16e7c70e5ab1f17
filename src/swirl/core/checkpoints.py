"""Checkpoints of a training run: weights, the optimisers' state and the metrics so far, as safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl.core.errors import DataError
from swirl.core.journal import claim, finish, set_aside

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""The number of checkpoints that are kept, the newest ones: if one cannot be read, there is another."""
EVERY = 50
"""Steps between two checkpoints, where params do not say how many."""
_TENSORS = ("model.safetensors", "optimizer.safetensors")
_RECORD = "record.json"


class Checkpoints:
    """Checkpoints of one training run, valid for one fingerprint of source, settings and inputs only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the checkpoints of this fingerprint in `folder`; a message names those of others, which are kept."""
        self._folder = claim(folder, fingerprint)

    def save(self, step: int, weights: Mapping[str, Tensor], optimizers: Sequence[Any], record: dict[str, Any]) -> None:
        """Commit the trained weights by name, the state of their optimisers and `record`, which is plain JSON.

        `step` counts what the run has done. Checkpoints before the `KEPT` newest are deleted. One process writes; where
        tensors are dealt out over several, the others call `attend` meanwhile, so that all of each is written.
        """
        from safetensors.torch import save_file

        whole, state = _gathered(weights, optimizers)
        partial = self._folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        model, optimizer = (partial / name for name in _TENSORS)
        save_file(whole, model)
        save_file(state, optimizer)
        (partial / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        os.replace(partial, self._target(step))
        for old in self._steps()[:-KEPT]:
            # Renamed first: whoever reads or links its files at this moment finds all of them or none.
            os.replace(self._target(old), partial)
            shutil.rmtree(partial)

    def attend(self, weights: Mapping[str, Tensor], optimizers: Sequence[Any]) -> None:
        """Hand this process's parts of tensors to the one that calls `save` with the same arguments."""
        for _ in _each_gathered(weights, optimizers):
            pass

    def newest(self) -> int | None:
        """The step of the newest checkpoint that can be read; None without one.

        Checkpoints that cannot be read are renamed, and a printed line names each.
        """
        for step in reversed(self._steps()):
            if not (fault := _fault(self._target(step))):
                return step
            set_aside(self._target(step), fault)
        return None

    def restore(self, step: int, weights: Mapping[str, Tensor], optimizers: Sequence[Any]) -> dict[str, Any]:
        """Restore weights and optimisers in place, and return the record. Each weight belongs to one optimiser.

        Of tensors that are dealt out over processes, each takes its part, whatever the number of those that wrote.
        """
        import torch
        from safetensors import safe_open

        folder = self._target(step)
        owners = {id(weight): one for one in optimizers for group in one.param_groups for weight in group["params"]}
        saved: Any
        state: Any
        saved, state = (safe_open(folder / name, "pt") for name in _TENSORS)
        with torch.no_grad(), saved, state:
            keys: dict[str, list[str]] = {}
            for key in state.keys():  # noqa: SIM118, it is no mapping
                keys.setdefault(key.rpartition("/")[0], []).append(key.rpartition("/")[2])
            for name, weight in weights.items():
                weight.copy_(_part(saved.get_tensor(name), weight))
                mine = {key: state.get_tensor(f"{name}/{key}") for key in keys.get(name, ())}
                if mine:
                    owners[id(weight)].state[weight] = {
                        key: value if key == "step" else _part(value, weight) for key, value in mine.items()
                    }
        return _record(folder)

    def flight(self, of: str, rank: int) -> Path:
        """Where a process's flight `of` something stands (`swirl.core.flights`), if memory did not allow all of it."""
        return self._folder / f"flight-{of}-{rank}.json"

    def finish(self) -> None:
        """Mark the run as finished, once its model is saved elsewhere; see `swirl.core.journal.finish`."""
        finish(self._folder)

    def _steps(self) -> list[int]:
        """The committed steps in ascending order."""
        return sorted(int(path.name.removeprefix("step-")) for path in self._folder.glob("step-*"))

    def _target(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"


def _each_gathered(weights: Mapping[str, Tensor], optimizers: Sequence[Any]) -> Iterator[tuple[str, str, Tensor]]:
    """Each weight (its name and nothing) and what optimisers hold for it (name and key), all of it and contiguous."""
    for name, weight in weights.items():
        held = [item for of_one in optimizers for item in of_one.state.get(weight, {}).items()]
        for key, value in [("", weight), *held]:
            part: Any = value.detach()
            whole = part.full_tensor() if hasattr(part, "full_tensor") else part
            yield name, key, whole.contiguous()


def _gathered(weights: Mapping[str, Tensor], optimizers: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All of the weights by name, and of the optimisers' state by name and key."""
    whole: dict[str, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, key, value in _each_gathered(weights, optimizers):
        if key:
            state[f"{name}/{key}"] = value.cpu()
        else:
            whole[name] = value.cpu()
    return whole, state


def _part(whole: Tensor, like: Any) -> Tensor:
    """`whole` where `like` is, or this process's part of it, if that is dealt out."""
    if not hasattr(like, "full_tensor"):
        return whole.to(like.device)
    import torch
    from torch.distributed.tensor import distribute_tensor

    dealt = distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    part: Tensor = torch.empty_like(like).copy_(dealt)  # `dealt` keeps all of `whole` in memory
    return part


def _fault(folder: Path) -> str:
    """Why a checkpoint cannot be read: a file is missing, cut off or no such file; empty if it can be."""
    from safetensors import SafetensorError, safe_open

    for name in _TENSORS:
        try:
            with safe_open(folder / name, "pt"):  # compares the length of the file with its header
                pass
        except (SafetensorError, OSError) as error:
            return f"{name}: {error}"
    try:
        _record(folder)
    except (DataError, OSError) as error:
        return str(error)
    return ""


def _record(folder: Path) -> dict[str, Any]:
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path.name} holds {type(record).__name__}, not an object")
    return record
