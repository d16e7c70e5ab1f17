"""What is masked where settings are shown or stored, and what is not."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from swirl.config.secrets import plain, without_credentials
from tests.conftest import ROOT

HIDDEN = "(not logged)"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"headers": {"Authorization": "Bearer sk-9"}}, {"headers": {"Authorization": HIDDEN}}),
        ({"api_keys": {"web": "sk-9"}, "passwd": "sk-9"}, {"api_keys": {"web": HIDDEN}, "passwd": HIDDEN}),
        ({"tools.options.web.keys": ["sk-9"]}, {"tools.options.web.keys": [HIDDEN]}),
        ({"tools.options.keys.web": "sk-9"}, {"tools.options.keys.web": HIDDEN}),
        ({"command": ["run", "--api-key=sk-9"]}, {"command": ["run", f"--api-key={HIDDEN}"]}),
        ({"command": ["run", "--api-key", "sk-9", "-v"]}, {"command": ["run", "--api-key", HIDDEN, "-v"]}),
        ({"webKey": "sk-9", "privatekey": "sk-9"}, {"webKey": HIDDEN, "privatekey": HIDDEN}),
        ({"command": ["-H", "Authorization: Bearer sk-9"]}, {"command": ["-H", f"Authorization: {HIDDEN}"]}),
        ({"command": ["--header=X-Api-Key: sk-9 x"]}, {"command": [f"--header=X-Api-Key: {HIDDEN}"]}),
        ({"command": ["-e", "API_KEY=sk-9"]}, {"command": ["-e", f"API_KEY={HIDDEN}"]}),
        ({"command": "server --api-key sk-9 -v"}, {"command": f"server --api-key {HIDDEN} -v"}),
        ({"line": "WEB_KEY = sk-9; run"}, {"line": f"WEB_KEY = {HIDDEN} run"}),
        ({"url": "https://host/x?api_key=sk-9"}, {"url": f"https://host/x?api_key={HIDDEN}"}),
        ({"url": "https://host/x?key=AIzaSy123"}, {"url": f"https://host/x?key={HIDDEN}"}),
        ({"url": "https://host/x?a=b&X-Amz-Signature=9f&c=d"}, {"url": f"https://host/x?a=b&X-Amz-Signature={HIDDEN}"}),
        ({"url": "https://user:pa/ss@host/x"}, {"url": "https://***@host/x"}),
    ],
)
def test_secrets_are_masked(given: dict[str, Any], shown: dict[str, Any]) -> None:
    assert plain(given) == shown


@pytest.mark.parametrize(
    "part", ["a-", "--", "token", "_KEY", "--api", "a-token", "authorization", "://@", "://a:b", "&a-"]
)
def test_long_texts_take_time_in_proportion(part: str) -> None:
    started = time.process_time()
    assert plain({"command": part * 20_000})["command"]
    assert time.process_time() - started < 2


def test_what_is_no_secret_stays_visible() -> None:
    command = ["run", "--max-tokens", "512", "--max-tokens=512", "--tokenizer", "a", "key", "b"]
    settings: dict[Any, Any] = {
        "max_tokens": 512,
        "token_budget": "8192",
        "key_env": "OPENAI_API_KEY",
        "command": command,
        1: "a",
    }
    settings |= {"hockey": {"source": "file"}, "monkey.tools:Search": {"stop_tokens": ["</s>"]}}
    settings |= {"description": "cents per-token price, multi-token model", "non": "a non-secret value"}
    settings |= {"searched": "https://host/x?keyword=a&monkey=b&design=c"}
    settings |= {"sort": ["sort", "--key", "2"], "query": "SELECT name FROM t WHERE key=3 AND x='y'"}
    assert plain(settings) == settings


@pytest.mark.parametrize("path", ["params.yaml", *sorted(f"presets/{path.name}" for path in ROOT.glob("presets/*"))])
def test_no_setting_of_ours_is_masked(path: str) -> None:
    settings = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert plain(settings) == settings


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:password@host/x@y", "https://***@host/x@y"),
        ("https://user:p@ssw0rd@host/x", "https://***@host/x"),
        ("https://host/x and me@host", "https://host/x and me@host"),
        ("https://user:pa/ss@host/x@y", "https://***@host/x@y"),
        ("https://host:8080/x@y", "https://host:8080/x@y"),
        ("http://[::1]:8000/x@y", "http://[::1]:8000/x@y"),
        ('{"url":"http://host:{port}/x","by":"me@host"}', '{"url":"http://host:{port}/x","by":"me@host"}'),
    ],
)
def test_credentials_in_urls(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
