"""The traps of agents' logs, one test each: literal lines, the exact steps, changes and what is left out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swirl.agent_logs import log_files
from swirl.agent_logs.arguments import unglued
from swirl.agent_logs.conversation import Call, LoggedConversation, LoggedTool, Role, StepKind
from swirl.agent_logs.exchanges import Change, Fault, LineFault, NoAction
from swirl.agent_logs.logs import Logs, Summary

Json = dict[str, Any]
Read = Callable[..., tuple[list[LoggedConversation], Summary]]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "options": {"type": "object"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": SCHEMA}}]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes lines (values, or bytes as they are) to a file and imports it."""

    def run(*lines: Any, **options: Any) -> tuple[list[LoggedConversation], Summary]:
        path = tmp_path / "log.jsonl"
        path.write_bytes(
            b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        )
        logs = Logs([path], **options)
        logs.read()
        return list(logs.conversations()), logs.summary

    return run


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> Json:
    return {"role": "assistant", "content": text, **more}


def call(arguments: Any = '{"city": "Oslo"}', id: str = "c1", name: str = "weather") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*several: Json, **more: Any) -> Json:
    return {"role": "assistant", "content": "", "tool_calls": list(several), **more}


def result(text: str = "4 degrees", id: str = "c1") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": text}


def conversation(*messages: Json, **more: Any) -> Json:
    return {"messages": list(messages), "tools": TOOLS, **more}


def request(history: list[Json], answer: Json, finish: str = "stop", **more: Any) -> Json:
    response = {"choices": [{"message": answer, "finish_reason": finish}]}
    if "id" in more:
        response["id"] = more.pop("id")
    return {"request": {"messages": history, "tools": TOOLS, "model": "m"}, "response": response, **more}


def lost(summary: Summary) -> list[tuple[int, int, str, str]]:
    return [(one.place.line, one.place.turn, one.unit, one.reason) for one in summary.left_out]


def steps(found: list[LoggedConversation]) -> list[list[int]]:
    return [list(one.actions) for one in found]


WHOLE = [SYSTEM, user("Weather in Oslo?"), calls(call()), result(), said("4 degrees.")]


def test_a_sound_conversation_needs_no_change(read: Read) -> None:
    found, summary = read(conversation(*WHOLE))
    assert steps(found) == [[2, 4]]
    assert (summary.conversations, summary.groups, summary.trajectories, summary.steps) == (1, 1, 1, 2)
    assert summary.changed == {} and summary.left_out == []
    (one,) = found
    assert one.question == "Weather in Oslo?"
    assert [one.kind(index) for index in one.actions] == [StepKind.CALL, StepKind.ANSWER]
    assert [message.role for message in one.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert one.tools == (LoggedTool("weather", "Weather.", json.dumps(SCHEMA)),)


def test_01_arguments_as_an_object(read: Read) -> None:
    found, summary = read(conversation(user("?"), calls(call({"city": "Oslo"})), result(), said("4")))
    (made,) = found[0].messages[1].calls
    assert made.arguments == '{"city": "Oslo"}' and made.value == {"city": "Oslo"}
    assert summary.changed == {Change.OBJECT: 1} and summary.left_out == []


def test_01_text_and_object_are_the_same_message(read: Read) -> None:
    history = [user("?")]
    echo = calls(call({"city": "Oslo"}))
    found, summary = read(
        request(history, calls(call('{"city":"Oslo"}'))), request([*history, echo, result()], said("4"))
    )
    assert steps(found) == [[1, 3]]
    assert found[0].messages[1].calls[0].arguments == '{"city":"Oslo"}', "the response's text, not the echo's"
    assert summary.changed == {}


def test_02_content_null_and_in_parts(read: Read) -> None:
    parts = [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Oslo?"}]
    found, summary = read(
        conversation({"role": "user", "content": parts}, {**calls(call()), "content": None}, result(""), said("4"))
    )
    assert [message.text for message in found[0].messages] == ["Weather in Oslo?", "", "(no output)", "4"]
    assert summary.changed == {Change.PARTS: 1, Change.NULL: 1, Change.NO_OUTPUT: 1} and summary.left_out == []


def test_02_an_image_is_left_out_from_there(read: Read) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}
    found, summary = read(conversation(user("Hello"), said("Hi"), image, said("A cat"), user("Sure?"), said("Yes")))
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 4, "step", Fault.PART), (1, 6, "step", Fault.PART)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"text": "4 degrees"}, "4 degrees"),
        ([{"text": "4 ", "type": None, "score": None}, {"text": "degrees", "index": 0}], "4 degrees"),
        ({"text": "4 degrees", "type": "text", "score": 1}, "4 degrees"),
        ({"text": "4 degrees", "status": "draft, do not use"}, None),
        ([{"text": "4 degrees", "score": 0.5}], None),
    ],
)
def test_02_an_object_with_a_text_among_others_is_no_text(read: Read, content: Any, text: str | None) -> None:
    found, summary = read(conversation(user("?"), calls(call()), {**result(), "content": content}, said("4")))
    if text is None:
        assert steps(found) == [[1]] and lost(summary) == [(1, 4, "step", Fault.PART)]
    else:
        assert steps(found) == [[1, 3]] and found[0].messages[2].text == text and summary.left_out == []


