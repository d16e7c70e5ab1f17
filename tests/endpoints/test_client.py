"""The client against real servers on 127.0.0.1, well-behaved and faulty ones."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from swirl.core.errors import DataError, ModelError
from swirl.endpoints import client as client_module
from swirl.endpoints.cache import Cache
from swirl.endpoints.client import (
    Answer,
    Ask,
    Client,
    ContextError,
    Counts,
    Endpoint,
    EndpointError,
    Message,
    RefusedError,
    UnavailableError,
)
from tests.servers import Reply, Scripted, held_port, invalid, refused, said, scripted

KEY = "sk-0123456789abcdef-secret"
ASK = Ask((Message("user", "hello"),), 8, text="hello")
IDS = dataclasses.replace(ASK, ids=(1, 2, 3), stop_ids=(9,))


def endpoint(server: Scripted, **changes: Any) -> Endpoint:
    plain = Endpoint(server.url, "llama", "chat", retries=2, timeout_s=60)
    return dataclasses.replace(plain, **changes)


def failure(server: Scripted, ask: Ask = ASK, **changes: Any) -> EndpointError:
    """The error that asking a scripted server raises."""
    with Client(endpoint(server, **changes)) as client, pytest.raises(EndpointError) as caught:
        client.complete(ask)
    assert client.counts.failures == 1
    return caught.value


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the back-off of the openai package begin at a hundredth of a second instead of half a second."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def test_an_answer_and_what_was_sent() -> None:
    with scripted(said("Hi.")) as server, Client(endpoint(server, cost_per_million_input=3.0)) as client:
        assert client.complete(ASK) == Answer("Hi.", "stop", None, None, 10, 5)
        assert client.counts == Counts(1, 0, 0, 0, 10, 5, cost=pytest.approx(3e-5))
    assert server.bodies == [
        {
            "model": "llama",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 8,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "repeat_penalty": 1.0,
            "seed": 0,
        }
    ]
    sent = server.headers[0]
    assert not {"authorization", "openai-organization", "openai-project"} & set(sent)


def test_completions_send_token_ids_and_ask_for_them() -> None:
    reply = said("Hi.", token_ids=[7, 9], logprobs={"token_logprobs": [-0.5, 0.0]}, prompt_token_ids=[1, 2, 3])
    with scripted(reply) as server, Client(endpoint(server, api="completions")) as client:
        assert client.complete(IDS) == Answer("Hi.", "stop", (7, 9), (-0.5, 0.0), 10, 5)
    (sent,) = server.bodies
    assert sent["prompt"] == [1, 2, 3]
    assert (sent["return_token_ids"], sent["logprobs"], sent["stop_token_ids"]) == (True, 1, [9])


@pytest.mark.parametrize(
    ("choice", "ids", "logprobs"),
    [
        ({"logprobs": {"tokens": ["token_id:7", "token_id:9"], "token_logprobs": [-1, -2]}}, (7, 9), (-1.0, -2.0)),
        ({"logprobs": {"content": [{"id": 7, "logprob": -1.0}]}}, (7,), (-1.0,)),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [1e-7]}}, (7,), (0.0,)),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [float("nan")]}}, (7,), None),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [float("-inf")]}}, (7,), None),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [-(10**400)]}}, (7,), None),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [0.5]}}, (7,), None),
        ({"token_ids": [7], "logprobs": {"token_logprobs": [-1.0, -1.0]}}, (7,), None),
        ({"token_ids": [7], "logprobs": None}, (7,), None),
        ({"token_ids": [7], "logprobs": [1, 2]}, (7,), None),
        ({"token_ids": [-7]}, None, None),
        ({"token_ids": [True]}, None, None),
        ({"token_ids": [2**40]}, None, None),
        ({"token_ids": "7"}, None, None),
        ({"token_ids": []}, None, None),
        ({"token_ids": [7] * 9}, None, None),  # more than were asked for
        ({"token_ids": [7], "prompt_token_ids": [0, 1, 2, 3]}, None, None),  # the server read another prompt
        ({"logprobs": {"tokens": ["Hi", "."], "token_logprobs": [-1, -2]}}, None, None),
        ({}, None, None),
    ],
)
def test_tokens_are_taken_only_as_they_fit(
    choice: dict[str, Any], ids: tuple[int, ...] | None, logprobs: tuple[float, ...] | None
) -> None:
    with scripted(said("Hi.", **choice)) as server, Client(endpoint(server, api="completions")) as client:
        assert client.complete(IDS) == Answer("Hi.", "stop", ids, logprobs, 10, 5)


def test_retry_after_is_honoured() -> None:
    busy = refused(429, "slow down", **{"Retry-After": "0.3"})
    with scripted(busy, refused(500, "oh"), said("Hi.")) as server, Client(endpoint(server)) as client:
        assert client.complete(ASK).text == "Hi."
        assert client.counts == Counts(requests=1, retries=2, prompt_tokens=10, completion_tokens=5)
    assert server.times[1] - server.times[0] >= 0.3


def test_retries_end() -> None:
    with scripted(refused(500, "the GPU is on fire")) as server:
        text = str(failure(server))
    assert text == f"{server.url} (llama) answered 500, tried 3 times: the GPU is on fire"
    assert len(server.bodies) == 3


def test_a_slow_answer_times_out_and_is_asked_again() -> None:
    slow = Reply({}, delay_s=60)
    with scripted(slow, said("Hi.")) as server, Client(endpoint(server, timeout_s=1.0, retries=9)) as client:
        assert client.complete(ASK).text == "Hi."
        assert client.counts.retries >= 1  # on a busy machine even a good answer may take longer than a second
    with scripted(slow) as server:
        text = str(failure(server, timeout_s=1.0, retries=1))
    assert text == f"{server.url} (llama) took longer than 1 s, tried 2 times: raise timeout_s, or lower concurrency"


def test_an_answer_that_drips_is_not_waited_for() -> None:
    with scripted(Reply(b"x" * 600, drip_s=0.1)) as server:
        begin = time.monotonic()
        assert "took longer than 1 s" in str(failure(server, timeout_s=1.0, retries=0))
    assert time.monotonic() - begin < 40


@pytest.mark.parametrize(
    ("first", "then"), [(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x")]
)
def test_headers_that_drip_are_not_waited_for(first: bytes, then: bytes) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):  # the client has left
            connection.recv(2**16)
            connection.sendall(first)
            while True:
                connection.sendall(then)
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with Client(Endpoint(url, "llama", "chat", retries=0, timeout_s=1.0)) as client:
            error = client.submit(ASK).exception(60)
    assert "took longer than 1 s, tried once" in str(error)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b""), "the answer is no JSON"),
        (Reply(b"<html>busy</html>"), "the answer is no JSON: '<html>busy</html>'"),
        (Reply(b"[" * 100_000), "the answer is no JSON"),
        (Reply(b"\xff\xfe"), "the answer is no JSON"),
        (Reply({"choices": []}), "the answer has no choices"),
        (Reply({"choices": 3}), "the answer has no choices"),
        (Reply([]), "the answer has no choices"),  # type: ignore[arg-type]
        (Reply({"error": {"message": "overloaded"}}), "the answer has no choices: 'overloaded'"),
        (Reply({"choices": [{"message": {"content": 5}}]}), "the answer's first choice has no text"),
        (Reply({"choices": [{"message": "Hi"}]}), "the answer's first choice has no text"),
        (Reply(b'{"choices": [' + b"[" * 900 + b"]" * 900 + b"]}"), "the answer has no choices"),
        (Reply(b'{"choices": [{"x": ' + b"[" * 900 + b"]" * 900 + b"}]}"), "the answer's first choice has no text"),
    ],
)
def test_junk_for_an_answer_is_asked_again_as_a_500_is(reply: Reply, message: str) -> None:
    with scripted(reply, refused(500, "oh"), said("Hi.")) as server, Client(endpoint(server)) as client:
        assert client.complete(ASK).text == "Hi."
        assert client.counts == Counts(requests=1, retries=2, prompt_tokens=10, completion_tokens=5)
    with scripted(reply) as server:
        assert f"(llama) gave no answer, tried 3 times: {message}" in str(failure(server))
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"{}", headers={"Content-Encoding": "gzip"}), "compressed, which it was asked not to be"),
        (Reply(b'{"error":' * 900 + b"1" + b"}" * 900, 418), "answered 418, tried once: "),
        (Reply(b"[" * 900 + b"]" * 900, 418), "answered 418, tried once: [[["),
        (Reply(b"", 302, {"Location": "http://127.0.0.1:9/"}), "answered 302"),
    ],
)
def test_answers_that_are_none(reply: Reply, message: str) -> None:
    with scripted(reply) as server:
        assert message in str(failure(server))
    assert len(server.bodies) == 1


def test_a_cut_connection() -> None:
    with scripted(Reply(b'{"choices": [', claimed=1000), said("Hi.")) as server, Client(endpoint(server)) as client:
        assert client.complete(ASK).text == "Hi."
    with scripted(Reply(b'{"choices": [', claimed=1000)) as server:
        assert "cut the connection (RemoteProtocolError), tried 3 times" in str(failure(server))


def test_a_giant_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER", 1000)
    with scripted(said("x" * 5000)) as server:
        assert "gave an answer that is not read: more than 1000 bytes" in str(failure(server))
    assert len(server.bodies) == 1


def test_text_that_no_file_can_hold() -> None:
    reply = Reply(b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": null}]}')
    with scripted(reply) as server, Client(endpoint(server)) as client:
        assert client.complete(ASK) == Answer("a?b", "", None, None, 0, 0)


def test_nobody_listens() -> None:
    with held_port() as port:
        nowhere = Endpoint(f"http://127.0.0.1:{port}/v1", "llama", "chat", retries=0)
        with Client(nowhere) as client, pytest.raises(UnavailableError) as caught:
            client.complete_many([ASK, ASK])
    assert str(caught.value).startswith(f"nothing answers at {nowhere.url} (")
    assert str(caught.value).endswith("): is the server running there?")


def test_no_proxy_stands_before_a_server_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with held_port() as port:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        with scripted(said("Hi.")) as server, Client(endpoint(server, retries=0)) as client:
            assert client.complete(ASK).text == "Hi."
        elsewhere = Endpoint("http://192.0.2.1/v1", "llama", "chat", retries=0)
        with Client(elsewhere) as client, pytest.raises(UnavailableError, match="nothing answers"):
            client.complete(ASK)


def test_a_model_that_is_not_served() -> None:
    with scripted(refused(404, "no such model")) as server:
        error = failure(server, model="gemma")
        assert isinstance(error, UnavailableError)
        assert str(error).endswith("(gemma) knows no such model (404): no such model; it serves llama, qwen")
        other = failure(server)
        assert str(other).endswith("serves the model, but not /chat/completions (404): use the other api")


@pytest.mark.parametrize(
    "listed",
    [
        Reply(b"{}", headers={"Content-Encoding": "gzip"}),
        Reply(b"[" * 100_000, headers={"Content-Type": "application/json"}),
    ],
)
def test_a_list_of_models_that_cannot_be_read_counts_as_none(listed: Reply) -> None:
    with scripted(refused(404, "no such model")) as server:
        server.models = listed
        assert str(failure(server)).endswith("(404): no such model; is the path, such as /v1, right?")


def test_a_full_context() -> None:
    with scripted(refused(400, "This model's maximum context length is 10 tokens.")) as server:
        error = failure(server)
    assert isinstance(error, ContextError)
    assert "has no room for the conversation (400): This model's maximum context length is 10" in str(error)


def test_fields_that_a_server_refuses_are_left_out_and_it_is_asked_once_about_each() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        for name in ("min_p", "repetition_penalty", "top_k"):
            if name in body:
                return refused(400, f"Unknown parameter: '{name}'.")
        if "max_tokens" in body:
            return refused(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return said("Hi.")

    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(20)]
    with Scripted(answer) as server, Client(endpoint(server)) as client:
        assert [getattr(answer, "text", answer) for answer in client.complete_many(asks)] == ["Hi."] * 20
        assert client.refused == {"top_k", "min_p", "repetition_penalty", "max_tokens"}
        assert client.counts.requests == 20
        assert client.counts.retries == 4
    assert len(server.bodies) == 24
    assert server.bodies[-1]["max_completion_tokens"] == 8


def test_a_server_that_takes_only_text() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        extra = set(body) - {"model", "prompt", "max_tokens", "temperature", "top_p", "seed"}
        if extra:
            return Reply({"detail": f"Unexpected fields in the request: {extra}"}, 422)
        return said("Hi.") if body["prompt"] == "hello" else Reply({"detail": "prompt must be a string."}, 400)

    with Scripted(answer) as server, Client(endpoint(server, api="completions")) as client:
        assert client.complete(IDS) == Answer("Hi.", "stop", None, None, 10, 5)
        assert client.complete(IDS).text == "Hi."
        assert "prompt" in client.refused
    assert len(server.bodies) == 4


def test_refusals_of_status_500_are_heeded_and_top_k_is_0_where_it_may_not_be_below() -> None:
    """llama-cpp-python: left out, `top_k` would be 40 there. Who takes only text is asked for nothing about ids."""

    def answer(body: dict[str, Any]) -> Reply:
        wrong = invalid(body)
        return refused(500, wrong) if wrong else said("Hi.")

    asks = [dataclasses.replace(IDS, seed=seed) for seed in range(5)]
    with Scripted(answer) as server, Client(endpoint(server, api="completions", retries=9)) as client:
        assert [getattr(answer, "text", answer) for answer in client.complete_many(asks)] == ["Hi."] * 5
        assert client.refused == {"top_k = -1", "prompt"}
        assert (client.counts.requests, client.counts.retries) == (5, 2)
        client.complete(dataclasses.replace(ASK, top_k=7))
    assert len(server.bodies) == 8
    assert [body["top_k"] for body in server.bodies] == [-1, *[0] * 6, 7]
    assert all(body["prompt"] == "hello" and "logprobs" not in body for body in server.bodies[2:])


@pytest.mark.parametrize("message", ["top_k must be -1 (disable), or at least 1, got 0.", "Unknown field top_k"])
def test_a_top_k_that_is_refused_whatever_it_is_is_left_out(message: str) -> None:
    """A refusal of the value 0 is none of a wish: nothing was wished for."""
    wrong = "top_k must be at least 1, got -1"
    replies = [refused(400, wrong), refused(400, message), said("Hi.")]
    with scripted(*replies) as server, Client(endpoint(server)) as client:
        assert client.complete(ASK).text == "Hi."
    assert [body.get("top_k") for body in server.bodies] == [-1, 0, None]


@pytest.mark.parametrize(
    "message",
    [
        "2 validation errors for Response: choices",  # of the server's own answer
        "CUDA error: top_k kernel failed",
        "no JSON",
    ],
)
def test_a_failure_of_status_500_is_none_of_a_field(message: str) -> None:
    reply = Reply(b"oh", 500) if message == "no JSON" else refused(500, message)
    with scripted(reply) as server:
        assert "answered 500, tried 3 times: " in str(failure(server))
    assert {body["top_k"] for body in server.bodies} == {-1}


def test_a_wish_that_cannot_be_left_out() -> None:
    with scripted(refused(400, "unknown field top_k")) as server:
        text = str(failure(server, dataclasses.replace(ASK, top_k=50)))
    assert text.endswith("refuses top_k = 50: set top_k to 0, which keeps every token")


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be 1",
        "`temperature` must be strictly positive",
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "A top_p of 0.0 is not supported: it must be between 0 and 1.",
        "Unsupported language.",
    ],
)
def test_a_refusal_of_a_value_or_of_anything_else_is_an_error(message: str) -> None:
    with scripted(refused(400, message)) as server:
        assert str(failure(server)).endswith(f"refuses the request (400): {message}")
    assert len(server.bodies) == 1


def blaming(field: str, message: str) -> Reply:
    """A refusal as OpenAI words it, which names the field beside its message."""
    return Reply({"error": {"message": message, "type": "invalid_request_error", "param": field, "code": "x"}}, 400)


@pytest.mark.parametrize(
    ("field", "refusal"),
    [
        ("top_p", blaming("top_p", "Unsupported parameter: 'top_p' is not supported with this model.")),
        (
            "temperature",
            blaming(
                "temperature",
                "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is "
                "supported. Neither is 'top_p'.",
            ),
        ),
        ("temperature", refused(400, "`temperature` is deprecated for this model.")),
        ("temperature", refused(400, "invalid temperature: only 1 is allowed for this model")),
        ("top_p", refused(400, "Malformed input request: extraneous key [top_p] is not permitted")),
        ("top_p", refused(400, "`temperature` and `top_p` cannot both be specified for this model.")),
        ("top_p", Reply({"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}, 422)),
    ],
)
def test_sampling_that_a_hosted_model_refuses_is_left_out_once_and_said_so(
    field: str, refusal: Reply, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = [dataclasses.replace(ASK, seed=seed, temperature=0.0) for seed in range(20)]
    with Scripted(lambda body: refusal if field in body else said("Hi.")) as server, Client(endpoint(server)) as client:
        assert all(isinstance(answer, Answer) for answer in client.complete_many(asks))
        assert client.refused == {field}
        assert (client.counts.requests, client.counts.retries) == (20, 1)
    other = {"top_p": ("temperature", 0.0), "temperature": ("top_p", 1.0)}[field]
    assert all(body[other[0]] == other[1] for body in server.bodies)
    line = f"warning: {server.url} (llama) refuses {field}: it is asked without, so its own setting decides\n"
    assert capsys.readouterr().err == line


def test_a_model_that_refuses_both_is_asked_without_both(capsys: pytest.CaptureFixture[str]) -> None:
    """Where two fields are named, one is tried to be left out before the other."""
    fixed = "'temperature', 'top_p' and 'n' are fixed at 1."
    with (
        Scripted(lambda body: refused(400, fixed) if {"top_p", "temperature"} & set(body) else said("Hi.")) as server,
        Client(endpoint(server)) as client,
    ):
        assert client.complete(ASK).text == "Hi."
        assert client.refused == {"top_p", "temperature"}
    assert len(server.bodies) == 3
    assert capsys.readouterr().err.count("refuses top_p and temperature: it is asked without") == 1


def test_what_was_left_out_in_vain_is_sent_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal of a prompt that happens to speak of a field says nothing about the field."""

    def answer(body: dict[str, Any]) -> Reply:
        return said("Hi.") if body.get("seed") else refused(400, "Talk of a temperature or a seed is not allowed here.")

    with Scripted(answer) as server, Client(endpoint(server)) as client:
        with pytest.raises(RefusedError, match="Talk of a temperature"):
            client.complete(ASK)
        assert client.refused == frozenset()
        assert client.complete(dataclasses.replace(ASK, seed=1)).text == "Hi."
    assert (server.bodies[-1]["temperature"], server.bodies[-1]["seed"]) == (1.0, 1)
    assert not capsys.readouterr().err


