"""Logs in a model's own format: the tokens are the template's, nothing is lost, and the past is cut where it must."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from swirl.agent_logs.conversation import NO_OUTPUT, Call, LoggedConversation, LoggedTool, Message, Place, Role
from swirl.agent_logs.logs import Logs
from swirl.agent_logs.native import NativeRenderer
from swirl.agent_logs.tokenised import NO_REPLY, trajectory_of
from swirl.agent_logs.written_turns import cuts_of
from swirl.core.errors import ModelError
from swirl.core.types import Action, Observation, Trajectory
from swirl.models.native_chat import NativeChat
from swirl.rollout.turns import Agreement, NativeTurnReader, agreement
from swirl.tools.schemas import Signatures
from tests import tool_templates
from tests.tool_templates import HERMES, MISTRAL, OURS, THINKING, needs_trl, tokenizer

Json = dict[str, Any]
Past = Literal["none", "keep", "strip"]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOL: Json = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
LATER = ("qwen3_5_think", "qwen3_5_nothink", "qwen3_6")
"""Templates that write a thought in a loop of calls, and none before a text that a user answered."""
REAL = ("qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1", "llama3_2")


def chat_of(name: str, past: Past = "none") -> NativeChat:
    template = OURS[name] if name in OURS else tool_templates.real(name) if name in (*REAL, *LATER) else name
    return NativeChat(tokenizer(template), thinking=past != "none", strip=past == "strip")


def asked(text: str) -> Message:
    return Message(Role.USER, text)


def said(text: str, *calls: Call, thought: str = "") -> Message:
    return Message(Role.ASSISTANT, text, thought, calls=calls)


def seen(text: str) -> Message:
    return Message(Role.TOOL, text)


def oslo(id: str = "") -> Call:
    return Call("weather", '{"city":"Oslo", "days": 2}', id)


def log(*messages: Message, actions: tuple[int, ...] | None = None) -> LoggedConversation:
    own = tuple(index for index, message in enumerate(messages) if message.role is Role.ASSISTANT)
    tools = (LoggedTool("weather", "The weather.", json.dumps(SCHEMA)),)
    places = tuple(Place("log.jsonl", 7, turn) for turn in range(1, len(messages) + 1))
    return LoggedConversation("x", "", "?", (), tools, messages, own if actions is None else actions, places)


LONG = log(
    Message(Role.SYSTEM, "Be brief."),
    asked('Oslo, "now"?'),
    said("", oslo("call_7")),
    seen('4 "degrees"\n'),
    said("4 degrees."),
    asked("And now?"),
    said("", oslo()),
    seen("5"),
    said("5 degrees."),
)


def template_messages(conversation: LoggedConversation) -> list[Json]:
    """The messages as a client would send them to a server of the model."""
    found: list[Json] = []
    for message in conversation.messages:
        one: Json = {"role": str(message.role), "content": message.text}
        if message.calls:
            one["tool_calls"] = [
                {"type": "function", "id": "abcdef123", "function": {"name": c.name, "arguments": c.value}}
                for c in message.calls
            ]
        if message.thought:
            one["reasoning_content"] = message.thought
        if message.role is Role.TOOL:
            one |= {"name": "weather", "tool_call_id": "abcdef123"}
        found.append(one)
    return found


def sent(chat: NativeChat, conversation: LoggedConversation, count: int, thinking: bool) -> list[int]:
    """The tokens that the tokenizer itself gives for the first messages, up to where the model's turn starts."""
    ids = chat.tokenizer.apply_chat_template(
        template_messages(conversation)[:count], tools=[TOOL], add_generation_prompt=True, return_dict=False,
        enable_thinking=thinking, date_string="26 Jul 2024",
    )  # fmt: skip
    return [int(i) for i in ids]


def states(made: Trajectory) -> list[list[int]]:
    return [list(made.state_ids(step.index)) for step in made.steps]


