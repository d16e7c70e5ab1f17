"""A cluster of several nodes on this machine, which the engine joins by its address; one of them dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from swirl.config.execution import Execution
from tests.execution.notes import EXPECTED, begun, makers, pid_of, wait_for
from tests.scripted_blocks import Scripted, make

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.rare


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without a place for workers, to which the driver is connected, and three nodes with a place each."""
    from ray._private.authentication_test_utils import reset_auth_token_state
    from ray.cluster_utils import Cluster

    ray.shutdown()
    with monkeypatch.context() as here:
        here.setenv("RAY_AUTH_MODE", "token")
        here.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        here.setattr(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False)  # 127.0.0.1 alone
        here.setattr(ray._private.utils, "write_ray_address", lambda address: None)  # others would join by it
        reset_auth_token_state()
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(3):
            made.add_node(num_cpus=1)
        yield made
        ray.shutdown()
        made.shutdown()
    reset_auth_token_state()


def raylet(node: Any) -> int:
    """The process of a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def home_of(worker: int) -> int:
    """The node's process that a worker is a child of."""
    return psutil.Process(worker).ppid()


def test_a_node_that_dies_costs_its_block_and_another_goes_on(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two nodes make a held block each, and one of them dies; its block is made on the third."""
    notes = tmp_path / "notes"
    notes.mkdir()
    nodes, homes = {raylet(node): node for node in cluster.worker_nodes}, dict[int, int]()

    def lose_a_node() -> None:
        try:
            lost = home_of(pid_of(notes, "5a"))
            pid_of(notes, "15a")
            homes.update((maker, home_of(maker)) for maker in makers(notes))
            cluster.remove_node(nodes[lost], allow_graceful=False)
            wait_for(lambda: begun(notes)["5a"] == 2)
            homes.update((maker, home_of(maker)) for maker in makers(notes) - homes.keys())
        finally:
            (notes / "go").touch()

    killer = threading.Thread(target=lose_a_node, daemon=True)
    killer.start()
    there = Execution(engine="ray", address=cluster.address, workers=2, gpus_per_worker=0.0)
    made, told = make(Scripted(notes, held=("5a", "15a")), there, tmp_path / "journal")
    killer.join()
    assert ray.get_runtime_context().gcs_address == cluster.address
    assert sorted(homes.values()) == sorted(nodes)
    assert made == EXPECTED
    assert sum(told) == 40
    assert {word: count for word, count in begun(notes).items() if count > 1} == {"5a": 2}
    assert capfd.readouterr().err.count("died while it made block 5, which is made again") == 1