def test_02_a_refusal_is_the_text_of_an_answer(read: Read) -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"refusal": "I cannot."}, "finish_reason": "stop"}]}
    asked = {"request": {"messages": [user("?")]}, "response": [chunk]}
    attributes = {"spanType": "LLM", "spanInputs": asked["request"], "spanOutputs": {"choices": [{"message": refused}]}}
    span = {"span_id": "a", "attributes": {f"mlflow.{key}": json.dumps(value) for key, value in attributes.items()}}
    for line in (request([user("?")], refused), conversation(user("?"), refused), asked, {"spans": [span]}):
        found, summary = read(line)
        assert steps(found) == [[1]] and found[0].messages[1].text == "I cannot."
        assert summary.changed == {} and summary.left_out == []


def test_03_a_result_without_its_call(read: Read) -> None:
    found, summary = read(
        conversation(user("Hi"), said("Hello"), result(id="gone"), said("4"), user("Thanks"), said("Bye"))
    )
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 4, "step", Fault.ORPHAN), (1, 6, "step", Fault.ORPHAN)]


def test_04_a_call_without_a_result(read: Read) -> None:
    last, summary = read(conversation(user("?"), calls(call())))
    assert steps(last) == [[1]] and summary.left_out == []
    middle, summary = read(conversation(user("?"), calls(call()), user("Well?"), said("Sorry")))
    assert steps(middle) == [[1]]
    assert lost(summary) == [(1, 4, "step", Fault.UNANSWERED)]
    cancelled, summary = read(conversation(user("?"), calls(call()), result("[cancelled]"), user("Go on"), said("Ok")))
    assert steps(cancelled) == [[1, 4]] and summary.left_out == []


def test_04_a_request_that_was_sent_with_an_open_call(read: Read) -> None:
    _, summary = read(request([user("?"), calls(call())], said("Sorry")))
    assert lost(summary)[0] == (1, 2, "step", NoAction.ECHO)
    assert lost(summary)[1] == (1, 3, "step", Fault.UNANSWERED)


def test_05_ids_used_again(read: Read) -> None:
    found, summary = read(
        conversation(
            user("?"), calls(call(id="call_0")), result("4", "call_0"), calls(call('{"city": "Rome"}', "call_0")),
            result("20", "call_0"), said("Rome is warmer"),
        )
    )  # fmt: skip
    assert steps(found) == [[1, 3, 5]]
    assert [m.text for m in found[0].messages if m.role is Role.TOOL] == ["4", "20"]
    assert summary.changed == {} and summary.left_out == []


def test_05_an_id_used_ten_thousand_times(read: Read) -> None:
    several = calls(*[call() for _ in range(10_000)])
    results = [result(str(index)) for index in range(10_000)]
    found, summary = read(conversation(user("?"), several, *results, said("4")))
    assert steps(found) == [[1, 10_002]] and summary.left_out == []
    assert [message.text for message in found[0].messages[2:-1]] == [str(index) for index in range(10_000)]