QUIET = {"enable_thinking": False}


def test_options_of_a_chat_template_are_sent_and_decide_which_answer_is_stored(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return said("quiet" if body.get("chat_template_kwargs") == QUIET else "thinking")

    with Scripted(answer) as server:
        for _ in range(2):
            for options, text in (({}, "thinking"), (QUIET, "quiet"), ({"enable_thinking": True}, "thinking")):
                with Client(endpoint(server, chat_template_kwargs=options), tmp_path) as client:
                    assert client.complete(ASK).text == text
    assert [body.get("chat_template_kwargs", "none") for body in server.bodies] == [
        "none",
        {"enable_thinking": False},
        {"enable_thinking": True},
    ]


def test_options_of_a_chat_template_that_are_refused_are_not_left_out() -> None:
    with scripted(refused(400, "Unrecognized request argument supplied: chat_template_kwargs")) as server:
        error = failure(server, chat_template_kwargs=QUIET)
    assert isinstance(error, UnavailableError)
    advice = "set chat_template_kwargs to {}, which sends none"
    assert str(error).endswith(f"refuses chat_template_kwargs = {{'enable_thinking': False}}: {advice}")
    assert len(server.bodies) == 1


def test_the_key_comes_from_the_environment_and_is_shown_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    monkeypatch.setenv("JUDGE_KEY", KEY + "\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody-else")
    replies = [said("Hi."), refused(401, f"wrong key {KEY}"), said(f"Your key is {KEY}")]
    with scripted(*replies) as server, Client(endpoint(server, key_env="JUDGE_KEY"), tmp_path) as client:
        client.complete(ASK)
        with pytest.raises(UnavailableError) as refusal:
            client.complete(dataclasses.replace(ASK, seed=1))
        with pytest.raises(EndpointError) as echo:
            client.complete(dataclasses.replace(ASK, seed=2))
        shown = repr(client)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "somebody" not in str(server.headers)
    assert str(refusal.value).endswith("refuses the key (401): wrong key ***; set $JUDGE_KEY to a key that it accepts")
    assert str(echo.value).endswith("gave an answer that holds the key; it is not kept")
    kept = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert not any(KEY in text for text in (kept, shown, caplog.text, str(refusal.value), str(echo.value)))


def test_a_key_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with scripted(said("Hi.")) as server, pytest.raises(ModelError, match=r"needs a key: set \$JUDGE_KEY in the env"):
        Client(endpoint(server, key_env="JUDGE_KEY"))
    monkeypatch.setenv("JUDGE_KEY", "sk-secret\nother")
    with scripted(said("Hi.")) as server, pytest.raises(ModelError, match=r"JUDGE_KEY holds white space") as caught:
        Client(endpoint(server, key_env="JUDGE_KEY"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "127.0.0.1:8000"),
        ("url", "https://user:password@host/v1"),
        ("url", "https://host/v1?key=abc"),
        ("key_env", "sk-0123-abc"),
        ("model", ""),
        ("api", "responses"),
        ("concurrency", 0),
        ("timeout_s", 0),
        ("retries", -1),
        ("tokens_per_minute", -1),
    ],
)
def test_an_endpoint_that_makes_no_sense(field: str, value: Any) -> None:
    plain = Endpoint("http://127.0.0.1:8000/v1", "llama", "chat")
    with pytest.raises(ModelError, match=f"endpoint: {field}") as caught:
        dataclasses.replace(plain, **{field: value})
    assert "password" not in str(caught.value).replace("without key, password", "")
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "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",
        "hf_abcdefghijKLMNOPQRSTuvwxyzABCDEFGH",
        "AIzaSyAbCdEfGhIjKlMnOpQrStUvWxYz_abcdef",
        "sk_live_abcdefghijklmnopqrstuvwx",
        "a3f09c1b2d4e5f60718293a4b5c6d7e8",
        "a" * 61,
    ],
)
def test_a_key_is_no_name_of_a_variable_and_is_not_repeated(key: str) -> None:
    with pytest.raises(ModelError, match="endpoint: key_env: must be the NAME") as caught:
        Endpoint("http://127.0.0.1:8000/v1", "llama", "chat", key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "my_key", "Key1", "hf_token", "AZURE_OPENAI_API_KEY_2024", "OpenRouterKey2"]
)
def test_the_name_of_a_variable_is_none_of_a_key(name: str) -> None:
    assert Endpoint("http://127.0.0.1:8000/v1", "llama", "chat", name).key_env == name


