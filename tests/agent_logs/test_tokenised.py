"""Logged conversations as trajectories: the tokens are those of the rendered conversation, cut where actions are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swirl.agent_logs.conversation import Call, Message, Place, Role
from swirl.agent_logs.tagged import turns_of
from swirl.agent_logs.tokenised import trajectory_of
from swirl.core.types import Action, Observation, Stop
from swirl.models.chat import Chat
from tests import families
from tests.agent_logs.test_tagged import ACTION, CONVERSATION

OSLO, ROME = '{"city": "Oslo"}', '{"city": "Rome"}'


@pytest.mark.parametrize("family", ["gemma2", "llama3", "smollm2"])
def test_the_tokens_are_those_of_the_rendered_conversation(family: str) -> None:
    chat = Chat(getattr(families, family)())
    made = trajectory_of(CONVERSATION, chat, "support")
    ids = [*made.state_ids(len(made.steps) - 1), *made.steps[-1].token_ids]
    whole = chat.markup([("", turn.text) for turn in turns_of(CONVERSATION)])
    assert whole.startswith(chat.tokenizer.decode(ids))
    assert [chat.text(step.token_ids) for step in made.steps] == [ACTION, "Rome.", "By far."]


def test_steps_have_the_calls_and_results_of_the_log() -> None:
    made = trajectory_of(CONVERSATION, Chat(families.smollm2()), "support")
    assert [step.action for step in made.steps] == [
        Action("weather", ACTION, OSLO), Action("think", "Rome.", ""), Action("answer", "By far.", "By far.")
    ]  # fmt: skip
    assert [step.observations for step in made.steps] == [
        (Observation("4", False, "weather", OSLO), Observation("20", False, "weather", ROME)),
        (Observation("go on", False),),
        (),
    ]
    assert (made.stop, made.answer, made.question_id) == (Stop.ANSWERED, "By far.", "support/x")


def test_a_turn_that_is_state_only_lies_between_two_actions() -> None:
    chat = Chat(families.smollm2())
    made, whole = (
        trajectory_of(replace(CONVERSATION, actions=(2, 6)), chat, "x"),
        trajectory_of(CONVERSATION, chat, "x"),
    )
    assert len(made.steps) == 2 and made.state_ids(1) == whole.state_ids(2)
    later = trajectory_of(replace(CONVERSATION, actions=(5, 6)), chat, "x")
    assert later.prompt_ids == whole.state_ids(1)


def test_a_bad_call_is_malformed_and_a_log_may_end_without_an_answer() -> None:
    bad = Message(Role.ASSISTANT, "", calls=(Call("weather", "{"),))
    log = replace(CONVERSATION, messages=(*CONVERSATION.messages[:2], bad), actions=(2,), places=(Place("f", 1),) * 3)
    made = trajectory_of(log, Chat(families.smollm2()), "x")
    assert made.steps[0].action == Action("malformed", "<weather> { </weather>", "")
    assert made.stop is Stop.STEP_LIMIT and made.steps[0].observations == ()
