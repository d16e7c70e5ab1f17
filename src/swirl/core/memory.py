"""Memory: what a device can still give to this process, and what the C library's allocator keeps though it is freed."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GIVEN_BACK_S = 5.0
"""Seconds of training after which freed memory is given back, so that a quick step does not pay for it each time."""

_UNLIMITED = 2**60
"""Control groups of version 1 give a number beyond this for no limit."""


def available(device: str, root: Path = Path("/")) -> float:
    """Bytes that a torch device can still give to this process.

    For a GPU, what is free on it and what torch holds there unused; for the CPU, what the system has, or less where a
    control group of this process (a container's, a job's) has less left. `root` is where /proc and /sys are.
    """
    import psutil

    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(float(psutil.virtual_memory().available), *_left_to_groups(root))


def _left_to_groups(root: Path) -> Iterator[float]:
    """Bytes that each control group of this process, and each that it is in, has left; infinity for no limit."""
    yield float("inf")
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:  # version 2
            names, top = ("memory.max", "memory.current", "inactive_file"), root / "sys/fs/cgroup"
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "sys/fs/cgroup/memory"
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts), -1, -1):
            yield _left(top.joinpath(*parts[:depth]), *names)


def _left(group: Path, limit: str, used: str, cached: str) -> float:
    """What a group has left: its limit less what it uses, of which the file cache can be dropped."""
    try:
        most = (group / limit).read_text(encoding="utf-8").strip()
        if most == "max" or int(most) >= _UNLIMITED:
            return float("inf")
        rows = dict(row.split() for row in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        return float(int(most) - int((group / used).read_text(encoding="utf-8")) + int(rows.get(cached, 0)))
    except (OSError, ValueError):  # a group that has no such file: the root, or one that a container does not show
        return float("inf")


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc), and what torch keeps on a GPU to the GPU.

    Stages let the allocator keep what is freed (`swirl.pipeline.environment`), which is faster; tensors of ever other
    sizes leave gaps in it, so that a long training holds several times what it needs. Takes some tenths of a second.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class GivenBack:
    """`give_back` between the steps of a training, at most every `GIVEN_BACK_S` seconds.

    A step of a model of 135M parameters leaves a gigabyte of gaps: after twenty, a process of 4 GB held 12.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def after_step(self) -> None:
        """Give memory back if it is time."""
        if time.monotonic() - self._last >= GIVEN_BACK_S:
            give_back()
            self._last = time.monotonic()
