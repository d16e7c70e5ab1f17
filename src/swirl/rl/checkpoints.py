"""Checkpoints of a training run: trained weights, Adam's moments and the metrics so far, as safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from swirl.core.journal import claim, discard
from swirl.rl.masters import Masters


class Checkpoints:
    """Checkpoints of one training run, valid for one fingerprint of source, settings and inputs only."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the checkpoints of this fingerprint in `folder`; a message names those of others, which are kept."""
        self._folder = claim(folder, fingerprint)

    def save(self, step: int, masters: Masters, optimizer: Any, record: dict[str, Any]) -> None:
        """Commit trained weights and moments after `step` updates (SFT: epochs), and `record`, which is plain JSON."""
        from safetensors.torch import save_file

        partial = self._folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        save_file({name: p.detach().contiguous() for name, p in masters.named.items()}, partial / "model.safetensors")
        moments = {
            f"{name}/{key}": value.contiguous()
            for name, p in masters.named.items()
            for key, value in optimizer.state.get(p, {}).items()
        }
        save_file(moments, partial / "optimizer.safetensors")
        (partial / "record.json").write_text(json.dumps(record), encoding="utf-8")
        os.replace(partial, self._target(step))

    def steps(self) -> list[int]:
        """The committed steps in ascending order."""
        return sorted(int(path.name.removeprefix("step-")) for path in self._folder.glob("step-*"))

    def restore(self, step: int, masters: Masters, optimizer: Any) -> dict[str, Any]:
        """Restore weights and moments in place, and return the record."""
        import torch
        from safetensors.torch import load_file

        folder = self._target(step)
        weights = load_file(folder / "model.safetensors")
        moments = load_file(folder / "optimizer.safetensors")
        with torch.no_grad():
            for name, parameter in masters.named.items():
                parameter.copy_(weights[name])
                mine = {key: value for key, value in moments.items() if key.startswith(f"{name}/")}
                if mine:
                    optimizer.state[parameter] = {
                        key.removeprefix(f"{name}/"): value if key.endswith("/step") else value.to(parameter.device)
                        for key, value in mine.items()
                    }
        masters.publish()
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        assert isinstance(record, dict)
        return record

    def clear(self) -> None:
        """Delete the checkpoints; call when the finished run is saved elsewhere."""
        discard(self._folder)

    def _target(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"
