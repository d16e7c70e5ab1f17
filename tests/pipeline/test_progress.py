"""Progress of long loops, in a log and on a terminal."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest

from swirl.pipeline.progress import Progress, counted, if_slow


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `Progress` sees, as the one item of a list that tests can change."""
    now = [100.0]
    monkeypatch.setattr("swirl.pipeline.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_gets_plain_lines_with_rate_and_time_left(clock: list[float]) -> None:
    log = io.StringIO()
    with Progress(4, "judging", stream=log, interval=0) as progress:
        clock[0] += 2
        progress.update(1, loss=0.5)
        progress.update(3, loss=0.25)
    first, last = log.getvalue().splitlines()
    assert first == "judging: 1/4 (25%), 2 s, 2 s each, about 6 s left, loss=0.5"
    assert last == "judging: 4/4 (100%), 2 s, 2/s, loss=0.25"


def test_what_an_earlier_run_did_tells_nothing_of_this_ones_rate(clock: list[float]) -> None:
    log = io.StringIO()
    with Progress(1000, "synthesize", stream=log) as progress:
        progress.already(500)
        clock[0] += 20
        progress.update(10)
    assert log.getvalue() == "synthesize: 510/1000 (51%), 20 s, 2 s each, about 16 min left\n"


def test_a_fast_loop_says_little(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(0, "letters") as progress:
        for _ in "abc":
            progress.update()
    assert capsys.readouterr().err == "letters: 3, 0 s\n"


@pytest.mark.parametrize(("seconds", "said"), [(1.0, ""), (2.0, "rows: 3/3 (100%), 6 s, 2 s each\n")])
def test_a_loop_that_may_be_short_is_silent_for_five_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str], seconds: float, said: str
) -> None:
    for _ in counted("abc", 3, "rows"):
        clock[0] += seconds
    assert capsys.readouterr().err == said


def test_a_loop_inside_another_one_has_a_bar_beside_its_own(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress(2, "train", stream=terminal) as outer:
        outer.update(1, reward=0.5)
        with Progress(3, "look", stream=terminal) as inner:
            inner.update(3)
            outer.update(1, reward=0.75)
    shown = terminal.getvalue()
    assert "look" in shown
    assert "0/3" in shown
    last = shown.rpartition("train")[2]
    assert "2/2" in last
    assert "reward=0.75" in last
    with Progress(1, "after", stream=terminal) as later:  # the first display has gone
        later.update(1)
    assert "1/1" in terminal.getvalue().rpartition("after")[2]


def test_words_for_what_takes_long_are_said_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with if_slow("quick ..."):
        pass
    monkeypatch.setattr("swirl.pipeline.progress.SHORT", 0.01)
    said, deadline = "", time.monotonic() + 60
    with if_slow("slow ..."):
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said == "slow ...\n"