def test_06_results_in_another_order(read: Read) -> None:
    found, summary = read(
        conversation(
            user("?"), calls(call(id="a"), call(id="b")), result("second", "b"), result("first", "a"), said("4")
        )
    )
    assert [m.text for m in found[0].messages if m.role is Role.TOOL] == ["first", "second"]
    assert found[0].kind(1) is StepKind.CALLS
    assert summary.changed == {Change.ORDER: 1} and summary.left_out == []


def test_07_glued_arguments_that_the_results_split(read: Read) -> None:
    glued = calls(call('{"city": "Oslo"}{"city": "Rome"}', "a"))
    found, summary = read(conversation(user("?"), glued, result("4", "a"), result("20", "b"), said("Rome")))
    assert [(one.arguments, one.id) for one in found[0].messages[1].calls] == [
        ('{"city": "Oslo"}', "a"),
        ('{"city": "Rome"}', "b"),
    ]
    assert steps(found) == [[1, 4]] and summary.changed == {Change.SPLIT: 1} and summary.left_out == []


def test_07_glued_arguments_of_a_response_are_split_by_the_next_request(read: Read) -> None:
    glued, history = calls(call("{}{}", "a")), [user("?")]
    found, summary = read(
        request(history, glued), request([*history, glued, result("4", "a"), result("20", "b")], said("Rome"))
    )
    assert [(one.arguments, one.id) for one in found[0].messages[1].calls] == [("{}", "a"), ("{}", "b")]
    assert steps(found) == [[1, 4]] and summary.changed == {Change.SPLIT: 1} and summary.left_out == []


def test_07_glued_arguments_that_nothing_splits(read: Read) -> None:
    found, summary = read(conversation(user("?"), said("Wait"), calls(call("{}{}", "a")), result("4", "a"), said("4")))
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 3, "step", Fault.GLUED), (1, 5, "step", Fault.GLUED)]


def test_07_many_glued_arguments_take_linear_time() -> None:
    started = time.process_time()
    assert len(unglued(Call("weather", ("{}" + " " * 200) * 30_000))) == 30_000
    assert time.process_time() - started < 2


def test_08_empty_arguments(read: Read) -> None:
    found, summary = read(conversation(user("?"), calls(call("")), result(), said("4")))
    assert found[0].messages[1].calls[0].arguments == "{}"
    assert summary.changed == {Change.EMPTY: 1} and summary.left_out == []


def test_09_arguments_encoded_twice(read: Read) -> None:
    twice = json.dumps(json.dumps({"city": "Oslo"}))
    inner = json.dumps({"city": "Oslo", "options": json.dumps({"unit": "C"})})
    kept = json.dumps({"city": '{"a": 1}'})
    found, summary = read(
        conversation(
            user("?"),
            calls(call(twice)),
            result(),
            calls(call(inner)),
            result(),
            calls(call(kept)),
            result(),
            said("4"),
        )
    )
    made = [message.calls[0].value for message in found[0].messages if message.calls]
    assert made == [{"city": "Oslo"}, {"city": "Oslo", "options": {"unit": "C"}}, {"city": '{"a": 1}'}]
    assert summary.changed == {Change.DECODED: 2} and summary.left_out == []


def test_10_no_json_and_an_unknown_tool_are_what_the_model_did(read: Read) -> None:
    found, summary = read(
        conversation(
            user("?"), calls(call('{"city": Oslo')), result("error"), calls(call("{}", name="teleport")),
            result("error"), calls(call()), result(), said("4"),
        )
    )  # fmt: skip
    assert steps(found) == [[1, 3, 5, 7]]
    assert [found[0].bad(index) for index in found[0].actions] == [True, True, False, False]
    assert found[0].messages[1].calls[0].arguments == '{"city": Oslo'
    assert summary.changed == {} and summary.left_out == []


