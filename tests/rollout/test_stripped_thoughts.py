"""Rollouts with `actions.thinking: strip`: states are as the template writes them, here and behind a server."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from swirl.comb.sampling import Sampling
from swirl.core.types import Question, Trajectory
from swirl.endpoints.client import Client, Endpoint
from swirl.models.chat import KEPT, STRIPPED, Chat
from swirl.models.native_chat import STRIPPED_LATER, AnyChat, NativeChat
from swirl.rollout.engine import Attempt, Calls, Policy, roll_out
from swirl.rollout.reading import reader_of
from swirl.rollout.remote import RemotePolicy, roll_out_remote
from swirl.tools.schemas import signatures_of
from tests import families, servers, tool_templates
from tests.scripted_model import Scripted
from tests.servers import Reply, said, scripted
from tests.taught import TOOLS
from tests.tool_templates import HERMES, THINKING, needs_trl, tokenizer

ASKED = "Where was Ada born?"
GREEDY, CONTEXT = Sampling(temperature=0.0, max_tokens=250), 2000
TAGS = Chat(families.qwen3(), thinking=True, strip=True)
BEGUN = NativeChat(tokenizer(THINKING), thinking=True, strip=True)


def attempt() -> Attempt:
    return Attempt(Question("q", "mini", "train", ASKED, ("Oslo",), 2, ("search",)), 0, ASKED, TOOLS, 5)


def run(chat: AnyChat, script: dict[tuple[int, ...], list[str]], opening: str) -> Trajectory:
    """The trajectory of a model that says these replies in conversations that begin so."""
    replies = {prompt: [chat.reply(text) for text in texts] for prompt, texts in script.items()}
    model = Scripted(chat, replies, tuple(chat._encode(opening)), CONTEXT)
    (made,) = roll_out(Policy("scripted", model, chat, CONTEXT), [attempt()], GREEDY, 7, 2, 1, Calls(4, 1))
    return made


SAID = [
    "<think>\nI could <answer> guess </answer>.\n</think>\n\n<search_query> Ada born </search_query>",
    "<math_exp> 2 * 3 </math_exp>",
    "<think>\nNow.\n</think>\n\n<answer> Oslo </answer>",
]


def in_tags() -> Trajectory:
    return run(TAGS, {TAGS.prompt(ASKED): SAID}, "<|im_start|>assistant\n")


def test_a_thought_is_gone_from_the_next_state_and_nothing_else_is() -> None:
    made = in_tags()
    assert [(step.action.kind, step.action.payload) for step in made.steps] == [
        ("search", "Ada born"), ("calculate", "2 * 3"), ("answer", "Oslo")
    ]  # fmt: skip
    assert [[step.index for step in piece] for piece in made.pieces] == [[0], [1, 2]]
    messages = [{"role": "user", "content": ASKED}]
    for step in made.steps:
        sent = TAGS.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert list(made.state_ids(step.index)) == list(sent)
        assert TAGS.text(step.token_ids) == SAID[step.index]
        messages += [
            {"role": "assistant", "content": step.action.text}, {"role": "user", "content": step.observation}
        ]  # fmt: skip
    assert made.steps[0].observation_ids == () != made.steps[1].observation_ids
    assert made.steps[1].rewritten_ids == made.state_ids(1) and made.steps[2].rewritten_ids == ()


def test_a_server_is_sent_the_same_states() -> None:
    local = in_tags()
    with (
        scripted(*(said(text, token_ids=list(TAGS.reply(text))) for text in SAID)) as server,
        Client(Endpoint(server.url, "m", "completions", retries=0)) as client,
    ):
        policy = RemotePolicy("m", client, TAGS, CONTEXT)
        (made,) = roll_out_remote(policy, [attempt()], GREEDY, 7, 2, 1, Calls(4, 1))
    assert [body["prompt"] for body in server.bodies] == [list(local.state_ids(k)) for k in range(3)]

    def bare(steps: Any) -> list[Any]:
        return [dataclasses.replace(step, logprobs=()) for step in steps]

    assert bare(made.steps) == bare(local.steps)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_server_does_not_stop_at_a_tag_that_a_thought_names(api: Any) -> None:
    """It stops where it is asked to, and otherwise goes on after the call, which is left out."""
    waiting = [SAID[0] + " -> Ada was born in Rome.", *SAID[1:]]

    def answer(body: dict[str, Any]) -> Reply:
        text = waiting.pop(0)
        ends = [text.index(stop) + len(stop) for stop in body.get("stop", []) if stop in text]
        return said(text[: min(ends, default=len(text))])

    with servers.Scripted(answer) as server, Client(Endpoint(server.url, "m", api, retries=0)) as client:
        policy = RemotePolicy("m", client, TAGS, CONTEXT)
        (made,) = roll_out_remote(policy, [attempt()], GREEDY, 7, 2, 1, Calls(4, 1))
    assert [(step.action.text, step.action.payload) for step in made.steps] == [
        (SAID[0], "Ada born"), (SAID[1], "2 * 3"), (SAID[2], "Oslo")
    ]  # fmt: skip


OPENS = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'].split('</think>')[-1].lstrip() }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""
"""A template that opens a thought where the model's turn starts."""


