"""Whole turns as actions: what they are, and whether a drawn one agrees with the logged one."""

from __future__ import annotations

import time

import pytest

from swirl.core.types import Action
from swirl.models.chat import Chat
from swirl.rollout.turns import Agreement, TurnReader, agreement
from swirl.tools.actions import calls_of, kind_of_call
from tests import families

TAGS = {"find": "find", "answer": "tool:answer", "pay/now": "pay/now"}
ONE, TWO = '<find> {"q": "a"} </find>', '<pay/now> {"n": 1} </pay/now>'
CHAT = Chat(families.smollm2())


def read(text: str) -> Action:
    return TurnReader(CHAT, TAGS).read(CHAT.reply(text))


@pytest.mark.parametrize(
    ("text", "kind", "payload"),
    [
        (ONE, "find", '{"q": "a"}'),
        (f"I look it up.\n{ONE}", "find", '{"q": "a"}'),
        (f"{ONE}\n{TWO}", "find", '{"q": "a"}'),
        (TWO, "pay/now", '{"n": 1}'),
        ("<answer> {} </answer>", "tool:answer", "{}"),
        ("It is a < b, and </b> is text.", "answer", "It is a < b, and </b> is text."),
        ("<unknown> {} </unknown>", "answer", "<unknown> {} </unknown>"),
        ("<find> a </find>", "malformed", ""),
        ('<find> {"q": "a"}', "malformed", ""),
        (f"{ONE} </find>", "malformed", ""),
        ('<find> {"q": 1} </pay/now>', "malformed", ""),
        ("  ", "malformed", ""),
    ],
)
def test_what_a_turn_is(text: str, kind: str, payload: str) -> None:
    made = read(text)
    assert (made.kind, made.payload) == (kind, payload)


def test_a_turn_ends_with_its_end_alone() -> None:
    reader, ids = TurnReader(CHAT, TAGS), CHAT.reply(ONE)
    assert not any(reader.complete(ids[:count]) for count in range(1, len(ids) + 1))
    assert reader.cut(ids[:-1]) and not reader.cut(ids)
    assert reader.read(ids[:-1]) == Action("cut", ONE, "")


@pytest.mark.parametrize(
    ("logged", "drawn", "same"),
    [
        (ONE, ONE, Agreement(True, True)),
        (ONE, 'Well. <find> {"q":   "a"} </find>', Agreement(True, True)),
        (ONE, '<find> {"q": "b"} </find>', Agreement(True, False)),
        ('<find> {"a": 1, "b": 2} </find>', '<find> {"b": 2, "a": 1} </find>', Agreement(True, True)),
        ('<find> {"a": 1} </find>', '<find> {"a": true} </find>', Agreement(True, False)),
        (ONE, TWO, Agreement(False, False)),
        (f"{ONE}{TWO}", f"{TWO}{ONE}", Agreement(False, False)),
        (ONE, "text", Agreement(False, False)),
        (ONE, "<find> broken </find>", Agreement(False, False)),
        ("text", "another text", Agreement(True, None)),
        ("text", ONE, Agreement(False, None)),
        ("<find> broken </find>", ONE, Agreement(None, None)),
        ("text", "", Agreement(False, None)),
        (ONE, " ", Agreement(False, False)),
    ],
)
def test_agreement(logged: str, drawn: str, same: Agreement) -> None:
    reader = TurnReader(CHAT, TAGS)
    assert agreement(reader.calls_in(logged), reader.calls_in(drawn)) == same


def test_calls_are_found_in_linear_time_whatever_a_model_writes() -> None:
    started = time.process_time()
    assert calls_of("<find>" * 50_000, TAGS) is None
    assert calls_of("<" * 200_000, TAGS) == []
    assert calls_of(ONE * 2_000, TAGS) == [("find", '{"q": "a"}')] * 2_000
    assert time.process_time() - started < 2
    assert calls_of(ONE, {}) == []
    assert calls_of("<<find>> {} <</find>>", TAGS) == [("find", "{}")]


def test_a_logged_tool_is_never_taken_for_an_answer() -> None:
    assert [kind_of_call(name) for name in ("find", "search", "answer", "think")] == [
        "find",
        "search",
        "tool:answer",
        "tool:think",
    ]
