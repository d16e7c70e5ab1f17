"""Rollouts through an endpoint: the same trajectories as the local engine's, and what failing servers leave behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swirl.comb.sampling import Sampling
from swirl.core.types import ActionKind, Step, Stop, Trajectory
from swirl.endpoints.client import Client, Endpoint, UnavailableError
from swirl.rollout.engine import Calls, Policy, roll_out
from swirl.rollout.remote import RemotePolicy, roll_out_remote
from tests import taught
from tests.servers import SHORT, THE_KEY, Reply, Scripted, answers, held_port, nobody, refused, said, scripted, serving
from tests.taught import CHAT, FIND, LONG, SAY, SCRIPT, SUM

GREEDY = Sampling(temperature=0.0, max_tokens=16)
CONTEXT = 256
CALLS = Calls(4, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught.saved(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def local() -> list[Trajectory]:
    """The trajectories that the local engine makes of the script."""
    return roll_out(Policy("taught", taught.model(), CHAT, CONTEXT), taught.attempts(), GREEDY, 7, 2, 3, CALLS)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


def remote(url: str, model: str, api: Any = "completions", key_env: str = "") -> list[Trajectory]:
    endpoint = Endpoint(url, model, api, key_env, retries=0, timeout_s=60)
    with Client(endpoint) as client:
        return roll_out_remote(RemotePolicy("taught", client, CHAT, CONTEXT), taught.attempts(), GREEDY, 7, 2, 3, CALLS)


def without_logprobs(made: list[Trajectory]) -> list[Trajectory]:
    """The same trajectories as a server without token ids gives them: retokenised, and without log-probabilities."""
    return [
        replace(t, steps=tuple(replace(step, logprobs=()) for step in t.steps), retokenised=bool(t.steps)) for t in made
    ]


def stopped(made: list[Trajectory]) -> list[Trajectory]:
    """The same trajectories as a server gives them that stops at the closing tag: the template closes the turn then."""

    def at_the_tag(step: Step) -> Step:
        if not step.action.payload:
            return step
        assert step.token_ids[-1] == CHAT.end_id
        after = (CHAT.end_id, *step.observation_ids) if step.observation_ids else ()
        return replace(step, token_ids=step.token_ids[:-1], logprobs=step.logprobs[:-1], observation_ids=after)

    ours = [replace(t, steps=tuple(map(at_the_tag, t.steps))) for t in made]
    for a, b in zip(ours, made, strict=True):
        last = len(a.steps) - 1
        assert a.state_ids(last) == b.state_ids(last)  # no state differs
    return ours


def logprobs(made: list[Trajectory]) -> list[list[tuple[float, ...]]]:
    return [[step.logprobs for step in trajectory.steps] for trajectory in made]


def test_the_script_is_what_the_local_engine_says(local: list[Trajectory]) -> None:
    """The tests below compare with these trajectories, so they must have steps and endings of many kinds."""
    assert [[step.action.text for step in made.steps] for made in local] == [
        [FIND, SAY],
        [SAY],
        [SUM, FIND, SAY],
        ["Rome", FIND, SAY],
        [LONG, "Rome"],
    ]
    assert [made.stop for made in local] == [Stop.ANSWERED] * 4 + [Stop.MALFORMED]
    assert len(local[4].steps[0].token_ids) == 16


@pytest.mark.parametrize("manners", ["vllm", "older"])
def test_token_ids_and_log_probabilities_are_the_local_engines(manners: str, url: str, local: list[Trajectory]) -> None:
    made, expected = remote(url, manners), stopped(local)
    assert without_logprobs(made) == without_logprobs(expected)
    assert not any(trajectory.retokenised for trajectory in made)
    for ours, theirs in zip(logprobs(made), logprobs(expected), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize(
    ("manners", "api"),
    [("text", "completions"), ("python", "completions"), ("python", "chat"), ("llama", "chat"), ("vllm", "chat")],
)
def test_without_token_ids_the_text_is_the_same_and_the_trajectory_says_so(
    manners: str, api: str, url: str, local: list[Trajectory]
) -> None:
    assert remote(url, manners, api) == without_logprobs(local)


def test_token_ids_that_leave_the_end_of_turn_and_the_closing_tag_out(url: str, local: list[Trajectory]) -> None:
    """llama.cpp: those of a cut action alone are whole. Others are encoded again, and their trajectory says so."""
    made = remote(url, "llama")
    assert all(trajectory.retokenised for trajectory in made)
    assert without_logprobs(made) == without_logprobs(local)
    assert made[4].steps[0].logprobs == pytest.approx(local[4].steps[0].logprobs, abs=1e-4)
    assert (
        not any(step.logprobs for trajectory in made[:4] for step in trajectory.steps) and not made[4].steps[1].logprobs
    )


@pytest.fixture
def transformers_serve(folder: Path) -> Iterator[str]:
    """The address of `transformers serve` with the taught model."""
    with held_port() as port:
        program = Path(sys.executable).with_name("transformers")
        command = [str(program), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            answers(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_transformers_serve_gives_the_same_trajectories(
    transformers_serve: str, folder: Path, local: list[Trajectory]
) -> None:
    """A server that is not ours: text in and out through both protocols, greedy on the same weights."""
    for api in ("completions", "chat"):
        assert remote(transformers_serve, str(folder), api) == without_logprobs(local)


def test_a_context_that_is_shorter_at_the_server(url: str, local: list[Trajectory]) -> None:
    """A trajectory that does not fit there ends as if our context were full, and keeps the steps that it had."""
    made = remote(url, "short")
    assert len(local[2].state_ids(2)) + 16 > SHORT
    assert [t.stop for t in made] == [Stop.ANSWERED] * 2 + [Stop.CONTEXT_FULL] * 3
    assert [step.action.text for step in made[2].steps] == [SUM, FIND]
    assert (made[2].error, made[2].steps[-1].observation_ids) == ("", ())


def test_a_wrong_key_and_a_wrong_model_end_it_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICY_KEY", "not-the-right-one")
    with pytest.raises(UnavailableError, match=r"set \$POLICY_KEY to a key that it accepts") as caught:
        remote(url, "locked", key_env="POLICY_KEY")
    assert "not-the-right-one" not in str(caught.value)
    monkeypatch.setenv("POLICY_KEY", THE_KEY)
    assert remote(url, "locked", key_env="POLICY_KEY")[0].stop is Stop.ANSWERED
    with pytest.raises(UnavailableError, match="`gemma` does not exist.; it serves llama, locked, older, pyth"):
        remote(url, "gemma")


def attempt(server: Scripted, sampling: Sampling = GREEDY, context: int = CONTEXT, **changes: Any) -> Trajectory:
    """The first trajectory of the script through a scripted server."""
    endpoint = replace(Endpoint(server.url, "m", "completions", retries=0, timeout_s=60), **changes)
    with Client(endpoint) as client:
        policy = RemotePolicy("m", client, CHAT, context)
        (made,) = roll_out_remote(policy, taught.attempts()[:1], sampling, 7, 2, 1, CALLS)
    return made


def exact(text: str, **more: Any) -> Reply:
    """An answer with its token ids and log-probabilities."""
    ids = list(CHAT.reply(text))
    return said(text, token_ids=ids, logprobs={"token_logprobs": [-0.25] * len(ids)}, **more)


def test_what_is_sent_and_what_comes_of_it() -> None:
    seen: list[int] = []
    with scripted(exact(FIND), exact(SAY)) as server, Client(Endpoint(server.url, "m", "completions")) as client:
        sampling = Sampling(0.7, 0.9, 5, 16)
        policy = RemotePolicy("m", client, CHAT, CONTEXT)
        (made,) = roll_out_remote(policy, taught.attempts()[:1], sampling, 7, 2, 1, CALLS, seen.append)
    assert seen == [1]
    first, second = server.bodies
    assert first["prompt"] == list(CHAT.prompt("what is born"))
    assert second["prompt"] == list(made.state_ids(1))
    assert (first["temperature"], first["top_p"], first["top_k"], first["max_tokens"]) == (0.7, 0.9, 5, 16)
    assert first["seed"] != second["seed"]
    assert first["stop_token_ids"] == [CHAT.end_id]
    assert first["stop"] == ["</search_query>", "</math_exp>", "</answer>"]
    assert first["include_stop_str_in_output"] is True
    step = made.steps[0]
    assert step.token_ids == CHAT.reply(FIND)
    assert step.logprobs == (-0.25,) * len(step.token_ids)
    assert step.observation.startswith("Ada born -> ")
    assert (made.id, made.stop, made.answer, made.retokenised) == ("what is born/0", Stop.ANSWERED, "Oslo", False)


def test_chat_sends_turns() -> None:
    with scripted(said(FIND), said(SAY)) as server:
        made = attempt(server, api="chat")
    roles = [turn["role"] for turn in server.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert [turn["content"] for turn in server.bodies[1]["messages"]] == [
        "what is born",
        FIND,
        made.steps[0].observation,
    ]
    assert (made.stop, made.retokenised, made.steps[0].logprobs) == (Stop.ANSWERED, True, ())
    assert made.steps[0].token_ids == CHAT.reply(FIND)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (refused(500, "out of memory"), "answered 500, tried once: out of memory"),
        (Reply(b"<html>"), "the answer is no JSON: '<html>'"),
        (Reply(b"{", claimed=99), "cut the connection (RemoteProtocolError), tried once"),
        (Reply({}, delay_s=120), "took longer than 3 s, tried once"),
        (said("", finish_reason="length"), "gave an empty answer (length)"),
    ],
)
def test_a_request_that_fails_ends_its_trajectory(reply: Reply, error: str) -> None:
    with scripted(exact(FIND), reply) as server:
        made = attempt(server, timeout_s=3 if reply.delay_s else 60)  # time enough for the first reply
    assert (made.stop, made.answer) == (Stop.TOOL_FAILED, "")
    assert error in made.error
    (step,) = made.steps
    assert (step.action.kind, step.observation_ids) == (ActionKind.SEARCH, ())


def only(made: Trajectory) -> Step:
    (step,) = made.steps
    return step


def test_odd_endings_of_an_action() -> None:
    ids = list(CHAT.reply(SAY))
    with scripted(said(SAY, token_ids=ids[:-1], logprobs={"token_logprobs": [-1] * (len(ids) - 1)})) as server:
        made = attempt(server)  # stopped at the closing tag
    assert (only(made).token_ids, only(made).logprobs) == (tuple(ids[:-1]), (-1,) * (len(ids) - 1))
    assert not made.retokenised
    what = list(CHAT.encode("what"))
    with scripted(said("what", token_ids=what, logprobs={"token_logprobs": [-1]}), exact(SAY)) as server:
        made = attempt(server)  # the end of turn was sampled but not returned
    assert (made.steps[0].token_ids, made.steps[0].logprobs, made.retokenised) == (CHAT.reply("what"), (), True)
    with scripted(said(SAY, token_ids=[*ids, 7], logprobs={"token_logprobs": [-1.0] * len([*ids, 7])})) as server:
        made = attempt(server)  # tokens follow the end of turn
    assert (only(made).token_ids, only(made).logprobs) == (tuple(ids), (-1.0,) * len(ids))
    with scripted(said(SAY, token_ids=ids)) as server:
        made = attempt(server)  # ids, but no log-probabilities
    assert (only(made).token_ids, only(made).logprobs, made.retokenised) == (tuple(ids), (), True)
    limit = replace(GREEDY, max_tokens=len(ids))
    usage = {"prompt_tokens": 9, "completion_tokens": len(ids)}
    choice = {"text": SAY, "finish_reason": "length"}
    with scripted(Reply({"choices": [choice], "usage": usage})) as server:
        made = attempt(server, limit)  # the end of turn took the last token allowed
    assert only(made).token_ids == tuple(ids)
    with scripted(Reply({"choices": [choice]})) as server:
        made = attempt(server, limit)  # without usage, nothing says so
    assert only(made).token_ids == tuple(ids[:-1])
    echo = CHAT.markup([("user", "what is born")]) + f" {SAY} <|end|>"
    with scripted(said(echo)) as server:
        assert only(attempt(server, api="chat")).token_ids == tuple(ids)  # the answer repeats the prompt
    with scripted(said("what " * 400)) as server:
        made = attempt(server)
    assert made.steps[0].token_ids == CHAT.encode("what " * 16)
    with scripted(said("")) as server:
        made = attempt(server)
    assert (made.stop, made.steps[0].token_ids) == (Stop.MALFORMED, (CHAT.end_id,))


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_thought_alone_is_a_step_at_a_server_too(api: Any) -> None:
    thought = replace(taught.attempts()[0], thoughts=True)
    replies = exact("Rome"), exact("Rome is born"), exact(SAY)
    with scripted(*replies) as server, Client(Endpoint(server.url, "m", api)) as client:
        (made,) = roll_out_remote(RemotePolicy("m", client, CHAT, CONTEXT), [thought], GREEDY, 7, 2, 1, CALLS)
    assert [step.action.kind for step in made.steps] == ["think", "think", "answer"]
    assert [step.observation for step in made.steps] == ["go on", "go on", ""]


INVENTED = f"{FIND} -> Ada was born in Rome."


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_server_that_does_not_stop_at_the_call(api: str, finish: str) -> None:
    """The invented result is left out, of token ids (which stay exact) and of text; the tool is called."""
    ids = list(CHAT.reply(INVENTED))
    known = {"token_ids": ids, "logprobs": {"token_logprobs": [-0.25] * len(ids)}}
    with scripted(said(INVENTED, finish_reason=finish, **known), exact(SAY)) as server:
        made = attempt(server, replace(GREEDY, max_tokens=32), api=api)
    first = made.steps[0]
    assert (first.action.text, first.action.payload, made.answer) == (FIND, "Ada born", "Oslo")
    assert first.token_ids == CHAT.encode(FIND)
    assert made.state_ids(1) == (*CHAT.prompt("what is born"), *CHAT.reply(FIND), *CHAT.turn(first.observation, True))
    assert first.logprobs == ((-0.25,) * len(first.token_ids) if api == "completions" else ())
    assert made.retokenised == (api == "chat")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<search_query> Ada born ", FIND),
        ("<<search_query>> Ada born <", "<<search_query>> Ada born <</search_query>>"),
        ("<<search_query>> Ada born <</search_query>", "<<search_query>> Ada born <</search_query>>"),
    ],
)
def test_a_server_that_does_not_return_the_string_it_stops_at(text: str, whole: str) -> None:
    with scripted(said(text), exact(SAY)) as server:
        made = attempt(server, replace(GREEDY, max_tokens=64), api="chat")
    assert (made.steps[0].action.text, made.steps[0].action.payload) == (whole, "Ada born")
    with scripted(said(text, finish_reason="length"), exact(SAY)) as server:
        made = attempt(
            server, replace(GREEDY, max_tokens=64), api="chat"
        )  # cut, so that nothing says that the model would have stopped there
    assert made.steps[0].action.payload == ""


def test_ids_that_no_text_gives_back_are_kept() -> None:
    spelled = CHAT.tokenizer.convert_tokens_to_ids(["▁<answer>", "▁O", "##s", "##l", "##o", "▁</answer>", "<|end|>"])
    with scripted(said(SAY, token_ids=spelled, logprobs={"token_logprobs": [-1.0] * 7})) as server:
        made = attempt(server)
    assert (made.answer, made.retokenised) == ("Oslo", False)
    assert only(made).token_ids == tuple(spelled) != CHAT.reply(SAY)


def test_limits_are_the_local_engines() -> None:
    needed = len(CHAT.prompt("what is born")) + 16
    with scripted(exact(SAY)) as server:
        assert attempt(server, context=needed - 1).stop is Stop.CONTEXT_FULL
        assert server.bodies == []
        assert attempt(server, context=needed).stop is Stop.ANSWERED
    with scripted(exact(FIND)) as server:
        made = attempt(server)
    assert (made.stop, len(made.steps)) == (Stop.STEP_LIMIT, 5)


def test_a_server_that_is_gone_ends_it_all() -> None:
    gone = pytest.raises(UnavailableError, match="is the server running there")
    with nobody() as url, Client(Endpoint(url, "m", "completions", retries=0)) as client, gone:
        roll_out_remote(RemotePolicy("m", client, CHAT, CONTEXT), taught.attempts(), GREEDY, 7, 2, 2, CALLS)


def test_an_interruption_ends_conversations_in_flight_and_their_requests() -> None:
    """One conversation is through, when Ctrl-C is pressed; the others would go on, and wait for the server."""
    through, released = threading.Event(), threading.Event()
    late = list[bool]()

    def answer(body: dict[str, Any]) -> Reply:
        if CHAT.text(body["prompt"]).startswith("Ada"):
            return exact(SAY)
        if through.is_set():
            late.append(not released.wait(60))
            return exact(SAY)
        return exact(SUM)

    def interrupted(count: int) -> None:
        through.set()
        raise KeyboardInterrupt

    first = taught.attempts()[1]
    others = [replace(one, max_steps=1_000_000) for one in (taught.attempts()[0], *taught.attempts()[2:])]
    with Scripted(answer) as server, Client(Endpoint(server.url, "m", "completions", timeout_s=300)) as client:
        policy = RemotePolicy("m", client, CHAT, 1 << 40)
        with pytest.raises(KeyboardInterrupt):
            roll_out_remote(policy, [first, *others], GREEDY, 7, 2, 3, CALLS, interrupted)
        assert not late  # the server has not answered yet
        released.set()


def test_many_in_flight_stay_in_order(tmp_path: Path) -> None:
    """More attempts than may be in flight; the second time, everything comes from the cache."""

    def answer(body: dict[str, Any]) -> Reply:
        asked = CHAT.text(body["prompt"])
        turn = body["prompt"].count(CHAT.end_id) // 2
        prompt = next(prompt for prompt in sorted(SCRIPT, key=len, reverse=True) if asked.startswith(prompt))
        return exact(SCRIPT[prompt][turn])

    made = []
    with Scripted(answer) as server:
        for _ in range(2):
            with Client(Endpoint(server.url, "m", "completions"), tmp_path) as client:
                policy = RemotePolicy("m", client, CHAT, CONTEXT)
                made.append(roll_out_remote(policy, taught.attempts() * 4, GREEDY, 7, 2, 3, CALLS))
        assert client.counts.requests == 0
    assert [t.question_id for t in made[0]] == list(SCRIPT) * 4
    assert [t.stop for t in made[0]] == ([Stop.ANSWERED] * 4 + [Stop.MALFORMED]) * 4
    assert made[0] == made[1]