@pytest.mark.parametrize("name", ["hermes", "llama", *(pytest.param(name, marks=needs_trl) for name in REAL)])
def test_every_state_is_what_the_template_writes(name: str) -> None:
    past: Past = "strip" if name == "qwen3" else "none"  # without, past turns keep the empty thought that it drops
    chat = chat_of(name, past)
    made = trajectory_of(LONG, chat, "desk")
    assert states(made) == [sent(chat, LONG, index, past != "none") for index in LONG.actions]
    assert [step.action.kind for step in made.steps] == ["weather", "think", "weather", "answer"]
    calls = [chat.grammar.read(step.action.text).calls for step in made.steps]
    assert [[(one.name, one.arguments) for one in of_turn] for of_turn in calls] == [
        [("weather", {"city": "Oslo", "days": 2})], [], [("weather", {"city": "Oslo", "days": 2})], []
    ]  # fmt: skip
    assert len(made.pieces) == 1 and made.answer == "5 degrees."
    NativeRenderer(chat).render(LONG)


@pytest.mark.parametrize("name", ["hermes", *(pytest.param(name, marks=needs_trl) for name in REAL[:3])])
def test_several_calls_of_a_turn_and_their_results(name: str) -> None:
    past: Past = "strip" if name == "qwen3" else "none"
    chat = chat_of(name, past)
    twice = log(
        asked("?"), said("I look.", oslo(), oslo()), seen("4"), seen("5"), said("", oslo()), seen("6"), said("x")
    )
    made = trajectory_of(twice, chat, "desk")
    assert states(made) == [sent(chat, twice, index, past != "none") for index in (1, 4, 6)]
    assert len(chat.grammar.read(made.steps[0].action.text).calls) == 2 and len(made.pieces) == 1
    NativeRenderer(chat).render(twice)


@needs_trl
def test_an_empty_thought_that_a_template_drops_stays_as_in_a_rollout() -> None:
    chat = chat_of("qwen3")
    made = trajectory_of(LONG, chat, "desk")
    assert len(made.pieces) == 1
    text = chat.markup(made.state_ids(3))
    assert text.count("<think>\n\n</think>\n\n") == 4 and text.endswith("<think>\n\n</think>\n\n")
    assert [chat.markup(made.state_ids(0))] == [chat.markup(sent(chat, LONG, 2, False))]


def test_steps_have_the_calls_and_results_of_the_log() -> None:
    two = log(
        asked("Oslo twice?"), said("I look.", oslo(), oslo()), seen("4"), seen(NO_OUTPUT), said("4."), said("Really.")
    )
    made = trajectory_of(two, chat_of("hermes"), "desk")
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>'
    assert [step.action for step in made.steps] == [
        Action("weather", f"I look.\n{call}\n{call}", '{"city":"Oslo", "days": 2}'),
        Action("think", "4.", ""),
        Action("answer", "Really.", "Really."),
    ]
    arguments = '{"city":"Oslo", "days": 2}'
    assert [step.observations for step in made.steps] == [
        (Observation("4", False, "weather", arguments), Observation(NO_OUTPUT, False, "weather", arguments)),
        (Observation(NO_REPLY, False),),
        (),
    ]


def test_a_turn_that_is_state_only_lies_between_two_actions() -> None:
    chat = chat_of("hermes")
    whole = trajectory_of(LONG, chat, "desk")
    made = trajectory_of(replace(LONG, actions=(2, 8)), chat, "desk")
    assert states(made) == [states(whole)[0], states(whole)[3]]
    later = trajectory_of(replace(LONG, actions=(4,)), chat, "desk")
    assert list(later.prompt_ids) == states(whole)[1]


def test_arguments_that_are_no_json_and_an_unknown_tool_are_what_the_model_did() -> None:
    broken = log(
        asked("?"), said("", Call("weather", '{"city": Oslo')), seen("error"), said("", Call("teleport", "{}")),
        seen("error"), said("No.")
    )  # fmt: skip
    for name in ("hermes", "llama", "named", "mistral"):
        chat = chat_of(name)
        NativeRenderer(chat).render(broken)
        made = trajectory_of(broken, chat, "desk")
        assert [step.action.kind for step in made.steps] == ["malformed", "malformed", "answer"]
        assert '{"city": Oslo' in made.steps[0].action.text
    with pytest.raises(ModelError, match="turn 2: .* loses the argument"):
        NativeRenderer(chat_of("coder")).render(broken)


def test_ids_need_not_show_and_those_that_every_template_takes_do() -> None:
    made = trajectory_of(log(asked("?"), said("", oslo("toolu_01A")), seen("4"), said("", oslo("abcDEF123"))),
                         chat_of("mistral"), "desk")  # fmt: skip
    assert made.steps[0].action.text.endswith('"id": "call00000"}]')
    assert made.steps[1].action.text.endswith('"id": "abcDEF123"}]')