def test_11_old_roles_and_missing_ids(read: Read) -> None:
    old = {"role": "assistant", "content": "", "function_call": {"name": "weather", "arguments": "{}"}}
    found, summary = read(
        conversation(
            {"role": "developer", "content": "Be brief."}, user("?"), old,
            {"role": "function", "name": "weather", "content": "4"}, said("4"),
        )
    )  # fmt: skip
    assert [message.role for message in found[0].messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert summary.changed == {
        Change.DEVELOPER: 1, Change.FUNCTION: 1, Change.FUNCTION_CALL: 1, Change.NO_ID: 1
    }  # fmt: skip
    assert steps(found) == [[2, 4]] and summary.left_out == []


def test_11_missing_ids_that_do_not_add_up(read: Read) -> None:
    nameless = {"role": "tool", "content": "4"}
    found, summary = read(conversation(user("?"), calls(call(id="a"), call(id="b")), nameless, said("4")))
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 4, "step", Fault.UNPAIRED)]


def test_12_thoughts_in_one_field(read: Read) -> None:
    found, summary = read(
        conversation(
            user("?"), said("a", reasoning_content="one"), user("?"), said("b", reasoning="two"), user("?"),
            said("c", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
        )
    )  # fmt: skip
    assert [(m.thought, m.withheld) for m in found[0].messages if m.role is Role.ASSISTANT] == [
        ("one", False), ("two", False), ("", True)
    ]  # fmt: skip
    assert summary.changed == {Change.THOUGHT: 2, Change.WITHHELD: 1} and summary.left_out == []


@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("<think>\nLook at\n\nOslo.\n</think>\n\n4 degrees\n", "Look at\n\nOslo.", "4 degrees\n"),
        ("\n<think>Look.</think>4", "Look.", "4"),
        ("Look.\n</think>\n\n4", "Look.", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("</think>\r\n4", "", "4"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("Write </think> at its end", "", "Write </think> at its end"),
        ("Look.\n</think> ends it", "", "Look.\n</think> ends it"),
        ("a\n</think>\nb\n</think>\nc", "", "a\n</think>\nb\n</think>\nc"),
        ("4 <think>\nb\n</think>\nc", "", "4 <think>\nb\n</think>\nc"),
        ("<think>Look", "", "<think>Look"),
    ],
)
def test_12_thoughts_in_the_text(read: Read, text: str, thought: str, rest: str) -> None:
    """In a conversation, in an answer whose echo is without it, and in an item of Responses."""
    echo = [user("?"), said(rest), user("Sure?")]
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    items = {"request": {"input": "?", "model": "m"}, "response": {"output": [item]}}
    for lines in ([conversation(user("?"), said(text))], [items]):
        found, summary = read(*lines)
        assert (found[0].messages[1].thought, found[0].messages[1].text) == (thought, rest)
        assert summary.changed == ({} if rest == text else {Change.INLINE: 1}) and summary.left_out == []
    found, summary = read(request([user("?")], said(text)), request(echo, said("Yes.")))
    assert steps(found) == [[1, 3]] and found[0].messages[1].thought == thought and summary.left_out == []


def test_12_a_thought_in_a_field_and_in_the_text(read: Read) -> None:
    found, summary = read(
        conversation(
            user("?"), said("<think>\none\n</think>\n\na", reasoning_content="one\n"),
            user("?"), said("<think>\ntwo\n</think>\n\nb", reasoning_content="one"),
        )
    )  # fmt: skip
    assert [(m.thought, m.text) for m in found[0].messages if m.role is Role.ASSISTANT] == [
        ("one", "a"),
        ("one\ntwo", "b"),
    ]
    assert summary.changed == {Change.THOUGHT: 2, Change.INLINE: 2}


def test_12_a_withheld_thought_cuts_where_thoughts_are_kept(read: Read) -> None:
    hidden = {
        "role": "assistant",
        "content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "b"}],
    }
    line = {"system": "s", "messages": [user("?"), said("a"), user("?"), hidden, user("?"), said("c")]}
    found, summary = read(line)
    assert steps(found) == [[2, 4, 6]] and found[0].messages[4].withheld and summary.left_out == []
    found, summary = read(line, keep_thoughts=True)
    assert steps(found) == [[2]]
    assert lost(summary) == [(1, 4, "step", Fault.WITHHELD), (1, 6, "step", Fault.WITHHELD)]


def test_13_tools_that_were_not_logged(read: Read) -> None:
    bare = {"messages": WHOLE}
    seen, summary = read(bare)
    assert [(tool.name, json.loads(tool.parameters)["properties"]) for tool in seen[0].tools] == [
        ("weather", {"city": {}})
    ]
    assert summary.changed == {Change.TOOLS_SEEN: 1} and summary.left_out == []
    given = LoggedTool("weather", "Weather.", json.dumps(SCHEMA))
    supplied, summary = read(bare, tools=[given])
    assert supplied[0].tools == (given,) and summary.changed == {Change.TOOLS_GIVEN: 1}


def test_14_null_keys_of_column_stores(read: Read) -> None:
    properties = {"city": {"type": "string", "enum": None}, "query": None}
    filled = {"name": "weather", "parameters": {"type": "object", "properties": properties}}
    found, summary = read(
        {
            "messages": [user("?"), calls(call({"city": None, "query": None})), result(), said("4", tool_calls=None)],
            "tools": [{"type": "function", "function": filled}],
        }
    )
    assert found[0].messages[1].calls[0].value == {"city": None}, "a null that the schema knows may be meant"
    assert json.loads(found[0].tools[0].parameters) == {"type": "object", "properties": {"city": {"type": "string"}}}
    assert summary.changed == {Change.OBJECT: 1, Change.NULL_KEYS: 2} and summary.left_out == []


def test_15_sub_agents_of_one_session(read: Read) -> None:
    main, sub = [SYSTEM, user("Plan a trip")], [{"role": "system", "content": "You search."}, user("Trains to Oslo")]
    found, summary = read(
        request(main, calls(call()), session_id="s"),
        request(sub, said("At nine"), session_id="s"),
        request([*main, calls(call()), result()], said("Take the train"), session_id="s"),
    )
    assert steps(found) == [[2], [2, 4]]
    assert (summary.conversations, summary.trajectories, summary.groups, summary.steps) == (2, 2, 1, 3)
    assert summary.changed == {} and summary.left_out == []


def test_16_a_summary_in_place_of_the_history(read: Read) -> None:
    start = [SYSTEM, user("Weather in Oslo?")]
    short = [SYSTEM, user("Summary of the conversation: Oslo was asked for."), calls(call()), result()]
    found, summary = read(
        request(start, calls(call()), session_id="s"),
        request([*start, calls(call()), result()], said("4 degrees"), session_id="s"),
        request([*short, user("And now?")], said("Still 4"), session_id="s"),
    )
    assert steps(found) == [[2, 4], [5]]
    assert [message.text for message in found[1].messages][1] == short[1]["content"]
    assert (summary.conversations, summary.groups, summary.steps) == (1, 1, 3)
    assert summary.changed == {Change.SEGMENT: 1} and summary.left_out == []


def test_16_a_system_turn_that_tells_the_time(read: Read) -> None:
    """Every request has a history of its own then; they are one conversation all the same, without a session, too."""

    def at(time: str) -> list[Json]:
        return [{"role": "system", "content": f"It is {time}."}, user("Weather?")]

    long = "It is four degrees in Oslo, and it will rain."
    found, summary = read(
        request(at("9:00"), said(long)), request([*at("9:01"), said(long), user("Sure?")], said("Yes"))
    )
    assert steps(found) == [[2], [4]] and summary.left_out == []
    assert (summary.conversations, summary.groups, summary.near_duplicates) == (1, 1, 0)
    assert summary.changed == {Change.SEGMENT: 1}


def test_16_a_summary_of_the_whole_history(read: Read) -> None:
    found, summary = read(
        request([SYSTEM, user("Weather in Oslo?")], said("4 degrees"), session_id="s"),
        request([SYSTEM, user("Summary of the conversation: 4 degrees. And now?")], said("Still 4"), session_id="s"),
    )
    assert steps(found) == [[2], [2]] and summary.conversations == 1
    assert summary.changed == {Change.SEGMENT: 1}


def test_17_two_answers_to_one_request(read: Read) -> None:
    history = [user("Weather?")]
    found, summary = read(
        request(history, said("4")),
        request(history, said("Five")),
        request(history, said("")),
        request(history, said("4")),
    )
    assert steps(found) == [[1], [1]]
    assert [one.messages[-1].text for one in found] == ["4", "Five"]
    assert (summary.conversations, summary.groups, summary.steps) == (1, 1, 2)
    assert lost(summary) == [(3, 2, "step", Fault.EMPTY)]
    assert summary.changed == {Change.AGAIN: 1}


def test_18_state_but_no_action(read: Read) -> None:
    found, summary = read(
        conversation(
            {"role": "user", "name": "example_user", "content": "Hello"}, said("Hi", name="example_assistant"),
            user("Weather?"), said("Wait", weight=0), said("API Error: 500 overloaded"), user("Again"), said("4"),
        )
    )  # fmt: skip
    assert steps(found) == [[6]] and len(found[0].messages) == 7 and found[0].question == "Weather?"
    assert lost(summary) == [
        (1, 2, "step", NoAction.EXAMPLE), (1, 4, "step", NoAction.WEIGHT), (1, 5, "step", NoAction.CLIENT)
    ]  # fmt: skip
    assert summary.changed == {}


@pytest.mark.parametrize(
    "text", ["4 deg... (litellm_truncated skipped 900 chars) ...end", "long ...[truncated]", "long [TRUNCATED]"]
)
def test_19_cut_by_the_logger(read: Read, text: str) -> None:
    found, summary = read(conversation(user("?"), calls(call()), result(text), said("4"), user("?"), said("5")))
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 4, "step", Fault.LOGGER), (1, 6, "step", Fault.LOGGER)]
    cut = calls(call(f'{{"city": "{text}"}}' if "litellm" in text else f'{{"city": "{text}'))
    found, summary = read(conversation(user("?"), said("Wait"), cut, result(), said("4")))
    assert steps(found) == [[1]]
    assert lost(summary) == [(1, 3, "step", Fault.LOGGER), (1, 5, "step", Fault.LOGGER)]