def test_what_was_asked_before_is_not_asked_again(tmp_path: Path) -> None:
    asks = [dataclasses.replace(ASK, vote=vote) for vote in (0, 1)]
    with scripted(said("Hi."), said("Ho.")) as server:
        with Client(endpoint(server, concurrency=1), tmp_path) as client:
            first = client.complete_many(asks)
        with Client(endpoint(server, retries=0, cost_per_million_input=1.0), tmp_path) as client:
            assert client.complete_many(asks) == first
            assert client.counts == Counts(cached=2)
            others = [dataclasses.replace(ASK, **change) for change in ({"seed": 1}, {"temperature": 0.5})]
            client.complete_many([*others, dataclasses.replace(ASK, messages=(Message("user", "hi"),))])
            assert client.counts.cached == 2
        with Client(endpoint(server, model="qwen"), tmp_path) as client:
            client.complete(ASK)
    assert [getattr(answer, "text", answer) for answer in first] == ["Hi.", "Ho."]
    assert len(server.bodies) == 2 + 3 + 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"text": "Hi.", "finish": "stop", "ids": [-1], "logprobs": null, "prompt_tokens": 1, "completion_tokens": 1}',
        '{"text": "Hi.", "finish": "stop", "ids": [7], "logprobs": [-1%s], "prompt_tokens": 1, "completion_tokens": 1}'
        % ("0" * 400),
        '{"text": 5, "finish": "stop", "ids": null, "logprobs": null, "prompt_tokens": 1, "completion_tokens": 1}',
        '{"text": "", "thought": 5, "finish": "", "ids": null, "logprobs": null, "prompt_tokens": 1, '
        '"completion_tokens": 1}',
        "[" * 100_000,
    ],
)
def test_a_broken_entry_of_the_cache_is_asked_again_and_mended(content: str, tmp_path: Path) -> None:
    with scripted(said("Hi.")) as server:
        for _ in range(2):
            with Client(endpoint(server), tmp_path) as client:
                assert client.complete(ASK).text == "Hi."
            (entry,) = tmp_path.rglob("*.json")
            assert json.loads(entry.read_text())["text"] == "Hi."
            entry.write_text(content)
    assert len(server.bodies) == 2


