"""Conversations in splits: whole groups, the numbers that were asked for at most, the same every time."""

from __future__ import annotations

from collections import Counter

import pytest

from swirl.agent_logs.conversation import Call, LoggedConversation, LoggedTool, Message, Place, Role
from swirl.agent_logs.splitting import split_groups
from swirl.agent_logs.stored import from_content, to_content

GROUPS = [number // 3 for number in range(60)]
"""Twenty groups of three."""


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits_and_no_split_is_larger_than_asked(seed: int) -> None:
    found = split_groups(GROUPS, {"evaluation": 10, "development": 6, "train": None}, seed)
    assert Counter(found) == {"evaluation": 9, "development": 6, "train": 45}
    assert len({(group, split) for group, split in zip(GROUPS, found, strict=True)}) == 20


def test_a_group_that_fits_nowhere_is_in_no_split() -> None:
    groups = ["large"] * 5 + ["small"]
    found = split_groups(groups, {"evaluation": 2, "train": 4}, 0)
    assert found == ["", "", "", "", "", "evaluation"]
    assert split_groups(groups, {"train": None, "evaluation": 2}, 0) == ["train"] * 5 + ["evaluation"]


def test_the_seed_decides_and_nothing_else() -> None:
    wanted = {"evaluation": 9, "train": None}
    assert split_groups(GROUPS, wanted, 1) == split_groups(GROUPS, wanted, 1)
    assert split_groups(GROUPS, wanted, 1) != split_groups(GROUPS, wanted, 2)
    renamed = [f"g{group}" for group in GROUPS]
    assert split_groups(renamed, wanted, 1) == split_groups(GROUPS, wanted, 1)


def conversation(text: str) -> LoggedConversation:
    messages = (
        Message(Role.USER, text),
        Message(Role.ASSISTANT, "", thought="hm", calls=(Call("find", '{"q": 1}', "c"),), model="m"),
        Message(Role.TOOL, "four", call_id="c", error=True),
        Message(Role.ASSISTANT, "4"),
    )
    places = tuple(Place("a.jsonl", 7, turn) for turn in range(1, 5))
    return LoggedConversation("x", "s", text, ("4",), (LoggedTool("find", "d", "{}"),), messages, (1, 3), places)


def test_a_stored_conversation_is_read_back_as_it_was() -> None:
    one = conversation("Wo ist 日本? \u2028 \x00 \U0001f600")
    content, half = to_content(one)
    assert from_content(content) == one and not half


def test_half_a_character_is_made_a_question_mark_and_said() -> None:
    content, half = to_content(conversation("smile \ud83d end"))
    assert half and from_content(content).messages[0].text == "smile ? end"