def test_20_masked_values(read: Read) -> None:
    found, summary = read(
        conversation(user("I am [EMAIL]"), calls(call('{"city": "[EMAIL]"}')), result(), said("Done"))
    )
    assert steps(found) == [[3]], "a mask in the user's turn harms no action"
    assert lost(summary) == [(1, 2, "step", NoAction.MASKED)]


def test_21_cut_at_the_length_limit(read: Read) -> None:
    history = [user("Weather?")]
    found, summary = read(
        request(history, said("It is"), finish="length"),
        request([*history, said("It is"), user("Go on")], said("4")),
    )
    assert steps(found) == [[3]]
    assert lost(summary) == [(1, 2, "step", NoAction.LENGTH)] and summary.changed == {}


def test_22_a_call_logged_twice(read: Read) -> None:
    block = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}
    both = {"role": "assistant", "content": [{"type": "text", "text": "Wait"}, block], "tool_calls": [call()]}
    found, summary = read(conversation(user("?"), both, result(), said("4")))
    assert [one.arguments for one in found[0].messages[1].calls] == ['{"city": "Oslo"}']
    assert summary.changed == {Change.TWICE: 1, Change.PARTS: 1} and summary.left_out == []


def test_22_calls_without_an_id_are_compared_by_name_and_value(read: Read) -> None:
    logged: list[tuple[str, Any]] = [
        ("t", {"a": 1, "b": [2, {}]}),
        ("t", {"b": [2, {}], "a": 1.0}),
        ("u", {"a": 1, "b": [2, {}]}),
        ("t", {"a": 1, "b": [2, []]}),
        ("t", {"a": 1, "b": [[2], {}]}),
        ("t", "no JSON"),
        ("t", "no JSON"),
    ]
    blocks = [{"type": "tool_use", "name": name, "input": value} for name, value in logged]
    named = {"type": "tool_use", "id": "c1", "name": "u", "input": {"a": 1, "b": [2, {}]}}
    content = [*blocks, named, named, blocks[2]]
    found, summary = read(conversation(user("?"), {"role": "assistant", "content": content}))
    assert [(one.id, one.name, one.arguments) for one in found[0].messages[1].calls] == [
        *[("", logged[i][0], json.dumps(logged[i][1])) for i in (0, 2, 3, 4)],
        ("", "t", "no JSON"),
        ("c1", "u", '{"a": 1, "b": [2, {}]}'),
    ]
    assert summary.changed[Change.TWICE] == 4


