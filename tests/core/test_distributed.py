"""Processes that share work and gather its results; tests/stages/test_train.py trains in two of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from swirl.core.distributed import ALONE, Processes, join, rank_and_count
from swirl.core.errors import ParamsError

CODE = """
import sys, torch
from swirl.core.distributed import join
processes = join("cpu")
items = list("abcdefg")
print(processes.mine(items), processes.together(items, lambda mine: [2 * item for item in mine]))
print(processes.together(["x"], lambda mine: mine), processes.together([], lambda mine: mine))
tensors = [torch.tensor([1.0 + processes.rank]), torch.tensor([[10.0 ** processes.rank]])]
processes.add_up(tensors)
print([tensor.tolist() for tensor in tensors], processes.from_main(processes.rank), processes.gather(processes.rank))
deal = processes.deal([1, 9, 2, 3])
print(deal.mine("abcd"), deal.merge([processes.rank for _ in deal.mine("abcd")]))
processes.wait()
processes.leave()
"""


def test_one_process_does_everything_itself() -> None:
    assert (ALONE.rank, ALONE.count, ALONE.main) == (0, 1, True)
    assert ALONE.mine([1, 2, 3]) == [1, 2, 3]
    assert ALONE.together([1, 2, 3], lambda mine: [10 * item for item in mine]) == [10, 20, 30]
    assert ALONE.gather("x") == ["x"]
    assert join("cpu") == ALONE


def test_shares_are_dealt_in_turn() -> None:
    assert [Processes(rank, 3).mine([0, 1, 2, 3, 4]) for rank in range(3)] == [[0, 3], [1, 4], [2]]
    assert [Processes(rank, 3).main for rank in range(3)] == [True, False, False]


def test_by_cost_the_dearest_is_dealt_first_to_who_has_least() -> None:
    costs = [5.0, 3.0, 3.0, 2.0, 2.0, 1.0]
    assert Processes(0, 2).deal(costs).places == Processes(1, 2).deal(costs).places == ((0, 3, 5), (1, 2, 4))
    assert Processes(1, 2).deal(costs).mine("abcdef") == ["b", "c", "e"]
    assert Processes(0, 3).deal([7.0]).places == ((0,), (), ())
    assert ALONE.deal([1.0, 3.0, 2.0]).merge("abc") == ["a", "b", "c"]


def test_several_processes_cannot_share_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert rank_and_count() == (2, 4)
    with pytest.raises(ParamsError, match="runtime.device = 'cuda:1': 4 processes need one GPU each; set cuda, or cpu"):
        join("cuda:1")


def test_a_process_without_a_gpu_of_its_own_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "100", "RANK": "99", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ParamsError,
        match=r"^process 99 of 100: runtime.device is cuda:99, which torch .* start no more processes than GPUs$",
    ):
        join("cuda")


@pytest.mark.slow
def test_three_real_processes_agree() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CODE],
            env={**common, "RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    said = [process.communicate(timeout=600)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    shares = ["['a', 'd', 'g']", "['b', 'e']", "['c', 'f']"]
    dealt = ["['b']", "['d']", "['a', 'c']"]
    for rank, lines in enumerate(said):
        assert lines == [
            f"{shares[rank]} ['aa', 'bb', 'cc', 'dd', 'ee', 'ff', 'gg']",
            "['x'] []",
            "[[6.0], [[111.0]]] 0 [0, 1, 2]",
            f"{dealt[rank]} [2, 0, 2, 1]",
        ]
