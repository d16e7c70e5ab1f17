"""Written demonstrations: sound ones are right in every step, flawed ones err in the documented ways."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from swirl.benchmarks.embedded.demonstrations import (
    DROPPED_LAST,
    MALFORMED,
    SKIPPED_RELATIONS,
    Flaws,
    Turn,
    math_demonstration,
    recall_demonstration,
    search_demonstration,
)
from swirl.benchmarks.embedded.problems import Move, Problem, draw_problem
from swirl.benchmarks.embedded.world import Chain, make_world
from swirl.benchmarks.oracle import label_steps, same_call
from swirl.core.types import Action, Derivation, Passage
from swirl.rollout.reading import MALFORMED_REPLY
from swirl.tools import Calculator, Search
from swirl.tools.actions import parse

SOUND = Flaws()
CONTEXTUAL = Flaws(contextual=1.0)
SLIPS = Flaws(anywhere=0.6)

FACTS = {
    "director of Silent Harbor": "Ada Drake",
    "spouse of Ada Drake": "Bram Falk",
    "birthplace of Ada Drake": "Port Velda",
    "country of Port Velda": "North Nordia",
    "country of Bram Falk": "nowhere",
}
SEARCH = Search.over([Passage(k, k.split(" of ")[1], f"The {k} is {v}.") for k, v in FACTS.items()], k=1).run
SPOUSE = Chain("Silent Harbor", ("director", "spouse"), ("Ada Drake", "Bram Falk"))
COUNTRY = Chain("Ada Drake", ("birthplace", "country"), ("Port Velda", "North Nordia"))
BOXES = Problem(
    "Ada has 4 apples. Ada finds 3. Ada gets 2 boxes of 5. Ada sells them at 2 dollars. How many dollars does Ada get?",
    4,
    "4 apples",
    (
        Move("Ada finds 3", "Ada finds 3.", ("{value} + 3",)),
        Move("Ada gets 2 boxes of 5", "Ada gets 2 boxes of 5.", ("2 * 5", "{value} + {last}"), "{value} + 5"),
        Move("Ada sells them at 2 dollars", "Ada sells them at 2 dollars.", ("{value} * 2",), is_ending=True),
    ),
    (4, 3, 2, 5, 2),
)
CALCULATE = Calculator().run


def actions(turns: Sequence[Turn]) -> list[Action]:
    return [parse(turn.action) for turn in turns]


def labels(turns: Sequence[Turn], derivation: Derivation) -> list[bool]:
    return label_steps(derivation, actions(turns))


def test_a_sound_search_word_for_word() -> None:
    assert search_demonstration(SPOUSE, SEARCH, SOUND, 5, random.Random(0)) == [
        Turn(
            "Next director: <search_query> director of Silent Harbor </search_query>",
            "director of Silent Harbor -> The director of Silent Harbor is Ada Drake.",
        ),
        Turn(
            "It is Ada Drake. Next spouse: <search_query> spouse of Ada Drake </search_query>",
            "spouse of Ada Drake -> The spouse of Ada Drake is Bram Falk.",
        ),
        Turn("It is Bram Falk. Done: <answer> Bram Falk </answer>", ""),
    ]


def test_a_sound_calculation_word_for_word() -> None:
    assert math_demonstration(BOXES, CALCULATE, SOUND, 10, random.Random(0)) == [
        Turn("It is 4 apples. Ada finds 3: <math_exp> 4 + 3 </math_exp>", "4 + 3 -> 7"),
        Turn("It is 7 after finds 3. Ada gets 2 boxes of 5: <math_exp> 2 * 5 </math_exp>", "2 * 5 -> 10"),
        Turn("It is 10 in of 5. So together: <math_exp> 7 + 10 </math_exp>", "7 + 10 -> 17"),
        Turn("It is 17 after of 5. Ada sells them at 2 dollars: <math_exp> 17 * 2 </math_exp>", "17 * 2 -> 34"),
        Turn("It is 34 after 2 dollars. Done: <answer> 34 </answer>", ""),
    ]


def test_a_recalled_answer_word_for_word() -> None:
    assert recall_demonstration(SPOUSE) == [
        Turn(
            "Next director: It is Ada Drake. Next spouse: It is Bram Falk. Done: <answer> Bram Falk </answer>",
            "",
        )
    ]


def test_a_skipped_hop_answers_with_the_one_before() -> None:
    turns = search_demonstration(SPOUSE, SEARCH, CONTEXTUAL, 5, random.Random(0))
    assert [turn.action for turn in turns] == [
        "Next director: <search_query> director of Silent Harbor </search_query>",
        "It is Ada Drake. Done: <answer> Ada Drake </answer>",
    ]
    assert labels(turns, SPOUSE.derivation("")) == [True, False]


def test_a_dropped_last_hop_answers_early() -> None:
    turns = search_demonstration(COUNTRY, SEARCH, CONTEXTUAL, 5, random.Random(0))
    assert actions(turns)[-1].payload == "Port Velda"
    assert labels(turns, COUNTRY.derivation("")) == [True, False]


def test_the_only_hop_is_never_dropped() -> None:
    chain = Chain("Port Velda", ("country",), ("North Nordia",))
    turns = search_demonstration(chain, SEARCH, CONTEXTUAL, 5, random.Random(0))
    assert labels(turns, chain.derivation("")) == [True, True]


def test_the_decoy_and_the_dropped_ending() -> None:
    turns = math_demonstration(BOXES, CALCULATE, CONTEXTUAL, 10, random.Random(0))
    assert [action.payload for action in actions(turns)] == ["4 + 3", "7 + 5", "12"]
    assert labels(turns, BOXES.derivation("")) == [True, False, False]


def test_contextual_flaws_need_their_trigger() -> None:
    world = make_world("train", 0.5, random.Random(0))
    search = Search.over(world.passages(), k=2).run
    rng = random.Random(1)
    seen = Counter[bool]()
    for _ in range(300):
        chain = world.draw_chain(rng.choice((2, 3)), rng)
        triggered = bool(SKIPPED_RELATIONS & set(chain.relations)) or chain.relations[-1] in DROPPED_LAST
        good = all(labels(search_demonstration(chain, search, CONTEXTUAL, 5, rng), chain.derivation("")))
        assert good is not triggered
        seen[triggered] += 1
    assert min(seen.values()) > 30


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_sound_searches_are_good_in_every_step_and_right(hops: int) -> None:
    world = make_world("train", 1.0, random.Random(0))
    search = Search.over(world.passages(), k=2).run
    rng = random.Random(hops)
    for _ in range(60):
        chain = world.draw_chain(hops, rng)
        turns = search_demonstration(chain, search, SOUND, 5, rng)
        assert labels(turns, chain.derivation("")) == [True] * (hops + 1)
        assert actions(turns)[-1].payload == chain.values[-1]


@pytest.mark.parametrize("steps", [2, 3, 5, 8])
def test_sound_calculations_are_good_in_every_step_and_right(steps: int) -> None:
    rng = random.Random(steps)
    for _ in range(40):
        problem = draw_problem(steps, "train", rng)
        turns = math_demonstration(problem, CALCULATE, SOUND, 10, rng)
        assert labels(turns, problem.derivation("")) == [True] * (steps + 1)
        assert actions(turns)[-1].payload == problem.derivation("").results[-1]


def search_flaw(made: Sequence[Action], number: int, chain: Chain) -> str:
    """The kind of flaw that makes this step BAD."""
    action = made[number]
    if action.kind != "search":
        early = action.kind == "answer" and number < len(chain.calls)
        return "early answer" if early else "wrong answer" if action.kind == "answer" else "malformed"
    if any(same_call("search", action.payload, before.payload) for before in made[:number]):
        return "repeated call"
    return "another call"


def test_slips_of_searches_are_of_every_documented_kind() -> None:
    rng = random.Random(0)
    world = make_world("train", 0.5, rng)
    search = Search.over(world.passages(), k=2).run
    kinds = Counter[str]()
    for _ in range(300):
        chain = world.draw_chain(2, rng)
        turns = search_demonstration(chain, search, SLIPS, 5, rng)
        made = actions(turns)
        for number, good in enumerate(labels(turns, chain.derivation(""))):
            if not good:
                kinds[search_flaw(made, number, chain)] += 1
    assert (
        min(kinds[kind] for kind in ("malformed", "repeated call", "another call", "early answer", "wrong answer")) > 9
    )


def test_slips_of_calculations_are_of_every_documented_kind() -> None:
    rng = random.Random(0)
    kinds = Counter[str]()
    for _ in range(300):
        problem = draw_problem(3, "train", rng)
        turns = math_demonstration(problem, CALCULATE, SLIPS, 10, rng)
        made, golden = actions(turns), problem.solve()[0]
        for number, good in enumerate(labels(turns, problem.derivation(""))):
            action = made[number]
            if good:
                continue
            if action.kind == "calculate":
                repeated = any(action.payload == before.payload for before in made[:number])
                operators = {call.split()[1] for call in golden}
                other = "another operator" if action.payload.split()[1] not in operators else "another operand"
                kinds["repeated call" if repeated else other] += 1
            else:
                kinds[action.kind] += 1
    assert set(kinds) == {"malformed", "answer", "repeated call", "another operator", "another operand"}
    assert min(kinds.values()) > 9


def test_a_slip_can_skip_a_sentence_and_go_on() -> None:
    cues = [move.cue for move in BOXES.moves]
    went_on = 0
    for seed in range(100):
        turns = math_demonstration(BOXES, CALCULATE, Flaws(anywhere=0.3), 10, random.Random(seed))
        named = [any(f" {cue}:" in turn.action for turn in turns) for cue in cues]
        if named == [False, True, True]:
            assert labels(turns, BOXES.derivation(""))[-1] is False
            went_on += 1
    assert went_on > 2


def test_flaws_come_from_the_generator_alone() -> None:
    def demonstrate(seed: int) -> list[Turn]:
        return math_demonstration(BOXES, CALCULATE, Flaws(0.5, 0.5), 10, random.Random(seed))

    assert demonstrate(3) == demonstrate(3)
    assert len({tuple(demonstrate(seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_last_action_that_there_may_be_is_an_answer(steps: int) -> None:
    """So that a demonstration makes no more calls than its prompt allows, one less than there are actions."""
    chain = make_world("train", 0.5, random.Random(0)).draw_chain(4, random.Random(0))
    turns = search_demonstration(chain, SEARCH, SOUND, steps, random.Random(0))
    assert [action.kind for action in actions(turns)] == [*["search"] * (steps - 1), "answer"]
    turns = math_demonstration(BOXES, CALCULATE, SOUND, steps, random.Random(0))
    assert [action.kind for action in actions(turns)] == [*["calculate"] * (steps - 1), "answer"]
    assert actions(turns)[-1].payload == {1: "4", 2: "7", 3: "7"}[steps]  # 4, then 4 + 3; the 10 of boxes is no result


def test_flawed_demonstrations_make_no_more_calls_than_their_prompt_allows() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        for turns in (
            search_demonstration(SPOUSE, SEARCH, Flaws(0.3, 0.8), 3, rng),
            math_demonstration(BOXES, CALCULATE, Flaws(0.3, 0.8), 3, rng),
        ):
            assert len(turns) <= 3
            assert sum(action.kind in ("search", "calculate") for action in actions(turns)) <= 2


def test_flawed_demonstrations_respect_the_step_limit_and_their_format() -> None:
    assert MALFORMED == MALFORMED_REPLY
    for seed in range(200):
        rng = random.Random(seed)
        made = search_demonstration(SPOUSE, SEARCH, Flaws(0.3, 0.8), 4, rng)
        made_too = math_demonstration(BOXES, CALCULATE, Flaws(0.3, 0.8), 4, rng)
        for turns in (made, made_too):
            assert 1 <= len(turns) <= 4
            for turn, action in zip(turns, actions(turns), strict=True):
                result = {"malformed": MALFORMED, "answer": ""}.get(action.kind)
                assert turn.observation == result or turn.observation.startswith(f"{action.payload} -> ")
            assert all(action.kind != "answer" for action in actions(turns)[:-1])