def test_a_giant_answer_is_not_kept_and_a_failure_neither(tmp_path: Path) -> None:
    replies = [said("x" * 2**20), refused(500, "oh"), said("Hi.")]
    with scripted(*replies) as server, Client(endpoint(server, retries=0), tmp_path) as client:
        client.complete(ASK)
        with pytest.raises(EndpointError):
            client.complete(ASK)
        client.complete(ASK)
        assert client.complete(ASK).text == "Hi."
        assert client.counts.cached == 1
    assert len(list(tmp_path.rglob("*"))) == 2


def test_a_request_without_stop_strings_keeps_its_place_in_the_cache(tmp_path: Path) -> None:
    """Where answers of a judge lie that was paid before requests had stop strings."""
    asked = Ask((Message("user", "Is it GOOD?"),), 64, text="Is it GOOD?", seed=7, vote=1)
    endpoint, given = Endpoint("http://127.0.0.1:8000/v1", "m", "chat"), Answer("GOOD", "stop", None, None, 9, 1)
    for ask in (asked, dataclasses.replace(asked, stops=("</answer>",)), dataclasses.replace(asked, thoughts=True)):
        Cache(tmp_path).put(endpoint, ask, given)
    names = {path.name for path in tmp_path.rglob("*.json")}
    assert "48b1124415186c38d6d489ac56b63ef7ca3f451c4af239d5179ae933f138556f.json" in names
    assert len(names) == 3


