"""The oracle's labels, case by case."""

from __future__ import annotations

import pytest

from swirl.benchmarks.oracle import label_steps, label_trajectory, same_call
from swirl.core.types import Action, Derivation, Observation, Step, Stop, Trajectory

CHAIN = Derivation("q", "search", ("director of Silent Harbor", "spouse of Ada Drake"), ("Ada Drake", "Bram Falk"))
SUM = Derivation("q", "calculate", ("4 + 3", "2 * 5", "7 + 10"), ("7", "10", "17"))


def search(payload: str) -> Action:
    return Action("search", "", payload)


def calculate(payload: str) -> Action:
    return Action("calculate", "", payload)


def answer(payload: str) -> Action:
    return Action("answer", "", payload)


MALFORMED = Action("malformed", "Next", "")
FIRST, SECOND, RIGHT = search("director of Silent Harbor"), search("spouse of Ada Drake"), answer("Bram Falk")


@pytest.mark.parametrize(
    ("actions", "labels"),
    [
        ([FIRST, SECOND, RIGHT], [True, True, True]),
        ([], []),
        # A repeated call is BAD but does not affect the labels after it.
        ([FIRST, FIRST, SECOND, RIGHT], [True, False, True, True]),
        # A skipped hop: the later call is not the next one due, and the right answer lacks its evidence.
        ([SECOND, RIGHT], [False, False]),
        # The derivation's order counts: the second call, made too early, would have to be made again after the first.
        ([SECOND, FIRST, RIGHT], [False, True, False]),
        ([FIRST, answer("Ada Drake")], [True, False]),
        ([FIRST, RIGHT], [True, False]),
        ([RIGHT], [False]),
        ([FIRST, SECOND, answer("Ada Drake")], [True, True, False]),
        ([FIRST, SECOND, answer("the bram falk.")], [True, True, True]),
        ([FIRST, SECOND, search("seat of Acron Works"), RIGHT], [True, True, False, True]),
        ([MALFORMED, FIRST, MALFORMED, SECOND, RIGHT], [False, True, False, True, True]),
        ([calculate("1 + 1"), FIRST], [False, True]),
        ([search("Silent Harbor director of"), SECOND], [True, True]),
        ([search("director of Silent"), SECOND], [False, False]),
    ],
)
def test_searches(actions: list[Action], labels: list[bool]) -> None:
    assert label_steps(CHAIN, actions) == labels


@pytest.mark.parametrize(
    ("turns", "labels"),
    [
        ([[FIRST, SECOND], [RIGHT]], [True, True]),
        ([[SECOND, FIRST], [SECOND], [RIGHT]], [False, True, True]),
        ([[FIRST, FIRST], [SECOND], [RIGHT]], [False, True, True]),
        ([[MALFORMED], [FIRST], [SECOND], [RIGHT]], [False, True, True, True]),
    ],
)
def test_a_step_of_several_calls_is_good_when_each_call_is(turns: list[list[Action]], labels: list[bool]) -> None:
    steps = []
    for k, calls in enumerate(turns):
        seen = tuple(Observation("...", False, one.kind, one.payload) for one in calls if one.kind == "search")
        steps.append(Step(k, calls[0], seen, (1,), (0.0,), ()))
    made = Trajectory("t", "q", "b", 0, "m", 0, (1,), tuple(steps), Stop.ANSWERED, "")
    assert label_trajectory(CHAIN, made) == labels


@pytest.mark.parametrize(
    ("actions", "labels"),
    [
        ([calculate("4 + 3"), calculate("2 * 5"), calculate("7 + 10"), answer("17")], [True, True, True, True]),
        ([calculate("3+4"), calculate("5 × 2"), calculate("10 + 7"), answer("17.0")], [True, True, True, True]),
        ([calculate("4 - 3"), calculate("4 + 3")], [False, True]),
        ([calculate("7")], [False]),
        ([calculate("4 +"), calculate("4 + 3")], [False, True]),
        ([calculate("4 + 3"), calculate("7 + 5"), answer("12")], [True, False, False]),
        ([calculate("4 + 3"), calculate("2 * 5"), answer("17")], [True, True, False]),
    ],
)
def test_calculations(actions: list[Action], labels: list[bool]) -> None:
    assert label_steps(SUM, actions) == labels


def test_a_thought_is_good_unless_it_follows_another() -> None:
    thought = Action("think", "It is Ada Drake.", "")
    assert label_steps(CHAIN, [thought, FIRST, thought, thought, SECOND, RIGHT]) == [
        True,
        True,
        True,
        False,
        True,
        True,
    ]
    annotated = Derivation("q", "annotated", ("4+3",), ("7",))
    done = [calculate("4 + 3"), thought, thought, answer("7")]
    assert label_steps(annotated, done) == [True, True, False, True]


def test_subtraction_and_division_do_not_commute() -> None:
    assert not same_call("calculate", "3 - 4", "4 - 3")
    assert not same_call("calculate", "2 / 4", "4 / 2")
    assert same_call("calculate", "(4) - 3.0", "4 - 3")