def test_22_ten_thousand_calls_are_not_compared_pairwise(read: Read) -> None:
    blocks = [{"type": "tool_use", "name": "weather", "input": {"a": index}} for index in range(10_000)]
    found, summary = read(conversation(user("?"), {"role": "assistant", "content": [*blocks, *blocks]}))
    assert len(found[0].messages[1].calls) == 10_000 and summary.changed[Change.TWICE] == 10_000


def chain(id: str, previous: str | None, items: Any, output: list[Json], **more: Any) -> Json:
    asked = {"instructions": "Be brief.", "input": items, "tools": [], "previous_response_id": previous, **more}
    return {"request": asked, "response": {"id": id, "output": output, "status": "completed"}}


def spoken(text: str) -> Json:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


FETCH = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"}
FETCHED = {"type": "function_call_output", "call_id": "c1", "output": "4"}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_23_only_new_items_with_the_previous_id(read: Read, order: list[int]) -> None:
    lines = [
        chain("r1", None, "Weather?", [FETCH]),
        chain("r2", "r1", [FETCHED], [spoken("4")]),
        chain("r3", "r2", [user("Sure?")], [spoken("Yes")]),
    ]
    found, summary = read(*[lines[index] for index in order])
    assert steps(found) == [[2, 4, 6]]
    assert [message.text for message in found[0].messages] == ["Be brief.", "Weather?", "", "4", "4", "Sure?", "Yes"]
    assert summary.changed == {Change.CHAINED: 2} and summary.left_out == []


