"""Rollouts in a model's own tool format: real tools, several calls in a turn, and the template's own tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from swirl.comb.sampling import Sampling
from swirl.core.types import Action, ActionKind, Observation, Question, Stop, Trajectory
from swirl.endpoints.client import Client, Endpoint
from swirl.models.chat import Chat
from swirl.models.native_chat import NativeChat
from swirl.rollout.engine import Attempt, Calls, Policy, roll_out
from swirl.rollout.native_reading import NativeReader
from swirl.rollout.reading import Reader, reader_of
from swirl.rollout.remote import RemotePolicy, roll_out_remote
from swirl.tools.schemas import signatures_of
from tests import families
from tests.scripted_model import Scripted
from tests.servers import Reply, said, scripted
from tests.taught import SEARCH, TOOLS
from tests.tool_templates import HERMES, LLAMA, MISTRAL, THINKING, tokenizer

CHAT = NativeChat(tokenizer(HERMES))
GREEDY = Sampling(temperature=0.0, max_tokens=250)
CONTEXT = 2000
ASKED = "Where was Ada born?"


def called(name: str, argument: str, value: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"{argument}": "{value}"}}}}\n</tool_call>'


FIND, SUM = called("search", "query", "Ada born"), called("calculator", "expression", "2 * 3")
FOUND = SEARCH.run("Ada born")


def attempt(max_steps: int = 5, thoughts: bool = False, system: str = "", tools: Any = TOOLS) -> Attempt:
    question = Question("q", "mini", "train", ASKED, ("Oslo",), 2, ("search",))
    return Attempt(question, 0, ASKED, tools, max_steps, thoughts, system)


def run(replies: list[Any], one: Attempt | None = None, chat: NativeChat = CHAT) -> Trajectory:
    """The trajectory of a model that says these replies; a text gets an end of turn, tokens do not."""
    one = one or attempt()
    ids = [chat.reply(reply) if isinstance(reply, str) else reply for reply in replies]
    prompt = reader_of(chat, one.tools, one.thoughts).prompt(ASKED, one.system)
    opening = tuple(chat._encode(chat._pieces.generation)) or tuple(chat._encode("[/TOOL_RESULTS]"))
    model = Scripted(chat, {prompt: ids}, opening, CONTEXT)
    (made,) = roll_out(Policy("scripted", model, chat, CONTEXT), [one], GREEDY, 7, 2, 1, Calls(4, 1))
    for k, step in enumerate(made.steps):
        assert chat.text(step.token_ids) == step.action.text
        assert (step.observation_ids == ()) == (k == len(made.steps) - 1)
    return made


def test_calls_and_results_are_the_templates_tokens_and_an_answer_is_what_the_tags_hold() -> None:
    """One turn of two calls is one action with two observations; the whole is what the template itself renders."""
    made = run([f"Both.\n{FIND}\n{SUM}", FIND, "So: <answer> Oslo </answer>"], attempt(system="Be brief."))
    first, second, last = made.steps
    assert first.action == Action("search", f"Both.\n{FIND}\n{SUM}", "Ada born")
    assert first.observations == (
        Observation(FOUND, False, "search", "Ada born"),
        Observation("6", False, "calculate", "2 * 3"),
    )
    assert [action.payload for action in first.actions] == ["Ada born", "2 * 3"]
    assert (second.action.payload, second.observation) == ("Ada born", FOUND)
    assert last.action == Action("answer", "So: <answer> Oslo </answer>", "Oslo")
    assert (made.stop, made.answer, len(first.logprobs)) == (Stop.ANSWERED, "Oslo", len(first.token_ids))

    def turn(content: str, *names: str) -> dict[str, Any]:
        payloads = {"search": {"query": "Ada born"}, "calculator": {"expression": "2 * 3"}}
        calls = [{"type": "function", "function": {"name": n, "arguments": payloads[n]}} for n in names]
        return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}

    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ASKED},
        turn("Both.", "search", "calculator"),
        {"role": "tool", "content": FOUND},
        {"role": "tool", "content": "6"},
        turn("", "search"),
        {"role": "tool", "content": FOUND},
        turn("So: <answer> Oslo </answer>"),
    ]
    functions = [schema.function for schema in signatures_of(TOOLS.values()).schemas.values()]
    whole = CHAT.tokenizer.apply_chat_template(messages, tools=functions, return_dict=False)
    ids = [*made.state_ids(2), *last.token_ids]
    assert list(whole)[: len(ids)] == ids
    assert CHAT.markup(whole[len(ids) :]) == "\n"


def test_an_answer_without_tags_is_the_whole_turn_and_a_thought_where_thoughts_are_steps() -> None:
    made = run(["In Oslo."])
    assert (made.steps[0].action, made.stop) == (Action("answer", "In Oslo.", "In Oslo."), Stop.ANSWERED)
    thinker = run(["In Oslo.", "<answer> Oslo </answer>"], attempt(thoughts=True))
    assert [step.action.kind for step in thinker.steps] == ["think", "answer"]
    assert (thinker.steps[0].observation, thinker.answer) == ("go on", "Oslo")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<tool_call>",
        '<tool_call>{"name": "search"</tool_call>',
        called("capital", "query", "Norway"),
        called("search", "text", "Ada"),
        called("search", "query", " "),
        f"{FIND}\nAda was born in Rome.",
        f"{FIND}\n<answer> Oslo </answer>",
        f"<answer> Oslo </answer>\n{FIND}",
        f"{FIND}\n{called('capital', 'query', 'Norway')}",
        "<answer> Oslo",
        "<answer> Oslo </answer> <answer> Rome </answer>",
    ],
)
def test_what_is_malformed_is_answered_by_a_result_and_recorded(text: str) -> None:
    made = run([text, "<answer> Oslo </answer>"])
    step = made.steps[0]
    assert step.action == Action("malformed", text, "")
    assert step.observations == (Observation("error: give one call or one answer", error=False),)
    assert CHAT.markup(step.observation_ids) == (
        "\n<|im_start|>tool\n<tool_response>\nerror: give one call or one answer\n</tool_response>\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert made.stop is Stop.ANSWERED
    assert run([text, text, "<answer> Oslo </answer>"]).stop is Stop.MALFORMED


def test_a_tool_that_fails_and_a_turn_that_is_cut() -> None:
    made = run([called("calculator", "expression", "1 / 0"), CHAT.encode("word " * 300), "<answer> Oslo </answer>"])
    failed, cut, _ = made.steps
    assert (failed.action.kind, failed.observations[0].error) == ("calculate", True)
    assert failed.observation.startswith("error: ")
    assert (cut.action.kind, len(cut.token_ids)) == ("cut", 250)
    assert CHAT.markup(cut.observation_ids).startswith("<|im_end|>\n<|im_start|>tool\n")
    assert made.stop is Stop.ANSWERED


def test_without_tools_there_are_none_in_the_prompt_and_a_call_is_malformed() -> None:
    made = run(["Oslo"], attempt(1, tools={}))
    assert CHAT.markup(made.prompt_ids) == f"<|im_start|>user\n{ASKED}<|im_end|>\n<|im_start|>assistant\n"
    assert (made.answer, made.stop) == ("Oslo", Stop.ANSWERED)
    assert run([FIND], attempt(1, tools={})).steps[0].action.kind == "malformed"


def test_a_thought_names_calls_in_vain_and_stays_in_the_states() -> None:
    chat = NativeChat(tokenizer(THINKING), thinking=True)
    find = '<call>{"name": "search", "arguments": {"query": "Ada born"}}</call>'
    texts = [f"Not {SUM}, nor {find}.</think>{find}", "<answer> no </answer></think>Oslo", f"Well, {find}"]
    made = run(texts, chat=chat)
    assert [(step.action.kind, step.action.payload) for step in made.steps] == [
        ("search", "Ada born"),
        ("answer", "Oslo"),
    ]
    assert texts[0] in chat.markup(made.state_ids(1))
    assert chat.markup(made.prompt_ids).endswith("<|im_start|>assistant\n<think>\n")
    (unfinished, _) = run([texts[2], texts[1]], chat=chat).steps
    assert unfinished.action == Action("malformed", texts[2], "")


@pytest.mark.parametrize(
    ("template", "text", "result"),
    [
        (LLAMA, '{"name": "calculator", "parameters": {"expression": "2 * 3"}}', '"6"'),
        (MISTRAL, '[TOOL_CALLS] [{"name": "calculator", "arguments": {"expression": "2 * 3"}, "id": "abcdef123"}]',
         '{"content": 6, "call_id": "abcdef123"}'),
    ],
)  # fmt: skip
def test_other_families(template: str, text: str, result: str) -> None:
    chat = NativeChat(tokenizer(template))
    made = run([text, "Six."], chat=chat)
    assert made.steps[0].action == Action("calculate", text, "2 * 3")
    assert result in chat.markup(made.steps[0].observation_ids)
    assert made.answer == "Six."


def remote(replies: list[Reply], chat: NativeChat = CHAT) -> tuple[Trajectory, list[dict[str, Any]]]:
    with scripted(*replies) as server, Client(Endpoint(server.url, "m", "completions", retries=0)) as client:
        policy = RemotePolicy("m", client, chat, CONTEXT)
        (made,) = roll_out_remote(policy, [attempt()], GREEDY, 7, 2, 1, Calls(4, 1))
    return made, server.bodies


def test_a_server_makes_the_trajectory_of_the_local_engine() -> None:
    """With token ids; without, from its text, which is marked."""
    texts = [f"Both.\n{FIND}\n{SUM}", "<answer> Oslo </answer>"]
    local = run(texts)
    ids = [list(CHAT.reply(text)) for text in texts]
    exact = [
        said(t, token_ids=i, logprobs={"token_logprobs": [-0.25] * len(i)}) for t, i in zip(texts, ids, strict=True)
    ]
    made, bodies = remote(exact)
    assert [body["prompt"] for body in bodies] == [list(local.state_ids(0)), list(local.state_ids(1))]
    assert (bodies[0]["stop_token_ids"], "stop" in bodies[0]) == (sorted(CHAT.end_ids), False)

    def same(steps: Any) -> list[Any]:
        return [dataclasses.replace(step, logprobs=()) for step in steps]

    assert same(made.steps) == same(local.steps)
    assert (made.retokenised, made.answer) == (False, "Oslo")
    made, _ = remote([said(text) for text in texts])
    assert same(made.steps) == same(local.steps)
    assert made.retokenised


def test_a_server_whose_text_lacks_the_tokens_that_tell_a_call_ends_the_trajectory() -> None:
    chat = NativeChat(tokenizer(MISTRAL))
    made, _ = remote([said(' [{"name": "calculator", "arguments": {"expression": "2 * 3"}}]')], chat)
    assert (made.stop, made.steps) == (Stop.TOOL_FAILED, ())
    assert "gives no token ids, and this model's calls are told by special tokens" in made.error


def test_a_reader_for_training_is_the_rollouts() -> None:
    from swirl.rollout.reading import reader_for

    signatures = signatures_of(TOOLS.values())
    reader = reader_for(CHAT, signatures)
    assert isinstance(reader, NativeReader)
    assert reader.read(CHAT.reply(FIND)) == Action(ActionKind.SEARCH, FIND, "Ada born")
    assert reader.cut(CHAT.encode(FIND))
    assert not reader.cut(CHAT.reply(FIND))
    assert list(reader.tags.values()) == ["search", "calculate"]


def test_in_tags_a_tag_that_a_thought_names_is_no_call() -> None:
    chat = Chat(families.qwen3(), thinking=True)
    reader = Reader(chat, {"search_query": "search"}, thoughts=True)
    find, say = "<search_query> Ada </search_query>", "<answer> Oslo </answer>"

    def read(text: str, reader: Reader = reader) -> tuple[str, str]:
        action = reader.read(chat.reply(text))
        assert action.text == text
        return action.kind, action.payload

    assert read(f"<think>\n{find}, or {say}?\n</think>\n\n{find}") == ("search", "Ada")
    assert read(f"<think>{find}</think>{say}") == ("answer", "Oslo")
    assert read(f"<think>{find}</think>I go on.") == ("think", "")
    assert read(f"<think>{find}") == ("malformed", "")
    assert read(f"no thought: {find}") == ("search", "Ada")
    assert read(f"<think>{find}</think>{say}", Reader(Chat(families.qwen3()), {"search_query": "search"})) == (
        "malformed",
        "",
    )
    ids = chat.encode(f"<think>{find}</think>{find}")
    assert [n for n in range(1, len(ids) + 1) if reader.complete(ids[:n])][:1] == [len(ids)]
    assert reader.cut(chat.encode(f"<think>{find}"))
    assert reader.written(f"<think>{find}</think>{find} -> Oslo") == f"<think>{find}</think>{find}"