@pytest.mark.parametrize(
    ("apart", "thought"),
    [
        ({"reasoning_content": "Hm."}, "Hm."),
        ({"reasoning_content": None, "reasoning": "Hm."}, "Hm."),
        ({"reasoning": ["Hm."]}, ""),
        ({}, ""),
    ],
)
def test_a_thought_that_a_server_gives_apart_is_kept_where_it_is_asked_for(
    apart: dict[str, Any], thought: str, tmp_path: Path
) -> None:
    reply = said("Hi.", message={"role": "assistant", "content": "Hi.", **apart})
    asked = dataclasses.replace(ASK, thoughts=True)
    with scripted(reply) as server, Client(endpoint(server), tmp_path) as client:
        for _ in range(2):
            assert client.complete(asked) == Answer("Hi.", "stop", None, None, 10, 5, thought=thought)
        assert client.complete(ASK) == Answer("Hi.", "stop", None, None, 10, 5)
        assert client.counts.cached == 1


def test_an_answer_that_was_stored_before_thoughts_were_is_read(tmp_path: Path) -> None:
    with scripted(said("Hi.")) as server, Client(endpoint(server), tmp_path) as client:
        client.complete(ASK)
        (entry,) = tmp_path.rglob("*.json")
        stored = json.loads(entry.read_text())
        del stored["thought"]
        entry.write_text(json.dumps(stored))
        assert client.complete(ASK) == Answer("Hi.", "stop", None, None, 10, 5)
        assert client.counts.cached == 1


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    message = r"the answer cache .*taken cannot be written: Not a directory"
    server = scripted(said("Hi."))
    with server, Client(endpoint(server), tmp_path / "taken") as client, pytest.raises(DataError, match=message):
        client.complete(ASK)


