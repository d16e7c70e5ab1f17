"""Several processes that run one stage together, as started by `accelerate launch` or `torchrun`.

Every process works on its share of the items; merged results are the same, bit for bit, in all processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from swirl.core.devices import check_device
from swirl.core.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = timedelta(hours=12)
"""How long a process waits for the others."""


def rank_and_count() -> tuple[int, int]:
    """(rank, number of processes), from the variables that the launcher sets; (0, 1) without a launcher."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's rank among the `count` processes of a stage; a single process needs no launcher."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes outputs (rank 0)."""
        return self.rank == 0

    def mine(self, items: Sequence[Item]) -> list[Item]:
        """This process's share of `items`: every `count`-th one, starting at `rank`."""
        return list(items[self.rank :: self.count])

    def merge(self, mine: Sequence[Result]) -> list[Result]:
        """Combine the results that each process has for its share into those of all items, in the items' order."""
        if self.count == 1:
            return list(mine)
        parts = self.gather(mine)
        merged: list[Any] = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            merged[rank :: self.count] = part
        return merged

    def deal(self, costs: Sequence[float]) -> Deal:
        """Deal items out by their costs: the dearest first, each to the process that has the least to do so far."""
        loads = [0.0] * self.count
        places: list[list[int]] = [[] for _ in loads]
        for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
            least = loads.index(min(loads))
            places[least].append(place)
            loads[least] += costs[place]
        return Deal(self, tuple(tuple(sorted(of_rank)) for of_rank in places))

    def together(self, items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]) -> list[Result]:
        """`work(items)`, one result per item, with every process working on its share."""
        return self.merge(work(self.mine(items)))

    def gather(self, value: Result) -> list[Result]:
        """The value that each process passes, in the order of ranks."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: Result) -> Result:
        """The value that the main process passes."""
        return self.gather(value)[0]

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.all_reduce(tensor)

    def wait(self) -> None:
        """Block until every process has called this."""
        self.gather(None)

    def leave(self) -> None:
        """Leave the group of processes; no other method may be called after this."""
        if self.count > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


@dataclass(frozen=True, slots=True)
class Deal:
    """Which process works on which items."""

    processes: Processes
    places: tuple[tuple[int, ...], ...]
    """Of each process, its items' places among all, in ascending order."""

    def mine(self, items: Sequence[Item]) -> list[Item]:
        """This process's items."""
        return [items[place] for place in self.places[self.processes.rank]]

    def merge(self, mine: Sequence[Result]) -> list[Result]:
        """Combine the results that each process has for its items into those of all items, in the items' order."""
        found: dict[int, Result] = {}
        for places, part in zip(self.places, self.processes.gather(list(mine)), strict=True):
            found |= zip(places, part, strict=True)
        return [found[place] for place in range(len(found))]


ALONE = Processes()
"""A single process that was started without a launcher."""


def join(device: str) -> Processes:
    """Connect to the other processes, if a launcher started several; call before a model is loaded.

    With `device` cuda each process gets a GPU of its own. Raises `ParamsError` when several processes are to share one
    particular GPU, such as cuda:1, and when there is none for this one.
    """
    rank, count = rank_and_count()
    if count == 1:
        return ALONE
    import torch
    import torch.distributed as dist

    if ":" in device:
        raise ParamsError(f"runtime.device = {device!r}: {count} processes need one GPU each; set cuda, or cpu")
    if device == "cuda":
        gpu = int(os.environ.get("LOCAL_RANK", "0"))
        try:
            check_device(f"cuda:{gpu}")
        except ParamsError as error:
            raise ParamsError(f"process {rank} of {count}: {error}; start no more processes than GPUs") from error
        torch.cuda.set_device(gpu)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    return Processes(rank, count)
