"""Long loops of calls: the states cut from one rendering are those that the template writes one by one."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

import pytest

from swirl.agent_logs import shared_states
from swirl.agent_logs.conversation import Call, LoggedConversation, LoggedTool, Message, Place, Role
from swirl.agent_logs.native import NativeRenderer
from swirl.agent_logs.shared_states import loops_of
from swirl.agent_logs.written_turns import WrittenTurn
from swirl.core.errors import ModelError
from swirl.models.native_chat import NativeChat
from tests import tool_templates
from tests.tool_templates import HERMES, MISTRAL, OURS, needs_trl, tokenizer

Past = Literal["none", "keep", "strip"]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
REAL = ("qwen2_5", "qwen3", "llama3_1", "qwen3_5_think", "qwen3_5_nothink", "qwen3_6")
ASKED = Message(Role.USER, "Oslo?")
SEEN = Message(Role.TOOL, "4 degrees")


def called(text: str = "", calls: int = 1, thought: str = "") -> Message:
    made = tuple(Call("weather", json.dumps({"city": f"Oslo {index}"})) for index in range(calls))
    return Message(Role.ASSISTANT, text, thought, calls=made)


def said(text: str, thought: str = "") -> Message:
    return Message(Role.ASSISTANT, text, thought)


def log(*messages: Message) -> LoggedConversation:
    actions = tuple(index for index, message in enumerate(messages) if index and message.role is Role.ASSISTANT)
    tools = (LoggedTool("weather", "The weather.", json.dumps(SCHEMA)),)
    places = tuple(Place("log.jsonl", 7, turn) for turn in range(1, len(messages) + 1))
    return LoggedConversation("x", "", "?", (), tools, messages, actions, places)


def loop(turns: int, text: str = "", thought: str = "") -> list[Message]:
    return [called(text, thought=thought), SEEN] * turns


def count_renderings(chat: NativeChat, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each rendering has from now on."""
    counts = list[int]()
    whole = chat.render

    def render(messages: Any, *rest: Any, **more: Any) -> str:
        counts.append(len(messages))
        return whole(messages, *rest, **more)

    monkeypatch.setattr(chat, "render", render)
    return counts


def both(chat: NativeChat, talk: LoggedConversation, monkeypatch: pytest.MonkeyPatch) -> list[list[WrittenTurn]]:
    """The turns, with states that are shared however short the loop is, and without."""
    found = []
    for least in (2, 10**9):
        monkeypatch.setattr(shared_states, "LONG", least)
        found.append(list(NativeRenderer(chat).turns(talk)))
    return found


def test_loops_are_turns_with_results_alone_between_them() -> None:
    messages = [
        said("Hello"), ASKED, called(), SEEN, called(calls=2), SEEN, SEEN, called(), SEEN, said("4."),
        ASKED, called(), SEEN, called(), ASKED, said("5."), said("6."),
    ]  # fmt: skip
    assert loops_of(messages) == [[4, 7, 9], [13]]
    assert loops_of([SEEN, said("4.")]) == [] and loops_of([ASKED, SEEN, said("4.")]) == []


def test_a_long_loop_is_rendered_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = NativeChat(tokenizer(HERMES))
    talk = log(ASKED, *loop(100), said("4."))
    counts = count_renderings(chat, monkeypatch)
    turns = list(NativeRenderer(chat).turns(talk))
    assert len(turns) == 101 and [turn.anew for turn in turns] == [True] + [False] * 100
    assert [count for count in counts if count > 5] == [202, 201], "the whole, and the loop's last state"


@pytest.mark.parametrize("past", ["none", "keep", "strip"])
@pytest.mark.parametrize("name", [*OURS, *(pytest.param(name, marks=needs_trl) for name in REAL)])
def test_the_turns_are_those_of_every_state_rendered(name: str, past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    template = OURS[name] if name in OURS else tool_templates.real(name)
    chat = NativeChat(tokenizer(template), thinking=past != "none", strip=past == "strip")
    draw = random.Random(3)
    compared = 0
    for _ in range(6):
        messages = [said("Hello")] if draw.random() < 0.3 else []
        for _ in range(draw.randint(1, 3)):
            messages.append(ASKED)
            for _ in range(draw.randint(1, 9)):
                calls, text = draw.choice([1, 1, 2]), draw.choice(["", "", "I look.", "a </think> b"])
                messages += [called(text, calls, draw.choice(["", "Hm."])), *[SEEN] * calls]
            messages.append(said(draw.choice(["4.", "<|im_start|>assistant\n", "[INST]"]), draw.choice(["", "Yes."])))
        try:
            one, other = both(chat, log(*messages), monkeypatch)
        except ModelError:  # a template that cannot write two calls of a turn, or a text beside one
            messages = [*messages[: messages.index(ASKED) + 1], *loop(9), said("4."), ASKED, *loop(9), said("5.")]
            one, other = both(chat, log(*messages), monkeypatch)
        assert one == other
        compared += len(one)
    assert compared > 60


RESULT, TEXT = "+ m.content + '\\n</tool_response>", "assistant\\n' + m.content }}"


@pytest.mark.parametrize(
    "template",
    [
        MISTRAL,  # shows the tools before the last user turn
        HERMES.replace(RESULT, RESULT.replace("m.content", "('' if loop.index < loop.length - 4 else m.content)")),
        HERMES.replace(TEXT, TEXT.replace("m.content", "(m.content if loop.index > loop.length - 3 else '')")),
    ],
    ids=["tools that move", "results of the last turns alone", "the text of the last turn alone"],
)
def test_a_template_that_rewrites_a_loop_is_rendered_state_by_state(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert template != HERMES
    chat = NativeChat(tokenizer(template))
    middle = [] if template == MISTRAL else [called("I look."), SEEN]
    talk = log(ASKED, *loop(9), *middle, *loop(9), said("4."), ASKED, *loop(9), said("5."))
    one, other = both(chat, talk, monkeypatch)
    assert one == other and any(turn.anew for turn in one[1:])


def test_what_a_template_refuses_is_said_of_its_turn() -> None:
    refusing = HERMES.replace(TEXT, TEXT + "{% if m.content == 'no' %}{{ raise_exception('not no') }}{% endif %}")
    renderer = NativeRenderer(NativeChat(tokenizer(refusing)))
    with pytest.raises(ModelError, match=r"^log.jsonl, line 7, turn 20: the chat template refuses .* not no"):
        list(renderer.turns(log(ASKED, *loop(9), said("no"), ASKED, *loop(9), said("4."))))
