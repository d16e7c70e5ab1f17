"""Threads whose work ends when nobody waits for it any more."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from swirl.core.threads import GivenUpError, Pool, end_if_given_up, spread


def until_given_up(begun: threading.Event, ended: list[str]) -> None:
    """Works until it is told to end."""
    begun.set()
    pause = threading.Event()
    try:
        while True:
            end_if_given_up()
            pause.wait(0.01)
    except GivenUpError:
        ended.append("given up")


def test_results_are_in_order() -> None:
    assert spread(lambda number: number * 2, range(5), 2) == [0, 2, 4, 6, 8]


def test_an_interruption_ends_the_work_of_other_threads_and_of_theirs() -> None:
    begun, ended = threading.Event(), list[str]()

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(300)
            raise KeyboardInterrupt
        with Pool(1) as inner:
            inner.submit(until_given_up, begun, ended).result()

    with pytest.raises(KeyboardInterrupt):
        spread(work, range(2), 2)
    assert ended == ["given up"]


def test_work_that_was_not_begun_is_not_begun_then() -> None:
    begun, ended, waiting = threading.Event(), list[str](), list[Future[None]]()

    def interrupted() -> None:
        with Pool(1) as pool:
            pool.submit(until_given_up, begun, ended)
            waiting.append(pool.submit(ended.append, "begun"))
            assert begun.wait(300)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert waiting[0].cancelled()
    assert ended == ["given up"]


def test_nothing_is_given_up_where_all_work_is_done() -> None:
    with Pool(1) as pool:
        pool.submit(end_if_given_up).result()
    end_if_given_up()
    assert spread(lambda number: end_if_given_up(), range(2), 2) == [None, None]


def test_after_an_error_work_that_has_begun_ends_as_ever() -> None:
    begun, go, ended = threading.Event(), threading.Event(), list[int]()

    def work(number: int) -> None:
        if number:
            begun.set()
            go.wait(300)
            end_if_given_up()
            ended.append(number)
            return
        begun.wait(300)
        threading.Timer(0.5, go.set).start()  # when the error has left the pool
        raise ValueError("one piece's error")

    with pytest.raises(ValueError, match="one piece's error"):
        spread(work, [0, 1], 2)
    assert ended == [1]