@pytest.mark.parametrize("name", ["hermes", "named", "coder"])
def test_foreign_text_holds_no_special_token(name: str) -> None:
    """Texts, results, arguments and descriptions that name special tokens, as hostile ones do."""
    chat = chat_of(name)
    names = [one for one in chat.special_names if len(one) > 1]
    evil = " ".join(names)
    call = Call("weather", json.dumps({"city": evil}))
    hostile = log(asked(evil), said("", call), seen(evil), said(f"a {evil} b"))
    hostile = replace(hostile, tools=(LoggedTool("weather", f"The weather. {evil}", json.dumps(SCHEMA)),))
    plain = log(asked("x"), said("", Call("weather", '{"city": "x"}')), seen("x"), said("a b"))

    def special(conversation: LoggedConversation) -> list[int]:
        made = trajectory_of(conversation, chat, "desk")
        return [i for i in (*made.state_ids(1), *made.steps[1].token_ids) if i in chat._special]

    NativeRenderer(chat).render(hostile)
    assert special(hostile) == special(plain)
    made = trajectory_of(hostile, chat, "desk")
    assert evil in chat.markup(made.prompt_ids) and made.steps[1].action.text == f"a {evil} b"


def gone(template: str, part: str, by: str = "") -> str:
    assert part in template
    return template.replace(part, by)


TWO = log(asked("?"), said("", oslo(), oslo()), seen("4"), seen("5"), said("4 and 5."))
BESIDE = log(asked("?"), said("I look.", oslo()), seen("4"), said("4."))
LATE = log(asked("?"), said("4."), Message(Role.SYSTEM, "Be polite."), asked("And?"), said("5."))
LOST = [
    ("llama", TWO, r"turn 2: the chat template refuses several calls: one call at a time; use actions.format: tags"),
    ("llama", BESIDE, r"turn 2: .* loses the text beside a call: 'I look.'; use actions.format: tags"),
    (MISTRAL, LONG, r"log.jsonl, line 7, turn 1: .* loses the turn of the system 'Be brief.'; use actions.format"),
    (gone(HERMES, "{%- elif m.role == 'tool' %}", "{%- elif m.role == 'system' and not loop.first %}"
          "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}{%- elif m.role == 'tool' %}"),
     LATE, "turn 3: .* loses the role of the system turn 'Be polite.'"),
    (HERMES, LATE, "turn 3: .* loses the (role|turn) of the system"),
    (gone(HERMES, "'<|im_start|>user\\n' + m.content", "'<|im_start|>user\\n' + m.content[:20]"),
     log(asked("How warm is it in Oslo today?"), said("4.")), "turn 1: .* loses the turn of the user 'How warm"),
    (gone(HERMES, "tool|tojson + '\\n'", "(tool|tojson)[:4000] + '\\n'"),
     replace(LONG, tools=(LoggedTool("weather", "w" * 5000, "{}"),)), "loses the description of the tool weather:"),
    (gone(HERMES, "item.arguments|tojson", "((item.arguments|tojson) if item.arguments|length < 3 else '{}')"),
     log(asked("?"), said("", Call("weather", '{"a": 1, "b": 2, "c": 3}'))), r"turn 2: .* loses the argument"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "conversation", "why"), LOST)
def test_what_a_template_loses_of_a_log_is_an_error_with_its_place(
    template: str, conversation: LoggedConversation, why: str
) -> None:
    with pytest.raises(ModelError, match=why):
        NativeRenderer(chat_of(template)).render(conversation)


@needs_trl
def test_a_mark_of_thoughts_in_a_text_is_not_lost_silently() -> None:
    mark = log(asked("?"), said("Write </think> there."), asked("Why?"), said("So."))
    with pytest.raises(ModelError, match="turn 2: .* loses the text of the assistant 'Write </think> there.'"):
        NativeRenderer(chat_of("qwen3")).render(mark)


def test_tools_that_a_later_user_turn_moves_begin_a_new_piece() -> None:
    chat = chat_of("mistral")
    moved = log(asked("A?"), said("", oslo("abcdef123")), seen("4"), said("4."), asked("B?"), said("5."))
    made = trajectory_of(moved, chat, "desk")
    assert [[step.index for step in piece] for piece in made.pieces] == [[0, 1], [2]]
    assert states(made)[0] == sent(chat, moved, 1, False) and states(made)[2] == sent(chat, moved, 5, False)
    assert made.steps[1].observation_ids == () and NativeRenderer(chat).cuts(moved) == 1