def test_23_the_first_is_missing(read: Read) -> None:
    found, summary = read(chain("r3", "r2", [user("Sure?")], [spoken("Yes")]))
    assert found == [] and lost(summary) == [(1, 2, "step", Fault.CHAIN)]


def test_23_other_instructions_are_another_state(read: Read) -> None:
    found, summary = read(
        {**chain("r1", None, "Weather?", [spoken("4")]), "session_id": "s"},
        chain("r2", "r1", [user("Sure?")], [spoken("Yes, it is")], instructions="Be polite."),
        chain("r3", "r1", [user("And?")], [spoken("That is all")], instructions="Be polite."),
    )
    assert steps(found) == [[2], [4], [4]] and (summary.conversations, summary.groups) == (1, 1)
    assert [message.text for message in found[1].messages] == ["Be polite.", "Weather?", "4", "Sure?", "Yes, it is"]
    assert summary.changed == {Change.CHAINED: 2, Change.SEGMENT: 1} and summary.left_out == []


def test_24_lines_end_at_a_line_feed_alone(read: Read) -> None:
    text = "one\u2028two\u0085three"
    line = json.dumps(conversation(user(text), said("4")), ensure_ascii=False).encode()
    assert "\u2028".encode() in line
    found, summary = read(b"\xef\xbb\xbf" + line + b"\r\n", b"\r\n", line.replace(b'"4"', b'"5"') + b"\n")
    assert [one.messages[0].text for one in found] == [text, text]
    assert [str(one.places[1]).rpartition(".jsonl")[2] for one in found] == [", line 1, turn 2", ", line 3, turn 2"]
    assert summary.changed == {} and summary.left_out == []


def test_25_one_turn_on_several_lines(read: Read) -> None:
    asked = {
        "system": "Be brief.",
        "messages": [user("Weather?")],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }

    def piece(block: Json) -> Json:
        return {
            "request": asked,
            "response": {"type": "message", "id": "msg_1", "role": "assistant", "content": [block]},
        }

    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}
    echo = [{"type": "text", "text": "Wait"}, use]
    answered = [{"type": "tool_result", "tool_use_id": "c1", "content": "4"}]
    after = {
        **asked,
        "messages": [user("Weather?"), {"role": "assistant", "content": echo}, {"role": "user", "content": answered}],
    }
    found, summary = read(
        piece({"type": "thinking", "thinking": "Hm"}),
        piece({"type": "text", "text": "Wait"}),
        piece(use),
        {"request": after, "response": {"type": "message", "id": "msg_2", "role": "assistant",
                                        "content": [{"type": "text", "text": "4"}]}},
    )  # fmt: skip
    assert steps(found) == [[2, 4]]
    joined = found[0].messages[2]
    assert (joined.thought, joined.text, joined.calls[0].arguments) == ("Hm", "Wait", '{"city": "Oslo"}')
    assert summary.changed == {Change.THOUGHT: 1, Change.JOINED: 1} and summary.left_out == []


