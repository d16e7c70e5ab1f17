"""Annotated rows with their numbers replaced."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.benchmarks.annotations import Solution, solve
from swirl.benchmarks.oracle import label_steps, value_of
from swirl.benchmarks.renumbering import renumbered
from swirl.tools.actions import parse


def row(question: str, solution: str) -> Solution:
    made = solve(question, solution)
    assert isinstance(made, Solution)
    return made.without_words()


EGGS = row(
    "Ada's hens lay 16 eggs a day. She eats 3 and sells the others for $2 each. How much a day, in 24 weeks?",
    "She sells 16-3=<<16-3=13>>13 eggs, for 13*2=<<13*2=26>>26 dollars.\n#### 26",
)


def test_numbers_that_a_call_reads_change_everywhere_and_all_else_stays() -> None:
    made = renumbered(EGGS, random.Random(1))
    assert made is not None
    assert made.question == (
        "Ada's hens lay 10 eggs a day. She eats 6 and sells the others for $2 each. How much a day, in 24 weeks?"
    )
    assert made.calls == ("10-6", "4*2") and made.results == ("4", "8")
    assert [turn.action for turn in made.turns] == [
        "<math_exp> 10-6 </math_exp>",
        "<math_exp> 4*2 </math_exp>",
        "<answer> 8 </answer>",
    ]
    assert [turn.observation for turn in made.turns] == ["10-6 -> 4", "4*2 -> 8", ""]


def test_a_number_that_is_an_earlier_result_is_taken_for_that() -> None:
    twice = row("Bo has 10 pens, buys 5, and 15 more.", "<<10+5=15>>15, so <<15+15=30>>30.\n#### 30")
    made = renumbered(twice, random.Random(0))
    assert made is not None
    total = made.results[0]
    assert made.calls[1] == f"{total}+{total}"
    assert "and 15 more" in made.question


@given(st.integers(0, 2**32))
def test_what_is_drawn_is_sound_positive_and_whole(seed: int) -> None:
    rows = [
        EGGS,
        row("A tank of 1,200 litres is filled by 4 pumps.", "Each <<1200/4=300>>300.\n#### 300"),
        row("Of 80 pupils 25% walk.", "<<25/100*80=20>>20 walk, <<80-20=60>>60 do not.\n#### 60"),
    ]
    for before in rows:
        made = renumbered(before, random.Random(seed))
        if made is None:
            continue
        assert made.question != before.question
        assert all(label_steps(made.derivation(""), [parse(turn.action) for turn in made.turns]))
        for call, result in zip(made.calls, made.results, strict=True):
            assert value_of(call) == result and float(result) > 0 and "." not in result


def test_the_same_seed_gives_the_same_row() -> None:
    assert renumbered(EGGS, random.Random(7)) == renumbered(EGGS, random.Random(7))


@pytest.mark.parametrize(
    ("question", "solution"),
    [
        ("Twice two?", "<<2*2=4>>4\n#### 4"),  # the calls use no number from the question
        ("A half of 1/2?", "<<1/2/2=.25>>.25\n#### .25"),  # the 1 and the 2 in 1/2 do not stand alone
    ],
)
def test_a_row_without_a_number_to_change_is_none(question: str, solution: str) -> None:
    assert renumbered(row(question, solution), random.Random(0)) is None