THOUGHTFUL = log(
    asked("Oslo?"),
    said("", oslo(), thought="I <tool_call> think."),
    seen("4"),
    said("4.", thought="Four."),
    asked("Sure?"),
    said("Yes."),
)
THOUGHTS = ["<think>\nI <tool_call> think.\n</think>\n\n", "<think>\nFour.\n</think>\n\n", ""]


@needs_trl
def test_thoughts_are_stripped_where_the_template_strips_them_and_states_begin_anew_there() -> None:
    """Qwen3 keeps thoughts within a loop of calls, and drops them when the user goes on."""
    chat = chat_of("qwen3", "strip")
    made = trajectory_of(THOUGHTFUL, chat, "desk")
    assert states(made) == [sent(chat, THOUGHTFUL, index, True) for index in (1, 3, 5)]
    assert [[step.index for step in piece] for piece in made.pieces] == [[0, 1], [2]]
    assert "<think>" in chat.markup(made.state_ids(1)) and "<think>" not in chat.markup(made.state_ids(2))
    assert [step.action.text.partition("<tool_call>\n")[0] for step in made.steps[1:]] == [f"{THOUGHTS[1]}4.", "Yes."]
    assert made.steps[0].action.text.startswith(f"{THOUGHTS[0]}<tool_call>\n{{")
    assert [step.action.kind for step in made.steps] == ["weather", "think", "answer"]
    assert NativeRenderer(chat).cuts(THOUGHTFUL) == 1
    assert chat.notes[-1].startswith("the chat template drops thoughts of turns before the last user turn")


@needs_trl
def test_thoughts_stay_where_they_are_kept_and_are_no_part_of_it_without() -> None:
    kept, bare = (trajectory_of(THOUGHTFUL, chat_of("qwen3", past), "desk") for past in ("keep", "none"))
    chat = chat_of("qwen3", "keep")
    assert len(kept.pieces) == len(bare.pieces) == 1
    assert chat.markup(kept.state_ids(2)).count("think.\n</think>") == 1
    assert chat.markup(kept.state_ids(2)).count("Four.\n</think>") == 1
    assert "Four." not in chat.markup(bare.state_ids(2))
    assert [step.action.text for step in bare.steps[1:]] == ["4.", "Yes."]


def test_a_template_that_drops_every_past_thought_makes_a_piece_of_each_turn_after_one() -> None:
    chat = NativeChat(tokenizer(THINKING), thinking=True, strip=True)
    once = log(asked("Oslo?"), said("", oslo(), thought="Look."), seen("4"), said("4.", thought="Four."))
    made = trajectory_of(once, chat, "desk")
    assert [step.action.text.partition("</think>")[0] for step in made.steps] == ["Look.", "Four."]
    assert [len(piece) for piece in made.pieces] == [1, 1]
    assert "Look." not in chat.markup(made.state_ids(1)) and made.steps[0].observation_ids == ()


@needs_trl
@pytest.mark.parametrize("past", ["none", "keep", "strip"])
@pytest.mark.parametrize("name", LATER)
def test_a_text_turn_may_begin_otherwise_than_one_with_calls(name: str, past: Past) -> None:
    chat = chat_of(name, past)
    talk = log(asked("Oslo?"), said("", oslo()), seen("4"), said("4 degrees."), asked("Sure?"), said("Yes."))
    NativeRenderer(chat).render(talk)
    made = trajectory_of(talk, chat, "desk")
    assert [step.action.payload for step in made.steps[2:]] == ["Yes."]
    assert chat.text(made.steps[1].token_ids).endswith("4 degrees.")
    if past == "strip":
        shown = [chat.markup(sent(chat, talk, index, True)) for index in talk.actions]
        assert [chat.markup(ids) for ids in states(made)] == shown  # tokens part where a reply begins


@pytest.mark.parametrize("name", ["hermes", pytest.param("qwen2_5", marks=needs_trl)])
def test_thoughts_stay_under_strip_in_the_form_in_which_the_template_shows_them(name: str) -> None:
    """They are part of the content there, as a rollout has them."""
    chat = chat_of(name, "strip")
    assert not chat.strips and chat.notes[-1].startswith("the chat template keeps thoughts")
    made = trajectory_of(THOUGHTFUL, chat, "desk")
    assert len(made.pieces) == 1 and NativeRenderer(chat).cuts(THOUGHTFUL) == 0
    assert [chat.markup(made.state_ids(2)).count(thought) for thought in THOUGHTS[:2]] == [1, 1]


