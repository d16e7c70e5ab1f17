"""An agent on OpenAI's own client, on a server with a real model, leaves logs that import as they are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from swirl.agent_logs.logs import Logs
from swirl.core.types import ActionKind
from swirl.rollout.engine import observe
from tests import taught
from tests.servers import serving
from tests.taught import FIND, SAY, SEARCH, SUM, TOOLS

FOUND, RESULT = observe(SEARCH, "Ada born").text, observe(TOOLS[ActionKind.CALCULATE], "2 * 3").text
SEEN = {FIND: FOUND, SUM: RESULT}
ASKED = {"what is born": [FIND, SAY], "Ada": [SAY], "Rome Oslo": [SUM, FIND, SAY]}


def answer(client: Any, model: str, question: str) -> None:
    """The loop of an agent: it asks, runs the tool that is called, and asks again with the result."""
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        made = client.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=0.0)
        said = (made.choices[0].message.content or "").strip()
        if said not in SEEN:
            return
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": SEEN[said]}]


@pytest.mark.slow
def test_requests_of_openai_s_client_to_a_real_server_import_without_a_step_by_hand(
    tmp_path: Path, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """What a proxy writes: a line for each request with its whole history, and the server's response."""
    from openai import OpenAI

    folder, log = taught.saved(tmp_path / "model"), tmp_path / "requests.jsonl"

    def record(response: httpx.Response) -> None:
        row = {"request": json.loads(response.request.content), "response": json.loads(response.read())}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    with serving(folder) as address, httpx.Client(event_hooks={"response": [record]}) as http:
        client = OpenAI(base_url=address, api_key="none", max_retries=0, http_client=http)
        for question in ASKED:
            answer(client, "vllm", question)
    assert len(log.read_text(encoding="utf-8").splitlines()) == sum(map(len, ASKED.values()))
    logs = Logs([log])
    logs.read()
    for found, (question, says) in zip(logs.conversations(), ASKED.items(), strict=True):
        turns = [("user", question)]
        for reply in says:
            turns += [("assistant", reply), ("user", SEEN.get(reply, ""))]
        assert [(message.role, message.text.strip()) for message in found.messages] == turns[:-1]
        assert found.actions == tuple(range(1, 2 * len(says), 2))
    done = swirl("import", str(log), "--model", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["conversations"], told["trajectories"], told["steps"], told["left_out"]) == (3, 3, 6, [])