def test_25_each_piece_is_read_a_few_times_however_many_there_are(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []
    whole = log_files._exchanges
    monkeypatch.setattr(log_files, "_exchanges", lambda *line: readings.append(1) or whole(*line))
    lines = [request([user("?")], said(f"piece {index} "), id="msg_1") for index in range(300)]
    found, summary = read(*lines)
    assert [message.text for message in found[0].messages] == ["?", "".join(f"piece {n} " for n in range(300))]
    assert steps(found) == [[1]] and summary.changed == {Change.JOINED: 1}
    assert len(readings) < 4 * 300


def test_25_ten_thousand_pieces_in_one_list(read: Read) -> None:
    def piece(index: int) -> Json:
        use = {"type": "tool_use", "id": f"c{index}", "name": "weather", "input": {"a": index}}
        return {"role": "assistant", "id": "msg_1", "content": [{"type": "text", "text": f"{index} "}, use]}

    found, summary = read(conversation(user("?"), *map(piece, range(10_000))))
    assert [message.text for message in found[0].messages] == ["?", "".join(f"{index} " for index in range(10_000))]
    assert [one.id for one in found[0].messages[1].calls] == [f"c{index}" for index in range(10_000)]
    assert summary.changed[Change.JOINED] == 1


def test_26_several_assistant_turns_in_a_row(read: Read) -> None:
    found, summary = read(conversation(user("?"), said("Let me look"), calls(call()), result(), said("4"), said("Bye")))
    assert steps(found) == [[1, 2, 4, 5]]
    assert [found[0].kind(index) for index in found[0].actions] == [
        StepKind.TEXT, StepKind.CALL, StepKind.TEXT, StepKind.ANSWER
    ]  # fmt: skip
    assert summary.changed == {} and summary.left_out == []


def test_27_several_models_in_one_conversation(read: Read) -> None:
    line = conversation(user("?"), said("4", model="small"), user("Sure?"), said("Yes", model="large"))
    found, summary = read(line)
    assert [message.model for message in found[0].messages] == ["", "small", "", "large"]
    assert steps(found) == [[1, 3]] and summary.left_out == []
    found, summary = read(line, models=["large"])
    assert steps(found) == [[3]] and lost(summary) == [(1, 2, "step", NoAction.MODEL)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [\n', LineFault.NO_JSON),
        (b'{"messages": "\xff"}\n', LineFault.NO_TEXT),
        ({"text": "hello"}, LineFault.SHAPE),
        (
            b'{"messages": [{"role": "assistant", "content": "4"}], "x": %s}\n' % (b"[" * 300 + b"]" * 300),
            LineFault.DEEP,
        ),
        ({"request": {"messages": [user("?")]}, "response": "[" * 301 + "]" * 301}, LineFault.DEEP),
        ({"request": {"messages": [user("?")]}, "response": {"error": "overloaded"}}, LineFault.NO_RESPONSE),
    ],
)
def test_a_line_that_holds_nothing(read: Read, line: Any, reason: LineFault) -> None:
    found, summary = read(conversation(*WHOLE), line)
    assert len(found) == 1
    assert lost(summary) == [(2, 0, "line", reason)]


def test_what_is_nested_up_to_the_limit_is_read(read: Read) -> None:
    given = "[" * 299 + "]" * 299
    found, summary = read(
        b'{"messages": [{"role": "assistant", "content": "4"}], "x": %s}\n' % given.encode(),
        conversation(user("?"), calls(call('{"city": "\\"", "options": %s}' % ("[" * 980 + "]" * 980))), result()),
    )
    assert steps(found) == [[0], [1]] and summary.left_out == []
