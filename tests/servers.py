"""Real HTTP servers for tests, on 127.0.0.1.

`scripted(*replies)` answers from a script, well or badly, in a thread of the test. `serving(folder)` serves a local
model in a process of its own. Through /v1/completions it imitates what vLLM does with these fields: `prompt`
as text or token ids, `max_tokens`, `temperature` 0, `stop_token_ids`, `stop` with `include_stop_str_in_output`,
`logprobs`, `return_token_ids` (`token_ids` and `prompt_token_ids` in each choice), `return_tokens_as_token_ids`, the
errors of a wrong model, a wrong key and a full context; and /v1/models. It decodes greedily, each token by a plain
forward over all that came before. The model name in a request selects the server's behaviour, called its manners in
the code:

- vllm: as above
- short: as vllm, with a context of `SHORT` tokens
- locked: as vllm, but requires the key `THE_KEY`
- older: a vLLM that does not know `return_token_ids` yet
- llama: llama.cpp's `logprobs.content`, which leaves the end of turn out, and as many tokens as the stop string has;
  its text leaves the stop string out
- python: llama-cpp-python: text alone, which leaves the stop string out; its refusals are of status 500 and in
  pydantic's words; it takes no `top_k` below 0, and punishes repetition unless `repeat_penalty` says otherwise
- text: text in, text out, and refuses every field beyond that, as `transformers serve` does
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SHORT = 50
HARSH = 11.0
"""A repetition penalty that changes what even a model says that is sure of itself; llama-cpp-python's own is 1.1."""
THE_KEY = "the-right-one-0123456789"
MANNERS = ("llama", "locked", "older", "python", "short", "text", "vllm")


@dataclass(frozen=True)
class Reply:
    """What a scripted server does with one request."""

    body: bytes | dict[str, Any]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    """Seconds to wait before anything is sent."""
    claimed: int | None = None
    """A false Content-Length to send; the connection is closed after the body."""
    drip_s: float = 0
    """Seconds between one byte of the body and the next."""


