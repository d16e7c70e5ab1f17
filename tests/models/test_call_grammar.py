"""Grammars of calls: found from how templates write known calls, and total readers of what models say."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl.models.call_grammar import MAX_CALLS, Call, Grammar, Turn, found

A, B = Call("alpha", {"x": 'V "q" \\', "yy": "T"}, "AAAAAAAA1"), Call("beta", {"x": "W"}, "BBBBBBBB2")


def written(call: Call, key: str = "arguments") -> str:
    return json.dumps({"name": call.name, key: call.arguments})


def with_id(call: Call) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments, "id": call.id})


def named(call: Call) -> str:
    return f"[TOOL_CALLS]{call.name}[CALL_ID]{call.id}[ARGS]{json.dumps(call.arguments)}"


QWEN = Grammar("objects", "<tool_call>", "</tool_call>", "</tool_call>\n<tool_call>")
LLAMA = Grammar("objects", "", "", None, arguments_key="parameters")
MISTRAL = Grammar("list", "[TOOL_CALLS]", "", "")
NAMED = Grammar("named", "[TOOL_CALLS]", "", "[TOOL_CALLS]", "[CALL_ID]\0[ARGS]")
DEEPSEEK = Grammar(
    "named", "<calls><call>function<sep>", "``` </call></calls>", "``` </call> <call>function<sep>", "```json"
)
CLOSED = "</parameter>\n</function>\n</tool_call>"
CODER = Grammar(
    "tagged",
    "<tool_call>\n<function=",
    CLOSED,
    f"{CLOSED}\n<tool_call>\n<function=",
    ">\n<parameter=",
    ">\n",
    "</parameter>\n<parameter=",
)
GRAMMARS = [QWEN, LLAMA, MISTRAL, NAMED, DEEPSEEK, CODER]


def coder(call: Call) -> str:
    arguments = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call.arguments.items())
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>"


def test_the_grammar_is_found_from_known_calls() -> None:
    one, two = f"<tool_call>\n{written(A)}\n</tool_call>", f"<tool_call>\n{written(B)}\n</tool_call>"
    assert found(one, f"{one}\n{two}", [A, B]) == QWEN
    assert found(written(A, "parameters"), None, [A, B]) == LLAMA
    assert found(f"[TOOL_CALLS] [{with_id(A)}]", f"[TOOL_CALLS] [{with_id(A)}, {with_id(B)}]", [A, B]) == MISTRAL
    assert found(named(A), named(A) + named(B), [A, B]) == NAMED
    assert found(coder(A), coder(A) + "\n" + coder(B), [A, B]) == CODER
    keys = "".join(f"<k>{name}</k><v>{value}</v>" for name, value in A.arguments.items())
    assert found(f"<call>alpha\n{keys}</call>", None, [A, B]) == Grammar(
        "tagged", "<call>", "</v></call>", None, "<k>", "</k><v>", "</v><k>"
    )
    assert found(f"<call>[alpha(x='{A.arguments['x']}', yy='T')]</call>", None, [A, B]) is None
    wrapped = json.dumps({"type": "function", "function": {"name": A.name, "arguments": A.arguments}})
    assert found(f"<c>{wrapped}</c>", None, [A, B]) == Grammar(
        "objects", '<c>{"type": "function", "function":', "}</c>", None
    )
    twice = json.dumps({"tool": A.name, "args": json.dumps(A.arguments)})
    assert found(twice, None, [A, B]) == Grammar("objects", "", "", None, name_key="tool", arguments_key="args")
    assert found(f"alpha(x={A.arguments['x']!r})", None, [A, B]) is None
    assert found(f"<call>alpha<x>{A.arguments['x']}</x></call>", None, [A, B]) is None
    assert found("", None, [A, B]) is None


@pytest.mark.parametrize(
    ("grammar", "text", "turn"),
    [
        (QWEN, "Hm. <tool_call>" + written(A) + "</tool_call>", Turn("Hm.", (Call("alpha", A.arguments),))),
        (QWEN, f"<tool_call>{written(A)}</tool_call><tool_call>\n\n{written(B)}</tool_call> ok",
         Turn("", (Call("alpha", A.arguments), Call("beta", B.arguments)), "ok")),
        (QWEN, '<tool_call>{"name": "a"}</tool_call>', Turn("", (Call("a", {}),))),
        (QWEN, '<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>', Turn("", (Call("a", {"x": 1}),))),
        (QWEN, "no call", Turn("no call", ())),
        (QWEN, "", Turn("", ())),
        (QWEN, "<tool_call>", Turn("", (), "", True)),
        (QWEN, "<tool_call>{}</tool_call>", Turn("", (), "", True)),
        (QWEN, "<tool_call>" + written(A), Turn("", (Call("alpha", A.arguments),), "", True)),
        (QWEN, '<tool_call>{"name": "a", "arguments": [1]}</tool_call>', Turn("", (), "", True)),
        (QWEN, '<tool_call>{"name": 1, "arguments": {}}</tool_call>', Turn("", (), "", True)),
        (QWEN, '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', Turn("", (), "", True)),
        (QWEN, '<tool_call>{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}</tool_call>", Turn("", (), "", True)),
        (QWEN, '<tool_call>{"name": "a" "arguments": {}}</tool_call>', Turn("", (), "", True)),
        (LLAMA, written(A, "parameters"), Turn("", (Call("alpha", A.arguments),))),
        (LLAMA, "<|python_tag|>" + written(A, "parameters"), Turn("", (Call("alpha", A.arguments),))),
        (LLAMA, "In {Oslo}.", Turn("In {Oslo}.", ())),
        (LLAMA, '{"name": "a", ', Turn("", (), "", True)),
        (LLAMA, "I call " + written(A, "parameters"), Turn("", (), "", True)),
        (LLAMA, written(A, "parameters") + "; {}", Turn("", (Call("alpha", A.arguments),), "; {}")),
        (MISTRAL, f"[TOOL_CALLS][{with_id(A)},{with_id(B)}]", Turn("", (A, B))),
        (MISTRAL, "[TOOL_CALLS] " + with_id(A), Turn("", (), "", True)),
        (MISTRAL, "[TOOL_CALLS] []", Turn("", (), "", True)),
        (MISTRAL, '[TOOL_CALLS] [{"name": "a", "arguments": {}, "id": "[INST]"}]', Turn("", (Call("a", {}, ""),))),
        (NAMED, "So: " + named(A) + named(B), Turn("So:", (A, B))),
        (NAMED, "[TOOL_CALLS]alpha{}", Turn("", (), "", True)),
        (NAMED, "[TOOL_CALLS]alpha[CALL_ID]a b[ARGS]{}", Turn("", (), "", True)),
        (CODER, "So:\n" + coder(A) + coder(B), Turn("So:", (Call("alpha", A.arguments), Call("beta", B.arguments)))),
        (CODER, "<tool_call><function=a><parameter=x>1</parameter></function></tool_call>",
         Turn("", (Call("a", {"x": "1"}),))),
        (CODER, f"<tool_call>\n<function=a>\n<parameter=x>\n\n two\n lines\n\n{CLOSED} ok",
         Turn("", (Call("a", {"x": "\n two\n lines\n"}),), "ok")),
        (CODER, "<tool_call>\n<function=a>\n</function>\n</tool_call>", Turn("", (), "", True)),
        (CODER, "<tool_call>\n<function=a>\n<parameter=x>\n1", Turn("", (), "", True)),
        (DEEPSEEK, '<calls><call>function<sep>a\n```json\n{"x": 1}\n```</call>\n'
         "<call>function<sep>b```json{}``` </call></calls>",
         Turn("", (Call("a", {"x": 1}), Call("b", {})))),
    ],
)  # fmt: skip
def test_turns(grammar: Grammar, text: str, turn: Turn) -> None:
    assert grammar.read(text) == turn


def test_more_calls_than_are_read_break_a_turn() -> None:
    one = f"<tool_call>{written(A)}</tool_call>"
    assert len(QWEN.read(one * MAX_CALLS).calls) == MAX_CALLS == 16
    assert QWEN.read(one * (MAX_CALLS + 1)).broken
    assert MISTRAL.read(f"[TOOL_CALLS][{', '.join([with_id(A)] * 17)}]").broken


PARTS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    '{"name": "a", "arguments": {}}',
    "[",
    "{",
    "}",
    "]",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([*PARTS, '"name":', "\ud800", " ", "\n"]), st.text(max_size=8)), max_size=20))
def test_no_text_raises(parts: list[str]) -> None:
    for grammar in GRAMMARS:
        turn = grammar.read("".join(parts))
        assert turn.calls or turn.broken or not (turn.after or turn.broken)


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize(
    "part",
    ["[", '{"a":', " ", "<tool_call>", "[TOOL_CALLS]", "[TOOL_CALLS]a", "<|python_tag|>", '{"name":"a"}', "\n<calls>"],
)
def test_hostile_text_takes_no_time(grammar: Grammar, part: str) -> None:
    began = time.process_time()
    grammar.read(grammar.opening + part * 50_000)
    grammar.read(part * 50_000 + grammar.opening + grammar.between + "{")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "function", "name": "alpha", "parameters": {"x": "W"}}',
        '{"parameters": {"x": "W"}, "name": "alpha"}',
        '<|python_tag|>{"parameters": {"x": "W"}, "name": "alpha"}',
    ],
)
def test_the_name_of_a_bare_call_may_stand_anywhere_in_it(text: str) -> None:
    assert LLAMA.read(text) == Turn("", (Call("alpha", {"x": "W"}),))


@pytest.mark.parametrize("text", ['{"city": "Oslo"}', '"Oslo"', "[1, 2]", "7"])
def test_json_without_a_name_is_no_bare_call(text: str) -> None:
    assert LLAMA.read(text) == Turn(text, ())
