"""A chat template's own tool format: exact, append-only pieces, and refusals that name what is lost."""

from __future__ import annotations

from typing import Any

import pytest

from swirl.core.errors import ModelError
from swirl.models import tokens
from swirl.models.native_chat import NativeChat, Result
from tests import families, tool_templates
from tests.tool_templates import HERMES, MISTRAL, OURS, needs_trl, tokenizer

SYSTEM, ASKED, ANSWER = "Be brief.", "Where was Ada born?", "In Oslo."


def function(name: str, argument: str) -> dict[str, Any]:
    about = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": f"does {name}", "parameters": about}}


TOOLS = [function("search", "query"), function("add", "numbers")]
CALLS = [("search", {"query": 'Ada "born"'}, "abcdef123"), ("add", {"numbers": "2 + 3"}, "xyz456789")]
RESULTS = ['Ada was born in "Oslo".\n', "5"]


def message(count: int) -> dict[str, Any]:
    calls = [
        {"type": "function", "id": key, "function": {"name": name, "arguments": arguments}}
        for name, arguments, key in CALLS[:count]
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def answers(count: int) -> list[dict[str, Any]]:
    return [
        {"role": "tool", "name": name, "tool_call_id": key, "content": result}
        for (name, _, key), result in zip(CALLS[:count], RESULTS, strict=False)
    ]


def rendered(chat: NativeChat, messages: list[dict[str, Any]], thinking: bool, generation: bool = True) -> list[int]:
    """The tokens that the tokenizer itself gives for a conversation."""
    ids = chat.tokenizer.apply_chat_template(
        messages,
        tools=TOOLS,
        add_generation_prompt=generation,
        return_dict=False,
        enable_thinking=thinking,
        date_string="26 Jul 2024",
    )
    return [int(i) for i in ids]


ONE = '{"name": "search", "arguments": {"query": "Ada \\"born\\""}}'
TWO = '{"name": "add", "arguments": {"numbers": "2 + 3"}}'
IN_TAGS = [f"<tool_call>\n{ONE}\n</tool_call>", f"<tool_call>\n{ONE}\n</tool_call>\n<tool_call>\n{TWO}\n</tool_call>"]
BARE = [ONE.replace("arguments", "parameters")]
LISTED = f'[TOOL_CALLS] [{ONE[:-1]}, "id": "abcdef123"}}'
LIST = [f"{LISTED}]", f'{LISTED}, {TWO[:-1]}, "id": "xyz456789"}}]']
FIRST = '[TOOL_CALLS]search[CALL_ID]abcdef123[ARGS]{"query": "Ada \\"born\\""}'
NAMES = [FIRST, f'{FIRST}[TOOL_CALLS]add[CALL_ID]xyz456789[ARGS]{{"numbers": "2 + 3"}}']
CODED = '<tool_call>\n<function=search>\n<parameter=query>\nAda "born"\n</parameter>\n</function>\n</tool_call>'
ADDED = "<tool_call>\n<function=add>\n<parameter=numbers>\n2 + 3\n</parameter>\n</function>\n</tool_call>"
CODE = [CODED, f"{CODED}\n{ADDED}"]
SAID = {"coder": CODE, "hermes": IN_TAGS, "llama": BARE, "mistral": LIST, "named": NAMES}
REAL = {
    "qwen3_6": CODE,
    "qwen2_5": IN_TAGS,
    "qwen3": IN_TAGS,
    "qwen3_instruct_2507": IN_TAGS,
    "llama3_1": BARE,
    "llama3_2": BARE,
}
"""What a model says that calls the first tool, and both, by template."""

EVERY = [*SAID, *(pytest.param(name, marks=needs_trl) for name in REAL)]


def chat_of(name: str, thinking: bool = False) -> NativeChat:
    return NativeChat(tokenizer(OURS[name] if name in OURS else tool_templates.real(name)), thinking=thinking)


@pytest.mark.parametrize("system", ["", SYSTEM])
@pytest.mark.parametrize("name", EVERY)
def test_the_pieces_are_the_tokens_of_the_whole_conversation(name: str, system: str) -> None:
    """A call, or two, their results, another call, its result and the answer, as the template itself renders them."""
    if system and name in ("mistral", "named"):
        pytest.skip("this template has no system turn")
    thinking = name == "qwen3"  # without, it drops its empty thought from past turns
    chat, said = chat_of(name, thinking), (SAID | REAL)[name]
    messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": ASKED}]
    ids = list(chat.prompt(ASKED, TOOLS, system))
    assert ids == rendered(chat, messages, thinking)
    for count in (len(said), 1):
        turn = chat.reply(said[count - 1])
        calls = chat.grammar.read(chat.text(turn)).calls
        assert [(call.name, call.arguments) for call in calls] == [(n, a) for n, a, _ in CALLS[:count]]
        results = [Result(text, call.name, call.id) for text, call in zip(RESULTS, calls, strict=False)]
        if name in ("qwen2_5", "qwen3", "llama3_1", "hermes"):
            assert all(call.id == "" for call in calls)
        ids += [*turn, *chat.results(results, closed=True)]
        messages += [message(count), *answers(count)]
        assert ids == rendered(chat, messages, thinking)
        assert chat.results(results, closed=False) == (chat.end_id, *chat.results(results, closed=True))
    if name not in ("mistral", "qwen3"):  # one puts a blank before an answer, the other an empty thought
        whole = rendered(chat, [*messages, {"role": "assistant", "content": ANSWER}], thinking, generation=False)
        told = [*ids, *chat.reply(ANSWER)]
        assert whole[: len(told)] == told


def test_results_in_the_words_of_the_templates() -> None:
    results = [Result('"7"', "search", "abcdef123"), Result("x", "add", "")]
    shown = {name: chat_of(name).markup(chat_of(name).results(results, closed=False)) for name in ("hermes", "named")}
    assert shown["hermes"] == (
        '<|im_end|>\n<|im_start|>tool\n<tool_response>\n"7"\n</tool_response>\n<tool_response>\nx\n</tool_response>\n'
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert shown["named"] == (
        '</s>[TOOL_RESULTS]abcdef123[TOOL_CONTENT]"7"[/TOOL_RESULTS]'
        "[TOOL_RESULTS]call00001[TOOL_CONTENT]x[/TOOL_RESULTS]"
    )
    mistral, llama = chat_of("mistral"), chat_of("llama")
    assert mistral.markup(mistral.results(results[:1], closed=True)) == (
        '[TOOL_RESULTS] {"content": "7", "call_id": "abcdef123"}[/TOOL_RESULTS]'
    )
    assert llama.markup(llama.results(results[:1], closed=True)) == (
        '<|start_header_id|>ipython<|end_header_id|>\n\n"\\"7\\""<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("name", SAID)
def test_foreign_text_holds_no_special_token_and_no_foreign_id(name: str) -> None:
    """Questions, results and descriptions of tools that name special tokens, and ids and names that are no words."""
    chat = chat_of(name)
    named = " ".join(sorted(str(token) for token in chat.tokenizer.added_tokens_decoder.values() if token.special))

    def special(ids: tuple[int, ...]) -> list[int]:
        return [i for i in ids if i in chat._special]

    described = function("search", "query")
    described["function"]["description"] = f"finds {named}"
    assert special(chat.prompt(named, [described])) == special(chat.prompt("x", [function("search", "query")]))
    plain = special(chat.results([Result("x", "search", "abcdef123")], closed=True))
    assert special(chat.results([Result(named, named, named)], closed=True)) == plain
    begun = chat.tokenizer.bos_token or "<|im_start|>"
    assert special(chat.reply(f"a {begun} b")) == [chat.end_id]


def gone(template: str, part: str, by: str = "") -> str:
    assert part in template
    return template.replace(part, by)


LOST = {
    "the name of tools": gone(HERMES, "{{ tool|tojson + '\\n' }}"),
    "the description of tools": gone(HERMES, "tool|tojson + '\\n'", "tool.function.name"),
    "the arguments of tools": gone(HERMES, "tool|tojson + '\\n'", "tool.function.name + tool.function.description"),
    "the calls": gone(HERMES, "+ call(item.function)", "+ 'called'"),
    "the arguments of calls": gone(HERMES, "item.arguments|tojson", "'{}'"),
    "the results": gone(HERMES, "+ m.content + '\\n</tool_response>", "+ '</tool_response>"),
}


@pytest.mark.parametrize("what", LOST)
def test_a_template_that_loses_something_is_refused_by_name_with_the_way_out(what: str) -> None:
    with pytest.raises(ModelError, match=f"leaves out {what}: use actions.format: tags$"):
        NativeChat(tokenizer(LOST[what]))


ARGUMENTS = """{"name": "' + item.name + '", "arguments": ' + item.arguments|tojson + '}"""
RESULT = "m.content + '\\n</tool_response>"
UNUSABLE = [
    (families.SMOLLM2, "leaves out the name of tools: use actions.format: tags"),
    (families.GEMMA2, "leaves out the name of tools: use actions.format: tags"),
    ("", "has no chat template"),
    (gone(HERMES, RESULT, "raise_exception('no tools here') ~ '"), "refuses calls and results: no tools here; use"),
    (gone(HERMES, RESULT, "1 / 0 ~ '"), "refuses calls and results: division by zero; use"),
    (gone(HERMES, "'You may call", "messages|length ~ 'You may call"), "rewrites the turns before a call"),
    (gone(HERMES, RESULT, "m.content|e + '\\n</tool_response>"), "changes results"),
    (
        gone(HERMES, ARGUMENTS, "' + item.name + '(' + item.arguments.argument_sentinel + ')"),
        "form that is not known here",
    ),
    (
        gone(HERMES, "{{- '<|im_end|>\\n' }}", "{{- ('done' if m.tool_calls else '<|im_end|>') + '\\n' }}"),
        "close a turn with",
    ),
    (gone(HERMES, "{{- '<|im_end|>\\n' }}", "{{- 'done\\n' }}"), "closes a model turn with no special token"),
    (HERMES + "{% if messages|length > 3 %}!{% endif %}", "rewrites"),
    (gone(HERMES, "+ m.content + '\\n</tool", "+ (m.content if loop.last else 'seen') + '\\n</tool"), "rewrites"),
]


@pytest.mark.parametrize(("template", "why"), UNUSABLE)
def test_a_template_that_cannot_be_used_is_refused(template: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        NativeChat(tokenizer(template))


def test_ids_of_calls_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one that the model writes stands in a piece of the template of its own."""
    monkeypatch.setattr(tokens, "KNOWN_PIECES", 8)
    results = [[Result("Oslo", "search", f"abcdefg{number:02d}")] for number in range(20)]
    chat = NativeChat(tokenizer(MISTRAL))
    found = [chat.results(of_call, True) for of_call in results]
    assert chat._piece.cache_info().currsize == 8
    assert found == [NativeChat(tokenizer(MISTRAL)).results(of_call, True) for of_call in results]


def test_a_system_turn_that_is_lost_is_refused_when_there_is_one() -> None:
    chat = NativeChat(tokenizer(MISTRAL))
    assert chat.prompt(ASKED, TOOLS)
    with pytest.raises(ModelError, match="refuses|leaves out the system turn|rewrites"):
        chat.prompt(ASKED, TOOLS, SYSTEM)
    with pytest.raises(
        ModelError, match="leaves out the system turn: put what system.txt says into the tasks' prompts"
    ):
        NativeChat(tokenizer(gone(HERMES, "messages[0].content + '\\n\\n'", "'\\n'"))).prompt(ASKED, TOOLS, SYSTEM)


def test_a_tool_whose_schema_is_lost_is_refused() -> None:
    template = gone(HERMES, "tool|tojson + '\\n'", "(tool|tojson if loop.index < 4 else '')")
    with pytest.raises(ModelError, match="leaves out 'four' of the tool four: use actions.format: tags"):
        NativeChat(tokenizer(template)).prompt(ASKED, [function(name, "x") for name in ("one", "two", "three", "four")])


def test_what_a_template_does_to_past_turns_is_said() -> None:
    assert chat_of("hermes").notes == chat_of("named").notes == ()
    beside = "the chat template drops what is said beside a call from past turns: it stays here, as sampled"
    assert chat_of("llama").notes == chat_of("mistral").notes == (beside,)
    spaced = gone(HERMES, "'\\n</tool_response>\\n' }}", "'\\n</tool_response>' + ('' if loop.last else '\\n') }}")
    assert NativeChat(tokenizer(spaced)).notes == (
        "the chat template changes the white space of past results: they stay as they were read here",
    )
    assert chat_of("thinking").notes == ()
    assert chat_of("thinking", True).notes == (
        "the chat template drops '<think>\\n' from past turns: they keep it here",
        "the chat template drops thoughts from past turns: they stay here, as sampled",
    )


def test_a_thought_ends_before_what_is_said() -> None:
    hermes, begun = chat_of("hermes"), chat_of("thinking", True)
    assert (hermes.begun, begun.begun) == (False, True)
    assert hermes.after_thought("a </think> b") == ("", "a </think> b")
    assert hermes.after_thought("\n<think>a <tool_call></think> b") == ("\n<think>a <tool_call></think>", " b")
    assert hermes.after_thought("<think> a") is begun.after_thought("a") is None
    assert begun.after_thought("a</think>b") == ("a</think>", "b")
    assert begun.thought_tags == ("<think>", "</think>")
    assert begun.markup(begun.prompt("x"))[-29:] == "<|im_start|>assistant\n<think>\n"[-29:]


READS, NO_TOOLS, OTHER_FORM = "reads", "leaves out the name of tools", "in a form that is not known here"
TRL = {
    **dict.fromkeys(("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_vl", "llama3_1", "llama3_2"), READS),
    **dict.fromkeys(("gemma", "gemma3", "llama3", "phi3", "phi3_5", "cohere", "smolvlm", "deepseekv3"), NO_TOOLS),
    **dict.fromkeys(("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8", "nemotron_3_nano"), READS),
    **dict.fromkeys(("lfm2_2_5", "lfm2_v2", "muse_glimmer"), OTHER_FORM),
    "lfm2": "leaves out the calls",
}
"""Templates of the collection -> what becomes of them."""


@needs_trl
@pytest.mark.parametrize(("name", "found"), TRL.items())
def test_the_collection_of_trl(name: str, found: str) -> None:
    if found == READS:
        assert chat_of(name).grammar.opening.partition("\n")[0] in ("<tool_call>", "")
    else:
        with pytest.raises(ModelError, match=found):
            chat_of(name)
