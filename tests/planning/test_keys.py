"""The servers and keys that a run needs, and the refusal to start without them, before anything costs money."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import ModelError
from swirl.planning import estimates, keys

ROOT = Path(__file__).parents[2]
LATE = ("judge", "train@sft", "train@swirl", "evaluate@base", "evaluate@sft", "evaluate@swirl")


def params(name: str, **changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


def lines(chosen: Params) -> list[str]:
    return keys.lines(chosen, ROOT, [one.stage for one in estimates.plan(chosen, ROOT)])


def test_the_default_needs_nothing() -> None:
    assert keys.servers(params("mini")) == []
    assert lines(params("mini")) == []
    keys.check_keys(params("mini"))


def test_who_asks_which_server() -> None:
    asked = {(need.server.url, need.server.model): need.stages for need in keys.servers(params("gemma-2-27b"))}
    assert asked == {
        ("http://127.0.0.1:8000/v1", "google/gemma-2-27b-it"): ("synthesize",),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-1.5-pro"): LATE,
    }
    server = presets.tree(ROOT, "gemma-2-9b")["synthesize"]["server"]
    base = {"source": "endpoint", "tokenizer": "t", "revision": "", "context": 4096, "server": server}
    own = {**server, "model": "of its own"}
    chosen = params("gemma-2-2b", base_model=base, train={"methods": []}, evaluate={"servers": {"swirl": own}})
    asked = {(need.server.url, need.server.model): need.stages for need in keys.servers(chosen)}
    assert asked == {
        ("http://127.0.0.1:8000/v1", "google/gemma-2-9b-it"): ("synthesize", "evaluate@base"),
        ("http://127.0.0.1:8001/v1", "judge"): ("judge", "evaluate@base"),
    }


SECOND = {"max_tokens": 8, "votes": 1, "temperature": 0.0}


def test_a_second_judge_is_asked_by_evaluations_alone() -> None:
    server = {**presets.tree(ROOT, "gemma-2-9b")["synthesize"]["server"], "model": "second"}
    chosen = params("gemma-2-27b", evaluate={"judge": {"source": "endpoint", "server": server, **SECOND}})
    asked = {need.server.model: need.stages for need in keys.servers(chosen)}
    assert asked["second"] == ("evaluate@base", "evaluate@sft", "evaluate@swirl")
    assert asked["gemini-1.5-pro"] == LATE  # which still grades answers
    matched = params("gemma-2-9b", evaluate={"judge": {"source": "endpoint", "server": server, **SECOND}})
    asked = {need.server.model: need.stages for need in keys.servers(matched)}
    assert asked["judge"] == ("judge", "train@sft", "train@swirl")
    pointed = {"source": "pretrained", "model": "org/second", "revision": "", "trust_remote_code": False, **SECOND}
    hub = params("mini", evaluate={"judge": {**pointed, "verdict": "rationale"}})
    assert [line.partition(";")[0] for line in lines(hub)] == ["the Hugging Face hub: org/second"]


OWN = {"name": "mine:Mine", "weight": 1.0, "options": {}}


def test_a_judge_that_is_no_part_of_the_reward_is_not_asked() -> None:
    alone = params("gemma-2-9b", judge={"rewards": [OWN]})
    assert keys.servers(alone)[1:] == []
    mixed = params("gemma-2-9b", judge={"rewards": [OWN, {"name": "judge", "weight": 1.0, "options": {}}]})
    assert [need.stages for need in keys.servers(mixed)][1:] == [LATE]
    grading = params("gemma-2-27b", judge={"rewards": [OWN]})  # it grades answers all the same
    assert [need.stages for need in keys.servers(grading)][1:] == [
        ("judge", "evaluate@base", "evaluate@sft", "evaluate@swirl")
    ]


def networked(chosen: Params, root: Path = ROOT) -> list[str]:
    return [one.stage for one in estimates.plan(chosen, root) if keys.asks_network(one.stage, chosen, root)]


def test_which_stages_ask_the_network(tmp_path: Path) -> None:
    evaluations = ["evaluate@ceiling", "evaluate@base", "evaluate@sft", "evaluate@swirl"]
    assert networked(params("mini")) == []
    assert networked(params("gemma-2-27b")) == ["download", "base_model", "synthesize", *LATE]
    server = presets.tree(ROOT, "gemma-2-9b")["synthesize"]["server"]
    assert networked(params("mini", evaluate={"servers": {"swirl": server}})) == ["evaluate@swirl"]
    asked = {"source": "endpoint", "server": server, **SECOND}
    pointed = {"source": "pretrained", "model": "org/m", "revision": "", "trust_remote_code": False, **SECOND}
    pointed["verdict"] = "rationale"
    for judge in (asked, pointed):  # whichever evaluation is the first to load a pointed one downloads it
        assert networked(params("mini", evaluate={"judge": judge})) == evaluations
    for judge in ("none", {"source": "own", "name": "mine:Mine", "options": {}}):
        assert networked(params("mini", evaluate={"judge": judge})) == []
    far = {"source": "endpoint", "tokenizer": "t", "revision": "", "context": 4096, "server": server}
    served = params("mini", base_model=far, reward_model=asked, train={"methods": []})
    assert networked(served) == ["base_model", "synthesize", "judge", "evaluate@base"]
    (tmp_path / "t").mkdir()  # a tokenizer that is here
    assert networked(served, tmp_path) == ["synthesize", "judge", "evaluate@base"]


@pytest.mark.parametrize(("retriever", "asks"), [("bm25", False), ("hybrid", True)])
def test_an_embedding_model_is_fetched_where_vectors_are_searched(retriever: str, asks: bool) -> None:
    index = {"retriever": retriever, "embedding_model": "someone/embedder"}
    assert keys.asks_network("index", params("mini", index=index), ROOT) is asks


@pytest.mark.parametrize(("log", "asks"), [("mlflow:agent", True), ("agent.jsonl", False)])
def test_traces_are_fetched_and_files_are_there(log: str, asks: bool) -> None:
    logs = {"agent": {"source": "logs", "logs": [log], "train": "all"}}
    chosen = params("qwen3-0.6b", download={"benchmarks": logs}, synthesize={"source": "import"})
    assert keys.asks_network("download", chosen, ROOT) is asks


def test_a_gguf_file_is_none_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server = presets.tree(ROOT, "gemma-2-9b")["synthesize"]["server"]
    pointed = {"source": "pretrained", "model": "data/weights/tiny.gguf", "revision": "", "trust_remote_code": False}
    judge = {**pointed, "verdict": "rationale", **SECOND}
    assert lines(params("mini", base_model=pointed, reward_model=judge)) == []
    far = {"source": "endpoint", "tokenizer": "data/weights/tiny.gguf", "revision": "", "context": 64, "server": server}
    chosen = params("mini", base_model=far, reward_model=judge, train={"methods": []})
    assert [line.partition(",")[0] for line in lines(chosen)] == ["http://127.0.0.1:8000/v1"]


def test_a_key_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = lines(params("gemma-2-27b"))
    gemini = "https://generativelanguage.googleapis.com/v1beta/openai, model gemini-1.5-pro: asked by "
    assert said == [
        "http://127.0.0.1:8000/v1, model google/gemma-2-27b-it: asked by synthesize; no key",
        gemini + ", ".join(LATE) + "; its key $GEMINI_API_KEY is not set",
        "the Hugging Face hub: hotpotqa/hotpot_qa, openai/gsm8k, dgslibisey/MuSiQue, google/gemma-2-27b-it; "
        "$HF_TOKEN is not set (gated models want it, or `hf auth login`)",
        "https://nlp.stanford.edu/projects/beerqa: asked by download; no key",
    ]
    with pytest.raises(ModelError, match=r"\$GEMINI_API_KEY for https://generativelanguage\S+ \(judge, train@sft"):
        keys.check_keys(params("gemma-2-27b"))
    for name in ("GEMINI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret-of-mine")
    said = lines(params("gemma-2-27b"))
    assert said[1] == gemini + ", ".join(LATE) + "; its key $GEMINI_API_KEY is set"
    assert "$HF_TOKEN is set" in said[2]
    assert "secret-of-mine" not in "".join(said)
    keys.check_keys(params("gemma-2-27b"))
    assert keys.lines(params("gemma-2-27b"), ROOT, ["filter"]) == []


def test_without_the_judges_key_nothing_is_synthesised(
    swirl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert swirl("preset", "gemma-2-27b").returncode == 0
    refused = swirl("stage", "synthesize")
    assert refused.returncode == 1
    assert refused.stderr.startswith("swirl: nothing is synthesised before the whole run has its keys; not set in the ")
    assert "$GEMINI_API_KEY for https://generativelanguage" in refused.stderr


@pytest.mark.slow
def test_a_dry_run_says_what_a_run_would_do_and_does_nothing(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data/official").mkdir(parents=True)
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / ".prefect"), "DVC_NO_ANALYTICS": "1"}
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, env=env, check=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*")}

    def dry(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "flows/pipeline.py"), "--project", str(tmp_path), "--dry-run", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)

    whole = dry()
    assert whole.returncode == 0, whole.stderr
    calls = whole.stdout.split("\n\n", 1)[0]
    rows = {line.split()[0]: line.split() for line in calls.splitlines() if line}
    assert rows["synthesize"][1:3] == ["12,000", "3,784,000"]
    assert [stage for stage in rows if stage.startswith("train")] == ["train@sft", "train@swirl"]
    assert "\nOut of date: download, " in whole.stdout
    assert "Needs:" not in whole.stdout
    assert "\nSignal of step-wise RL: the reward is P(GOOD)," in whole.stdout

    server = (
        "{url: 'https://judge.example/v1', model: grader, api: chat, key_env: GRADER_KEY, chat_template_kwargs: {}}"
    )
    part = dry("--target", "judge", "-S", "judge.outcome=model", "-S", f"judge.grader={server}")
    assert part.returncode == 0, part.stderr
    assert "https://judge.example/v1, model grader: asked by judge; its key $GRADER_KEY is not set\n" in part.stdout
    gone = ("filter", "train", "evaluate", "Signal")
    assert not [line for line in part.stdout.splitlines() if line.startswith(gone)]

    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*") if path.name != ".prefect"}
    assert after == before
