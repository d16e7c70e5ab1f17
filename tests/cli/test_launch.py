"""Which of several processes is named when training ends early; tests/stages/test_train.py kills a real one."""

from __future__ import annotations

from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from swirl.cli.launch import told


def failed(rank: int, exitcode: int, timestamp: int) -> ProcessFailure:
    failure = ProcessFailure(rank, 100 + rank, exitcode, "")
    failure.timestamp = timestamp
    return failure


def test_one_that_was_killed_is_the_cause_where_others_lost_their_connection() -> None:
    said = told({0: failed(0, 1, 5), 2: failed(2, -9, 6)}, 4)
    assert said.startswith("the process of rank 2, of 4 that run together, was killed by SIGKILL, so the others")


def test_one_that_the_launcher_stopped_is_not_the_cause() -> None:
    said = told({0: failed(0, -15, 5), 1: failed(1, -9, 6)}, 2)
    assert said.startswith("the process of rank 1, of 2 that run together, was killed by SIGKILL, so the others")
    said = told({0: failed(0, -15, 6), 1: failed(1, 1, 6)}, 2)
    assert said.startswith("the process of rank 1, of 2 that run together, ended with status 1, so the others")


def test_else_it_is_the_one_that_failed_first() -> None:
    said = told({0: failed(0, 1, 7), 3: failed(3, 2, 6)}, 4)
    assert said.startswith("the process of rank 3, of 4 that run together, ended with status 2, so the others")