def test_failures_stand_in_their_places() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return refused(400, "no") if body["seed"] == 1 else said(str(body["seed"]))

    seen: list[int] = []
    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(3)]
    with Scripted(answer) as server, Client(endpoint(server)) as client:
        first, second, third = client.complete_many(asks, seen.append)
    assert isinstance(first, Answer) and first.text == "0"
    assert isinstance(second, EndpointError) and "refuses the request (400): no" in str(second)
    assert isinstance(third, Answer) and third.text == "2"
    assert seen == [1, 1, 1]


def test_after_many_failures_in_a_row_no_more_requests_are_made() -> None:
    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(60)]
    message = r"answered 402.*no credit left; 1[2-7] requests in a row have failed"
    with (
        scripted(refused(402, "no credit left")) as server,
        Client(endpoint(server, concurrency=6)) as client,
        pytest.raises(UnavailableError, match=message),
    ):
        client.complete_many(asks)
    assert 12 <= len(server.bodies) <= 17  # up to five more in flight; the first in ask order is raised


def test_one_request_after_the_other_ends_as_well_and_begins_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = [refused(402, "no credit left")] * 8 + [said("Hi.")]
    with scripted(*replies) as server, Client(endpoint(server, concurrency=1)) as client:
        for _ in range(20):
            with pytest.raises(EndpointError, match="no credit left"):
                client.complete(ASK)
        assert len(server.bodies) == 8
        monkeypatch.setattr(client, "_out_until", 0.0)
        assert client.complete(ASK).text == "Hi."
        assert client.complete(ASK).text == "Hi."