@pytest.mark.parametrize(
    "text", ["zqSPECIAL999zq", "zqSPECIAL0zq", '{"zqRAW7zq": ""}', "zqRAW0zq", "zqSPECIALzqSPECIAL1zq"]
)
def test_what_looks_like_a_mark_of_ours_is_text(text: str) -> None:
    chat = chat_of("hermes")
    bad = Call("weather", "{" + text, "")
    hostile = log(
        asked(text), said("", bad, Call("weather", json.dumps({"city": text}))), seen(text), said(f"It is {text}.")
    )
    hostile = replace(hostile, tools=(replace(hostile.tools[0], description=text),))
    NativeRenderer(chat).render(hostile)
    made = trajectory_of(hostile, chat, "desk")
    state = chat.markup(made.state_ids(1))
    assert state.count(text) + state.count(json.dumps(text)[1:-1]) * (json.dumps(text)[1:-1] != text) == 5
    assert made.steps[1].action.text == f"It is {text}."


def test_arguments_that_no_tokenizer_takes_that_go_deep_or_say_a_key_twice() -> None:
    chat = chat_of("hermes")
    deep = '{"city": ' + "[" * 700 + "]" * 700 + "}"
    twice = '{"city": "A", "city": "B"}'
    for arguments, shown in (('{"city": "\\ud83d"}', '{"city": "?"}'), (deep, deep), (twice, twice)):
        talk = log(asked("?"), said("", Call("weather", arguments)), seen("4"), said("4."))
        NativeRenderer(chat).render(talk)
        assert shown in trajectory_of(talk, chat, "desk").steps[0].action.text


def test_a_greeting_before_the_first_question_is_part_of_the_states_and_no_action() -> None:
    chat = chat_of("hermes")
    greeted = log(said("Hello, how can I help?"), asked("Oslo?"), said("4."), actions=(2,))
    made = trajectory_of(greeted, chat, "desk")
    assert states(made) == [sent(chat, greeted, 2, False)] and "Hello" in chat.markup(made.state_ids(0))
    with pytest.raises(ModelError, match=r"log.jsonl, line 7, turn 1: nothing precedes this turn of the assistant"):
        trajectory_of(replace(greeted, actions=(0, 2)), chat, "desk")


def test_white_space_at_the_end_of_a_turn_is_no_rewrite_where_the_template_varies_it() -> None:
    spaced = HERMES.replace(
        "</tool_response>\\n' }}", "</tool_response>' }}{% if not loop.last %}{{ '\\n' }}{% endif %}"
    )
    chat = NativeChat(tokenizer(spaced))
    talk = log(asked("?"), said("", oslo()), seen("4"), said("four \n"), asked("Sure?"), said("Yes."))
    made = trajectory_of(talk, chat, "desk")
    assert chat.spaced and len(made.pieces) == 1 and made.steps[2].action.payload == "Yes."


def test_a_state_that_is_no_action_may_begin_anew() -> None:
    turns = [(1, True), (3, True), (5, False), (7, True)]
    assert (cuts_of(turns, (1, 5, 7)), cuts_of(turns, (1, 7)), cuts_of(turns, (3,)), cuts_of([], ())) == (2, 1, 0, 0)


CALLED = '<tool_call>\n{"name": "weather", "arguments": {"days": 2, "city": "Oslo"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("drawn", "same", "kind"),
    [
        (CALLED, Agreement(True, True), "weather"),
        (f"<think>\nI say <tool_call>.\n</think>\n\nI look.\n{CALLED}", Agreement(True, True), "weather"),
        (CALLED.replace("Oslo", "Rome"), Agreement(True, False), "weather"),
        (f"{CALLED}\n{CALLED}", Agreement(False, False), "weather"),
        (CALLED.replace("weather", "teleport"), Agreement(False, False), "malformed"),
        (f"{CALLED} and more", Agreement(False, False), "malformed"),
        ("<tool_call>\n{", Agreement(False, False), "malformed"),
        ("<think> endless", Agreement(False, False), "malformed"),
        ("4 degrees.", Agreement(False, False), "answer"),
        ("", Agreement(False, False), "malformed"),
    ],
)
def test_drawn_actions_are_read_in_the_template_s_own_grammar(drawn: str, same: Agreement, kind: str) -> None:
    chat = chat_of("hermes")
    tags = Signatures([])
    tags["weather"] = "weather"
    reader = NativeTurnReader(chat, tags)
    logged = trajectory_of(LONG, chat, "desk").steps[0].action.text
    assert agreement(reader.calls_in(logged), reader.calls_in(drawn)) == same
    assert reader.read(chat.reply(drawn)).kind == kind
    assert reader.read(chat.encode(drawn) or (chat.encode("x"))).kind == "cut"


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Oslo?"}]
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SEEN = {"role": "tool", "tool_call_id": "c1", "content": "4"}
ANSWER = {"role": "assistant", "content": "4 degrees"}


