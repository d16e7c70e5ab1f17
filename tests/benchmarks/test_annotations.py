"""GSM8K's calculator annotations as tool use, and the oracle of such rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.benchmarks.annotations import LeftOut, Solution, solve, spoil
from swirl.benchmarks.embedded.demonstrations import Turn
from swirl.benchmarks.oracle import label_steps
from swirl.core.types import Action, Derivation
from swirl.tools.actions import parse

DATA = Path(__file__).parents[3] / "shared/data/gsm8k/train.jsonl"

QUESTION = "A box holds 1,200 pens. Ada takes half, then buys 3 packs of 20. How many has she?"
ANSWER = (
    "Ada takes 1,200 / 2 = <<1200/2=600>>600 pens from the box.\n"
    "She buys 3 x 20 = $<<3*20=60>>60 pens.\nShe has 600+60=<<600+60=660>>660 pens.\n#### 660"
)


def sound() -> Solution:
    solution = solve(QUESTION, ANSWER)
    assert isinstance(solution, Solution)
    return solution


def test_a_row_becomes_calls_with_the_calculators_results_and_an_answer() -> None:
    solution = sound()
    assert solution.turns == (
        Turn("Ada takes <math_exp> 1200/2 </math_exp>", "1200/2 -> 600"),
        Turn("600 pens from the box. She buys <math_exp> 3*20 </math_exp>", "3*20 -> 60"),
        Turn("60 pens. She has <math_exp> 600+60 </math_exp>", "600+60 -> 660"),
        Turn("660 pens. <answer> 660 </answer>", ""),
    )
    assert solution.derivation("q") == Derivation("q", "annotated", ("1200/2", "3*20", "600+60"), ("600", "60", "660"))


def test_thoughts_can_be_left_out() -> None:
    actions = [turn.action for turn in sound().without_words().turns]
    assert actions == [
        "<math_exp> 1200/2 </math_exp>",
        "<math_exp> 3*20 </math_exp>",
        "<math_exp> 600+60 </math_exp>",
        "<answer> 660 </answer>",
    ]


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        ("<<2+3=5>>5\n#### 5", "<math_exp> 2+3 </math_exp>"),
        ("Each box 2 x 3 = <<2*3=6>>6\n#### 6", "Each box <math_exp> 2*3 </math_exp>"),
        # A bare number is not a call.
        ("He has <<4=4>>4 and gets 1: <<4+1=5>>5\n#### 5", "He has 4 and gets 1: <math_exp> 4+1 </math_exp>"),
        # The row's results have more digits than the calculator shows.
        ("It is <<1/3=0.3333333333333333>>0.33, twice <<1/3*2=0.6666666666666666>>0.67\n#### 0.666667",) * 2,
    ],
)
def test_what_stands_before_a_call(answer: str, first: str) -> None:
    solution = solve("?", answer)
    assert isinstance(solution, Solution)
    expected = "It is <math_exp> 1/3 </math_exp>" if first == answer else first
    assert solution.turns[0].action == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("It is 5.\n#### 5", LeftOut.NO_ANNOTATION),
        ("", LeftOut.NO_ANNOTATION),
        ("It is <<2 apples=2>>2.\n#### 2", LeftOut.NO_VALUE),
        ("It is <<1/0=0>>0.\n#### 0", LeftOut.NO_VALUE),
        ("It is <<2+2=5>>5.\n#### 5", LeftOut.OTHER_VALUE),
        ("It is <<2+2>>4.\n#### 4", LeftOut.NO_VALUE),
        ("It is <<2+2=4>>4, so 40.\n#### 40", LeftOut.OTHER_ANSWER),
        ("It is <<4=4>>4.\n#### 4", LeftOut.OTHER_ANSWER),
        ("It is <<2+2=4>>4.", LeftOut.NO_ANNOTATION),
        ("As 2 < 3, <<2+2=4>>4.\n#### 4", LeftOut.NO_ACTION),
        ("So <answer> 1 </answer> <<2+2=4>>4.\n#### 4", LeftOut.NO_ACTION),
    ],
)
def test_a_row_that_is_left_out_says_why(answer: str, reason: LeftOut) -> None:
    assert solve("?", answer) is reason


@given(st.text(), st.text(alphabet="<>=0123456789+-*/ x.,#\nab"))
def test_any_row_gives_sound_actions_or_a_reason(question: str, answer: str) -> None:
    solution = solve(question, answer)
    if isinstance(solution, Solution):
        kinds = [parse(turn.action).kind for turn in solution.turns]
        assert kinds == ["calculate"] * len(solution.calls) + ["answer"]
        assert parse(spoil(solution, random.Random(0))[-1].action).kind in ("calculate", "answer")


def test_a_long_hostile_row_takes_no_time() -> None:
    assert solve("?", "1 x " * 100_000 + "a" + "<" * 100_000 + "\n#### 1") is LeftOut.NO_ANNOTATION
    assert isinstance(solve("?", "1 x " * 100_000 + "<<1+1=2>>2\n#### 2"), Solution)


def test_a_spoilt_solution_is_sound_up_to_its_last_step_which_is_mostly_bad() -> None:
    solution = sound()
    derivation = solution.derivation("q")
    bad = 0
    for seed in range(200):
        turns = spoil(solution, random.Random(seed))
        assert turns[:-1] == solution.turns[: len(turns) - 1]
        labels = label_steps(derivation, [parse(turn.action) for turn in turns])
        assert all(labels[:-1])
        bad += not labels[-1]
    assert bad >= 180
    assert spoil(solution, random.Random(3)) == spoil(solution, random.Random(3))


def test_a_call_without_numbers_can_be_spoilt() -> None:
    solution = Solution(
        "?", (Turn("<math_exp> pi*e </math_exp>", ""), Turn("<answer> 9 </answer>", "")), ("pi*e",), ("9",)
    )
    assert {spoil(solution, random.Random(seed))[0].action for seed in range(20)} == {
        "<math_exp> pi*e </math_exp>",
        "<math_exp> pi*e+1 </math_exp>",
    }


def calculate(payload: str) -> Action:
    return Action("calculate", "", payload)


def answer(payload: str) -> Action:
    return Action("answer", "", payload)


@pytest.mark.parametrize(
    ("actions", "labels"),
    [
        ([calculate("1200/2"), calculate("3*20"), calculate("600+60"), answer("660")], [True] * 4),
        # A different order, different spellings, different expressions with the same value.
        ([calculate("20+20+20"), calculate("1,200 * 0.5"), calculate("60 + 600"), answer("$660.00")], [True] * 4),
        # Two annotations in one call.
        ([calculate("1200/2"), calculate("600+3*20"), answer("660")], [True] * 3),
        # A value that an earlier call has claimed; then a bare number, a wrong value, an error, another tool.
        ([calculate("1200/2"), calculate("1200/2")], [True, False]),
        ([calculate("600"), calculate("1200/3"), calculate("1/0"), Action("search", "", "1200/2")], [False] * 4),
        ([Action("malformed", "", ""), answer("66"), answer("660")], [False, False, True]),
        ([], []),
    ],
)
def test_the_oracle_of_annotated_rows(actions: list[Action], labels: list[bool]) -> None:
    assert label_steps(sound().derivation("q"), actions) == labels


def test_two_annotations_of_one_value_are_two_calls() -> None:
    derivation = Derivation("q", "annotated", ("2*3", "3+3", "6+6"), ("6", "6", "12"))
    assert label_steps(derivation, [calculate("2*3"), calculate("2*3"), calculate("2*3")]) == [True, True, False]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"the official rows are not at {DATA}")
def test_the_official_rows() -> None:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    made = [solve(row["question"], row["answer"]) for row in rows]
    solutions = [one for one in made if isinstance(one, Solution)]
    assert Counter(one for one in made if isinstance(one, LeftOut)) == {
        LeftOut.OTHER_ANSWER: 500,
        LeftOut.NO_ANNOTATION: 95,
        LeftOut.NO_ACTION: 10,
    }
    for solution in solutions:
        actions = [parse(turn.action) for turn in solution.turns]
        assert all(label_steps(solution.derivation(""), actions)), solution