def test_failures_that_are_not_in_a_row_do_not_end_it() -> None:
    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(24)]
    replies = ([refused(402, "no")] * 7 + [said("Hi.")]) * 3
    with scripted(*replies) as server, Client(endpoint(server, concurrency=1)) as client:
        answers = client.complete_many(asks)
    assert sum(isinstance(answer, Answer) for answer in answers) == 3


def test_full_contexts_are_no_failures_of_the_server() -> None:
    full = refused(400, "This model's maximum context length is 50 tokens.")
    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(12)]
    with scripted(full) as server, Client(endpoint(server, concurrency=1)) as client:
        assert {type(answer) for answer in client.complete_many(asks)} == {ContextError}


def test_what_is_refused_for_its_content_is_no_failure_of_the_server() -> None:
    """The last good answer comes after more refusals than failures in a row would end it; these still do."""

    def answer(body: dict[str, Any]) -> Reply:
        if body["seed"] < 40:
            return refused(400, "The prompt was flagged by our content policy.")
        return said("Hi.") if body["seed"] == 40 else refused(402, "no credit left")

    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(100)]
    with Scripted(answer) as server, Client(endpoint(server, concurrency=1)) as client:
        answers = client.complete_many(asks[:41])
        assert {type(answer) for answer in answers[:40]} == {RefusedError}
        assert isinstance(answers[40], Answer)
        with pytest.raises(UnavailableError, match="no credit left; 8 requests in a row have failed"):
            client.complete_many(asks[41:])