def said(text: str, **more: Any) -> Reply:
    """A good answer, valid in both protocols."""
    choice = {"text": text, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return Reply({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


def refused(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI's servers word it."""
    return Reply({"error": {"message": message, "type": "error"}}, status, dict(headers))


def invalid(body: dict[str, Any]) -> str:
    """What llama-cpp-python's FastAPI says of a request with token ids, or a `top_k` below 0; empty for a valid one."""
    found = []
    if isinstance(prompt := body.get("prompt", ""), list):
        what = {"type": "string_type", "msg": "Input should be a valid string"}
        found.append({**what, "loc": ("body", "prompt", "str"), "input": prompt})
        found += [{**what, "loc": ("body", "prompt", "list[str]", i), "input": t} for i, t in enumerate(prompt)]
    if body.get("top_k", 40) < 0:
        wrong = {"type": "greater_than_equal", "loc": ("body", "top_k"), "input": body["top_k"], "ctx": {"ge": 0}}
        found.append({**wrong, "msg": "Input should be greater than or equal to 0"})
    where = '\n  File "llama_cpp/server/app.py", line 1, in create_completion\n    POST /v1/completions'
    return f"{len(found)} validation errors:\n  " + "\n  ".join(map(str, found)) + where if found else ""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default 5 is fewer than a client's concurrent requests; the others would wait
    daemon_threads = True


class Scripted:
    """A running scripted server and what it was sent."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.models = Reply({"data": [{"id": "llama"}, {"id": "qwen"}]})
        """What it answers to GET."""
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _send(self, outer.models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.times.append(time.monotonic())
                    outer.bodies.append(body)
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    reply = answer(body)
                _send(self, reply)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Scripted:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def scripted(*replies: Reply) -> Scripted:
    """A server that gives these replies one after the other, and then repeats the last one."""
    waiting = list(replies)
    return Scripted(lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0])


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    time.sleep(reply.delay_s)
    with suppress(OSError):
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data) if reply.claimed is None else reply.claimed))
        handler.end_headers()
        for piece in [data[i : i + 1] for i in range(len(data))] if reply.drip_s else [data]:
            handler.wfile.write(piece)
            time.sleep(reply.drip_s)
    if reply.claimed is not None:
        handler.close_connection = True


@contextmanager
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody listens on, and that the system gives to nobody else in the meantime.

    A server that is given this port can still listen on it, because servers set SO_REUSEADDR, too.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def answers(address: str, process: subprocess.Popen[Any], said: Callable[[], str] = lambda: "nothing") -> None:
    """Waits until a server process answers at `address`; fails with `said()` if it ends or never answers."""
    deadline = time.monotonic() + 600
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, said()
            time.sleep(0.2)


@contextmanager
def nobody() -> Iterator[str]:
    """The address of a server that no longer runs."""
    with held_port() as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server process with the model of `folder`."""
    command = [sys.executable, "-m", "tests.servers", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdigit(), f"the server did not start: {port!r}"
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


class _Model:
    """A local model and how it answers."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._lock = threading.Lock()

    def answer(self, path: str, authorization: str, body: dict[str, Any]) -> Reply:
        manners = body["model"]
        if manners not in MANNERS:
            return refused(404, f"The model `{manners}` does not exist.")
        if manners == "locked" and authorization != f"Bearer {THE_KEY}":
            return refused(401, f"wrong key {authorization.removeprefix('Bearer ')}")
        known = {"model", "prompt", "messages", "max_tokens", "temperature", "top_p", "seed"}
        if manners == "text" and set(body) - known:
            return Reply({"detail": f"Unexpected fields in the request: {set(body) - known}"}, 422)
        if manners == "python" and (wrong := invalid(body)):
            return refused(500, wrong)
        if path.endswith("/chat/completions"):
            prompt = self._tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        else:
            prompt = body["prompt"]
        if isinstance(prompt, str):
            ids = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        elif manners == "text":
            return Reply({"detail": "prompt must be a string."}, 400)
        else:
            ids = prompt
        if manners == "short" and len(ids) + body["max_tokens"] > SHORT:
            message = f"This model's maximum context length is {SHORT} tokens, your prompt has {len(ids)}."
            return refused(400, message)
        with self._lock:
            penalty = body.get("repeat_penalty", HARSH) if manners == "python" else 1.0
            made, logprobs = self._decode(ids, body["max_tokens"], body.get("stop", []), penalty)
        return self._worded("chat" in path, body, ids, made, logprobs)

    def _decode(self, ids: list[int], limit: int, stops: list[str], penalty: float) -> tuple[list[int], list[float]]:
        import torch

        made: list[int] = []
        logprobs: list[float] = []
        with torch.no_grad():
            while len(made) < limit and not self._ended(made, stops):
                logits = self._model(input_ids=torch.tensor([ids + made])).logits[0, -1]
                said = torch.tensor((ids + made)[-64:])
                logits[said] = torch.where(logits[said] > 0, logits[said] / penalty, logits[said] * penalty)
                last = torch.log_softmax(logits, -1)
                made.append(int(last.argmax()))
                logprobs.append(float(last[made[-1]]))
        return made, logprobs

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _ended(self, made: list[int], stops: list[str]) -> bool:
        text = self._text(made)
        return made[-1:] == [self._tokenizer.eos_token_id] or any(stop in text for stop in stops)

    def _worded(
        self, chat: bool, body: dict[str, Any], ids: list[int], made: list[int], logprobs: list[float]
    ) -> Reply:
        ended, text, stops = made[-1] == self._tokenizer.eos_token_id, self._text(made), body.get("stop", [])
        stopped = self._ended(made, stops)
        if body["model"] in ("llama", "python"):
            text = min((text.partition(stop)[0] for stop in stops), key=len, default=text)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if stopped else "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        names = [self._tokenizer.convert_ids_to_tokens(i) for i in made]
        manners = body["model"]
        if manners not in ("llama", "python", "text") and "logprobs" in body:
            if body.get("return_tokens_as_token_ids"):
                names = [f"token_id:{i}" for i in made]
            choice["logprobs"] = {"tokens": names, "token_logprobs": logprobs, "top_logprobs": [], "text_offset": []}
        if manners in ("vllm", "short", "locked") and body.get("return_token_ids"):
            choice |= {"token_ids": made, "prompt_token_ids": ids}
        if manners == "llama" and "logprobs" in body:
            shown = zip(made, names, logprobs, strict=True)
            content = [{"id": i, "token": name, "logprob": p} for i, name, p in shown]
            words = [stop for stop in stops if stop in self._text(made)]
            unsaid = len(self._tokenizer(words[0], add_special_tokens=False)["input_ids"]) if words else int(ended)
            choice["logprobs"] = {"content": content[: len(content) - unsaid]}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(made), "total_tokens": len(ids) + len(made)}
        return Reply({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": usage})


def _main(folder: str) -> None:
    model = _Model(Path(folder))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _send(self, Reply({"object": "list", "data": [{"id": name} for name in MANNERS]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            _send(self, model.answer(self.path, self.headers.get("Authorization", ""), body))

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _main(*sys.argv[1:])
