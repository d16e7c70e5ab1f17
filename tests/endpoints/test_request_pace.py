"""When a request may begin, by a clock that stands still unless it is set."""

from __future__ import annotations

import time

import pytest

from swirl.endpoints.request_pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_places_follow_one_another_at_the_rate(clock: Clock) -> None:
    pace = Pace(120)  # one every half second
    assert [pace.reserve(1) for _ in range(3)] == [0.0, 0.5, 1.0]
    clock.now += 1.25
    assert pace.reserve(1) == 0.25


def test_a_place_is_as_long_as_its_amount(clock: Clock) -> None:
    pace = Pace(120)
    assert [pace.reserve(amount) for amount in (4, 0, 1, 1)] == [0.0, 2.0, 2.0, 2.5]


def test_time_without_requests_is_not_made_up_for(clock: Clock) -> None:
    pace = Pace(120)
    pace.reserve(1)
    clock.now += 60
    assert [pace.reserve(1) for _ in range(2)] == [0.0, 0.5]


def test_what_was_used_corrects_what_was_reserved(clock: Clock) -> None:
    pace = Pace(120)
    pace.reserve(10)  # to 5 s
    pace.correct(-6)
    assert pace.reserve(10) == 2.0
    pace.correct(2)
    assert pace.reserve(1) == 8.0


def test_without_a_limit_nothing_waits(clock: Clock) -> None:
    pace = Pace(0)
    pace.correct(1_000_000)
    assert [pace.reserve(1_000_000) for _ in range(2)] == [0.0, 0.0]
