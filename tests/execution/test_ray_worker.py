"""How many workers share a machine and a GPU."""

from __future__ import annotations

import pytest

from swirl.config.execution import Execution

pytest.importorskip("ray")

from swirl.execution.ray_worker import sharers


@pytest.mark.parametrize(
    ("workers", "gpus", "cpus", "node", "expected"),
    [
        (4, 0.0, 1, {"CPU": 64.0}, (4, 4)),
        (8, 0.0, 4, {"CPU": 17.0}, (4, 4)),  # the others are on other nodes
        (8, 1.0, 1, {"CPU": 64.0, "GPU": 2.0}, (2, 1)),
        (8, 0.5, 1, {"CPU": 64.0, "GPU": 2.0}, (4, 2)),
        (8, 0.3, 1, {"CPU": 64.0, "GPU": 1.0}, (3, 3)),
        (1, 0.5, 1, {"CPU": 64.0, "GPU": 2.0}, (1, 1)),
        (3, 2.0, 1, {"CPU": 64.0, "GPU": 8.0}, (3, 1)),
        (8, 0.1, 0, {"CPU": 64.0, "GPU": 1.0}, (8, 8)),
        (4, 0.0, 1, {}, (4, 4)),
    ],
)
def test_workers_that_may_share_a_machine_and_a_gpu(
    workers: int, gpus: float, cpus: int, node: dict[str, float], expected: tuple[int, int]
) -> None:
    settings = Execution(engine="ray", address="auto", workers=workers, gpus_per_worker=gpus)
    assert sharers(settings, cpus, node) == expected
