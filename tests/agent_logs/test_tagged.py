"""Conversations in our own tags, through templates of real families: nothing of them may be lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swirl.agent_logs.conversation import Call, LoggedConversation, LoggedTool, Message, Place, Role
from swirl.agent_logs.tagged import TaggedRenderer, turns_of
from swirl.core.errors import ModelError
from swirl.models.chat import Chat
from tests import families

MESSAGES = (
    Message(Role.SYSTEM, "Be brief."),
    Message(Role.USER, "Oslo and Rome?"),
    Message(
        Role.ASSISTANT, "I look.", calls=(Call("weather", '{"city": "Oslo"}'), Call("weather", '{"city": "Rome"}'))
    ),
    Message(Role.TOOL, "4"),
    Message(Role.TOOL, "20"),
    Message(Role.ASSISTANT, "Rome."),
    Message(Role.ASSISTANT, "By far."),
)
CONVERSATION = LoggedConversation(
    id="x",
    session="",
    question="Oslo and Rome?",
    answers=(),
    tools=(LoggedTool("weather", "The weather.", "{}"),),
    messages=MESSAGES,
    actions=(2, 5, 6),
    places=tuple(Place("log.jsonl", 7, turn) for turn in range(1, 8)),
)
ACTION = 'I look.\n<weather> {"city": "Oslo"} </weather>\n<weather> {"city": "Rome"} </weather>'


def test_a_conversation_is_turns_that_alternate() -> None:
    assert [(turn.message, turn.text) for turn in turns_of(CONVERSATION)] == [
        (-1, "<weather> ... </weather>: The weather. arguments: {}\n\nBe brief.\n\nOslo and Rome?"),
        (2, ACTION),
        (-1, "4\n\n20"),
        (5, "Rome."),
        (-1, "go on"),
        (6, "By far."),
    ]


@pytest.mark.parametrize("family", ["gemma2", "llama3", "qwen3", "smollm2"])
def test_templates_of_real_families_keep_all_of_it(family: str) -> None:
    rendered = TaggedRenderer(Chat(getattr(families, family)())).render(CONVERSATION)
    assert rendered.count(ACTION) == 1 and rendered.index("Oslo and Rome?") < rendered.index(ACTION)


def test_a_tokenizer_that_cannot_write_a_text_is_refused_with_the_place() -> None:
    from tests.tiny import chat

    snow = replace(CONVERSATION, messages=(*MESSAGES[:3], Message(Role.TOOL, "\u2603"), *MESSAGES[4:]))
    with pytest.raises(ModelError, match=r"log.jsonl, line 7, turn 4: .* loses the result '\u2603'"):
        TaggedRenderer(chat()).render(snow)


def test_a_template_that_drops_a_turn_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = Chat(families.smollm2())
    monkeypatch.setattr(made, "markup", lambda turns: Chat.markup(made, turns[:1] + turns[2:]))
    with pytest.raises(ModelError, match=r"turn 3: .* loses the text of the assistant 'I look.'"):
        TaggedRenderer(made).render(CONVERSATION)