def reply(message: Json) -> Json:
    return {"model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def chat_line() -> list[Json]:
    return [{"messages": [*ASKED, CALLS, SEEN, ANSWER], "tools": [TOOL]}]


def chat_requests() -> list[Json]:
    return [
        {"request": {"messages": ASKED, "tools": [TOOL]}, "response": reply(CALLS)},
        {"request": {"messages": [*ASKED, CALLS, SEEN], "tools": [TOOL]}, "response": reply(ANSWER)},
    ]


def responses() -> list[Json]:
    flat = {"type": "function", **TOOL["function"]}
    fetch = {"type": "function_call", "id": "fc_9", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
    fetched = {"type": "function_call_output", "call_id": "c1", "output": "4"}
    spoken = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4 degrees"}]}
    more = {"instructions": "Be brief.", "tools": [flat]}
    done = {"status": "completed"}
    return [
        {"request": {**more, "input": "Oslo?"}, "response": {"id": "r1", "output": [fetch], **done}},
        {"request": {**more, "input": [fetched], "previous_response_id": "r1"},
         "response": {"id": "r2", "output": [spoken], **done}},
    ]  # fmt: skip


def anthropic() -> list[Json]:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
    given = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "4"}]}
    return [
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "tools": [{"name": "weather", "description": "The weather.", "input_schema": SCHEMA}],
            "messages": [
                {"role": "user", "content": "Oslo?"},
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [given]},
                {"role": "assistant", "content": [{"type": "text", "text": "4 degrees"}]},
            ],
        }
    ]


def mlflow() -> list[Json]:
    def span(name: str, request: Json, answer: Json, start: int) -> Json:
        values = {"mlflow.spanType": "CHAT_MODEL", "mlflow.spanInputs": request, "mlflow.spanOutputs": answer}
        attributes = {key: json.dumps(value) for key, value in values.items()}
        return {"span_id": name, "parent_span_id": None, "start_time_unix_nano": start, "attributes": attributes}

    pairs = [(row["request"], row["response"]) for row in chat_requests()]
    spans = [span(f"s{number}", *pair, number) for number, pair in enumerate(pairs)]
    return [{"info": {"trace_id": "tr-1"}, "data": {"spans": spans}}]


FORMATS: dict[str, Callable[[], list[Json]]] = {
    "a conversation a line": chat_line,
    "a request a line": chat_requests,
    "Responses": responses,
    "Anthropic": anthropic,
    "MLflow": mlflow,
}


@pytest.mark.parametrize("name", ["hermes", *(pytest.param(name, marks=needs_trl) for name in REAL)])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_logs_gives_the_tokens_of_the_template(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in FORMATS[form]()), encoding="utf-8")
    logs = Logs([path])
    logs.read()
    (found,) = logs.conversations()
    past: Past = "strip" if name == "qwen3" else "none"
    chat = chat_of(name, past)
    shown = NativeRenderer(chat).render(found)
    assert [shown.count(text) for text in ("Be brief.", "Oslo?", "4 degrees")] == [1, 1, 1]
    made = trajectory_of(found, chat, "desk")
    source = log(Message(Role.SYSTEM, "Be brief."), asked("Oslo?"), said("", Call("weather", '{"city": "Oslo"}')),
                 seen("4"), said("4 degrees"))  # fmt: skip
    assert states(made) == [sent(chat, source, index, past != "none") for index in (2, 4)]
    (call,) = chat.grammar.read(made.steps[0].action.text).calls
    assert (call.name, call.arguments, made.answer) == ("weather", {"city": "Oslo"}, "4 degrees")
