"""Combs that are above the token budget are cut between states."""

from __future__ import annotations

from swirl.comb.combs import Comb, pack
from swirl.rl.drawn_actions import within

TRUNK = tuple(range(10))
TEETH = [(4, (1, 2)), (4, (3,)), (7, (4, 5)), (10, (6,)), (10, (7, 8))]
"""States of 4, 7 and 10 tokens, with three, two and three tokens of actions."""


def test_neighbouring_states_share_a_trunk_as_long_as_they_fit() -> None:
    comb = pack(TRUNK, TEETH)
    assert comb.packed_size == 10 + 3 + 2 + 3
    assert within([comb], 18) == [comb]
    assert within([comb, comb], 17) == 2 * [pack(TRUNK[:7], TEETH[:3]), pack(TRUNK, TEETH[3:])]
    assert [part.packed_size for part in within([comb], 12)] == [7 + 3 + 2, 10 + 3]


def test_the_teeth_of_a_state_stay_together_whatever_the_budget() -> None:
    apart = [pack(TRUNK[:4], TEETH[:2]), pack(TRUNK[:7], TEETH[2:3]), pack(TRUNK, TEETH[3:])]
    assert within([pack(TRUNK, TEETH)], 1) == apart
    assert within([], 5) == []


def test_teeth_keep_their_order() -> None:
    parts = within([pack(TRUNK, TEETH), Comb((1, 2), pack((1, 2), [(2, (9,))]).teeth)], 9)
    assert [(tooth.sees, tooth.ids) for part in parts for tooth in part.teeth] == [*TEETH, (2, (9,))]