@pytest.mark.parametrize(
    ("chat", "opening"),
    [(Chat(families.qwen3(), thinking=True), "<think>\n"), (Chat(tokenizer(OPENS), thinking=True), "")],
)
def test_a_thought_that_a_server_gives_apart_is_part_of_the_action(chat: Chat, opening: str) -> None:
    def reply(content: str | None, thought: str, finish: str = "stop") -> Reply:
        message = {"role": "assistant", "content": content, "reasoning_content": thought}
        return said("", message=message, finish_reason=finish)

    replies = [reply(None, "I could <answer> guess </answer>", "length"), reply("<answer> Oslo </answer>", "Now.")]
    with scripted(*replies) as server, Client(Endpoint(server.url, "m", "chat", retries=0)) as client:
        policy = RemotePolicy("m", client, chat, CONTEXT)
        (made,) = roll_out_remote(policy, [attempt()], GREEDY, 7, 2, 1, Calls(4, 1))
    assert [(step.action.kind, step.action.text, step.action.payload) for step in made.steps] == [
        ("cut", f"{opening}I could <answer> guess </answer>\n", ""),
        ("answer", f"{opening}Now.\n</think>\n\n<answer> Oslo </answer>", "Oslo"),
    ]
    assert chat.text(made.steps[1].token_ids) == made.steps[1].action.text


def test_a_thought_that_the_template_opens_itself() -> None:
    """Its native calls: the state after one has neither the thought nor its opening."""
    call = '<call>{"name": "search", "arguments": {"query": "Ada born"}}</call>'
    first, last = f"Look <call> up.</think>{call}", "Done.</think><answer> Oslo </answer>"
    functions = [schema.function for schema in signatures_of(TOOLS.values()).schemas.values()]
    prompt = BEGUN.prompt(ASKED, functions)
    result = "Ada was born in Oslo."

    def rendered(*more: dict[str, Any]) -> tuple[int, ...]:
        messages = [{"role": "user", "content": ASKED}, *more]
        ids = BEGUN.tokenizer.apply_chat_template(
            messages, tools=functions, add_generation_prompt=True, return_dict=False, enable_thinking=True
        )
        return tuple(ids)

    called = {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "search", "arguments": {"query": "Ada born"}}}
    ]}  # fmt: skip
    result = TOOLS["search"].run("Ada born")
    second = rendered(called, {"role": "tool", "content": result})
    made = run(BEGUN, {prompt: [first], second: [last]}, "<|im_start|>nobody\n")
    assert made.state_ids(0) == rendered() == prompt
    assert made.state_ids(1) == made.steps[1].rewritten_ids == second
    assert (made.answer, made.steps[0].action.kind) == ("Oslo", "search")
    reader = reader_of(BEGUN, TOOLS, False)
    assert reader.anew(ASKED, "", made.steps[:1]) == second


def test_what_a_template_does_with_past_thoughts_is_said() -> None:
    assert TAGS.notes == BEGUN.notes[-1:] == (STRIPPED,)
    assert Chat(families.smollm2(), thinking=True, strip=True).notes == (KEPT,)
    assert Chat(families.qwen3(), thinking=True).strips is False
    assert NativeChat(tokenizer(HERMES.replace("+ m.content }}", "+ (m.reasoning_content or '') + m.content }}")),
                      thinking=True, strip=True).notes[-1] == KEPT  # fmt: skip


@needs_trl
def test_qwen3_keeps_thoughts_in_a_loop_of_calls_and_drops_them_before_a_user_turn() -> None:
    chat = NativeChat(tokenizer(tool_templates.real("qwen3")), thinking=True, strip=True)
    assert chat.notes == (STRIPPED_LATER,) and not chat.strips
