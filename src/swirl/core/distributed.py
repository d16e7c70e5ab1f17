"""Several processes that work on one stage together, as `accelerate launch` or `torchrun` start them.

Every process holds the whole model and works on its share; what is put together is the same, bit for bit, in all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.core.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others."""


def launched() -> tuple[int, int]:
    """This process's number and how many there are, from what the launcher put into the environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`; one alone needs no launcher."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def mine(self, items: Sequence[Item]) -> list[Item]:
        """This process's share of `items`."""
        return list(items[self.rank :: self.count])

    def merge(self, mine: Sequence[Result]) -> list[Result]:
        """From each process the results of its share: those of all items, in the items' order."""
        if self.count == 1:
            return list(mine)
        parts = self.gather(mine)
        merged: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            merged[rank :: self.count] = part
        return merged

    def together(self, items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
        """`work(items)` with one result an item, every process working on its share."""
        return self.merge(work(self.mine(items)))

    def gather(self, value: Result) -> list[Result]:
        """The value of every process, in their order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Result) -> Result:
        """The main process's value."""
        return self.gather(value)[0]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.all_reduce(tensor)

    def wait(self) -> None:
        """Go on when all have come here."""
        self.gather(None)

    def leave(self) -> None:
        """End the connection; the last thing that is done together."""
        if self.count > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


ALONE = Processes()
"""A process that no launcher started."""


def join(device: str) -> Processes:
    """Connect to the other processes, if a launcher started several; call before a model is loaded.

    With `device` cuda each process gets a GPU of its own. Raises `ParamsError` for one particular GPU, which only one
    process could use.
    """
    rank, count = launched()
    if count == 1:
        return ALONE
    import torch
    import torch.distributed as dist

    if ":" in device:
        raise ParamsError(f"runtime.device = {device!r}: {count} processes need one GPU each; set cuda, or cpu")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    return Processes(rank, count)