class Held:
    """A server that keeps every request until `open` is set, and then gives its number as the answer, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.open, self.came = threading.Event(), threading.Semaphore(0)
        numbers = count(1)

        def answer(_: dict[str, Any]) -> Reply:
            number = next(numbers)
            self.came.release()
            assert self.open.wait(60)
            return refused(402, f"no credit for {number}") if fails else said(str(number))

        self.server = Scripted(answer)


@pytest.mark.parametrize("stored", [True, False], ids=["with a cache", "without"])
def test_equal_requests_in_flight_are_sent_once(stored: bool, tmp_path: Path) -> None:
    held, other = Held(), dataclasses.replace(ASK, vote=1)
    with held.server as server, Client(endpoint(server), tmp_path if stored else None) as client:
        futures = [client.submit(ask) for ask in (ASK, other, ASK, ASK, other)]
        assert held.came.acquire(timeout=60)
        held.open.set()
        first, second, third, fourth, fifth = (future.result() for future in futures)
        assert first == third == fourth
        assert second == fifth
        assert {first.text, second.text} == {"1", "2"}
        assert client.counts == Counts(requests=2, shared=3, prompt_tokens=20, completion_tokens=10)
        again = client.complete(ASK).text  # nothing is in flight any more
        assert again == (first.text if stored else "3")
    assert len(server.bodies) == (2 if stored else 3)


def test_equal_requests_fail_alike_and_the_next_one_is_sent_again() -> None:
    held = Held(fails=True)
    with held.server as server, Client(endpoint(server)) as client:
        futures = [client.submit(ASK) for _ in range(3)]
        assert held.came.acquire(timeout=60)
        held.open.set()
        for future in futures:
            with pytest.raises(EndpointError, match="no credit for 1"):
                future.result()
        assert client.counts == Counts(requests=1, failures=1, shared=2)
        with pytest.raises(EndpointError, match="no credit for 2"):
            client.complete(ASK)
    assert len(server.bodies) == 2


def test_who_no_longer_waits_for_an_equal_request_cancels_no_other() -> None:
    held = Held()
    with held.server as server, Client(endpoint(server)) as client:
        first, second, third = (client.submit(ASK) for _ in range(3))
        assert held.came.acquire(timeout=60)
        assert first.cancel()
        assert third.cancel()
        held.open.set()
        assert second.result().text == "1"
    assert len(server.bodies) == 1


def test_a_request_that_nobody_waits_for_any_more_is_not_sent() -> None:
    held, waits = Held(), dataclasses.replace(ASK, seed=1)
    with held.server as server, Client(endpoint(server, concurrency=1)) as client:
        first = client.submit(ASK)
        assert held.came.acquire(timeout=60)
        gone = [client.submit(waits) for _ in range(2)]
        assert all(future.cancel() for future in gone)
        held.open.set()
        assert first.result().text == "1"
        assert client.complete(dataclasses.replace(ASK, seed=2)).text == "2"
    assert [body["seed"] for body in server.bodies] == [0, 2]


def test_no_more_than_so_many_at_the_same_time_from_any_thread() -> None:
    slow = dataclasses.replace(said("Hi."), delay_s=0.2)
    asks = [dataclasses.replace(ASK, seed=seed) for seed in range(6)]
    with scripted(said("Hi."), slow) as server, Client(endpoint(server, concurrency=2)) as client:
        client.complete(ASK)
        begin = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(client.complete, asks))
        assert time.monotonic() - begin >= 0.6


def test_attempts_are_spaced() -> None:
    replies = refused(500, "oh"), said("Hi.")
    with scripted(*replies) as server, Client(endpoint(server, requests_per_minute=600)) as client:
        client.complete_many([dataclasses.replace(ASK, seed=seed) for seed in range(4)])
    gaps = [later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 4
    assert sum(gaps) >= 0.3


def test_tokens_are_spaced_by_what_was_used() -> None:
    with scripted(said("Hi.")) as server, Client(endpoint(server, tokens_per_minute=15 * 60 / 0.2)) as client:
        begin = time.monotonic()
        for _ in range(4):  # 15 tokens each, 0.2 s apart
            client.complete(ASK)
        assert time.monotonic() - begin >= 0.55
