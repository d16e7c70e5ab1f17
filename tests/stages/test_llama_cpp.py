"""A server that is not ours: llama-cpp-python serves a real GGUF file, as policy and as judge.

Opt-in, since its environment is built from source: docs/real-models.md says how. A few minutes on one core.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over, tree
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import NOT_JUDGED, OUTCOME, ActionKind, Prediction, SubTrajectory, Trajectory, Verdict
from swirl.endpoints.client import Ask, Client, Endpoint, Message
from swirl.reporting.results import MODELS
from swirl.rollout.engine import Policy
from swirl.stages import evaluate, train
from swirl.wiring.attempts import attempts
from swirl.wiring.policies import load_local_policy
from swirl.wiring.questions import questions_of
from tests import made_up
from tests.servers import answers, held_port
from tests.stages.conftest import ROOT, clone, run_stages

PYTHON = os.environ.get("SWIRL_LLAMA_CPP", "")
GGUF = ROOT / "data/weights/SmolLM2-135M-Instruct.Q4_1.gguf"
HOW = "SWIRL_LLAMA_CPP names no python of an environment with llama-cpp-python[server]: docs/real-models.md says how"
pytestmark = [
    pytest.mark.rare,
    pytest.mark.skipif(not PYTHON, reason=HOW),
    pytest.mark.skipif(not GGUF.exists(), reason=f"{GGUF.relative_to(ROOT)} is not there: make weights"),
]

TIE = 0.5
"""Nats by which the local model may prefer its own token to the server's where the two part."""
POINTED = {"source": "pretrained", "model": str(GGUF), "revision": "", "trust_remote_code": False}
SETTINGS: dict[str, Any] = {
    "runtime": {"threads": 1, "workers": 1, "context": 2000},
    "prompts": {"policy": "prompts", "judge": "prompts"},
    "tasks": {
        "search": {"tools": ["search"], "max_steps": 3},
        "calculate": {"tools": ["calculator"], "max_steps": 3},
    },
    "tools": {"search_results": 1, "search_output_limit": 300},
    "rollout": {"max_action_tokens": 64, "block_size": 8, "in_flight": 8, "max_malformed": 2},
    "download": {
        "benchmarks": {
            "hotpotqa": {"source": "file", "files": {"train": "hotpotqa.jsonl"}, "train": 12, "evaluation": 4},
            "gsm8k": {"source": "file", "files": {"train": "gsm8k.jsonl"}, "train": 8, "evaluation": 2},
        },
        "on_bad_row": "stop",
    },
    "base_model": POINTED,
    "synthesize": {"samples": 1, "temperature": 0.0},
    "check_questions": {"min_evaluation": 2},
    "train": {"methods": []},
    "evaluate": {"without_tools": False},
}
ASKED = (
    "Is the step GOOD or BAD? Write one short sentence, and then the word alone on the last line, as here:\n\n"
    "It asks what the question asks.\nGOOD"
)
# Untaught, the model seldom follows the preset's instructions, but it repeats an example, its call included.
PROMPTS = {
    "search": (
        "Put the words into tags.\n\nWords: Who directed Blue Door?\n"
        "Tags: <search_query> Who directed Blue Door? </search_query>\n\nWords: Where was Ann Lake born?\n"
        "Tags: <search_query> Where was Ann Lake born? </search_query>\n\nWords: {question}\nTags:"
    ),
    "calculate": (
        "Put the words into tags.\n\nWords: {question}\nTags: <math_exp> 4 + 5 </math_exp>\n\n"
        "Words: What is 7 - 2?\nTags: <math_exp> 7 - 2 </math_exp>\n\nWords: How much is 9 * 3?\nTags:"
    ),
    "closed_book": "{question}",
    "process": f"{{question}}\n{{conversation}}\n\nStep: {{action}}\n\n{ASKED}",
    "reward": f"{{conversation}}\n\nStep: {{action}}\n\n{ASKED}",
    "outcome": "{question} {answer} {golden}",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of llama-cpp-python's server with the GGUF file, which it calls smollm2."""
    said = tmp_path_factory.mktemp("server") / "log"
    with held_port() as port, said.open("w") as log:
        given = {
            "model": GGUF, "model_alias": "smollm2", "host": "127.0.0.1", "port": port, "n_ctx": 2048, "n_threads": 1,
            "n_threads_batch": 1, "logits_all": False, "verbose": False,
        }  # fmt: skip
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        command = [PYTHON, "-m", "llama_cpp.server", *words]
        process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, stdout=log, stderr=log)
        try:
            answers(f"http://127.0.0.1:{port}/v1/models", process, said.read_text)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def served(url: str, api: str) -> dict[str, Any]:
    return {"url": url, "model": "smollm2", "api": api, "key_env": "", "chat_template_kwargs": {}}


@pytest.fixture(scope="module")
def params(url: str) -> Params:
    judge = {"source": "endpoint", "max_tokens": 64, "votes": 1, "temperature": 0.0, "server": served(url, "chat")}
    return validate(laid_over(tree(ROOT, "smoke"), {**SETTINGS, "reward_model": judge}), "llama.cpp")


def changed(params: Params, **changes: Any) -> Params:
    return validate(laid_over(params.model_dump(), changes), "llama.cpp")


@pytest.fixture(scope="module")
def here(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with made-up rows, up to trajectories of the local engine."""
    layout = Layout(tmp_path_factory.mktemp("here"))
    for folder in ("src/swirl/prompts", "data/tools"):
        shutil.copytree(ROOT / folder, layout.root / folder)
    (layout.root / "prompts").mkdir()
    for name, text in PROMPTS.items():
        (layout.root / f"prompts/{name}.txt").write_text(text)
    official = layout.root / "data/official"
    made_up.write(official / "hotpotqa.jsonl", [made_up.hotpotqa(n) for n in range(40)])
    made_up.write(official / "gsm8k.jsonl", [made_up.gsm8k(n) for n in range(30)])
    with pytest.warns(UserWarning, match="the official file of"):
        run_stages(params, layout, "download")
    run_stages(params, layout, "check_questions", "index", "base_model", "reward_model", "synthesize")
    return layout


@pytest.fixture(scope="module")
def there(params: Params, here: Layout, url: str, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The same, with the server's trajectories, judged."""
    layout = clone(here, tmp_path_factory.mktemp("there") / "root")
    far = changed(params, synthesize={"server": served(url, "completions")})
    run_stages(far, layout, "synthesize", "check_trajectories", "judge")
    return layout


@pytest.fixture(scope="module")
def policy(params: Params, here: Layout) -> Policy:
    return load_local_policy(params, here.model("base"), "base")


def test_the_server_reads_every_state_as_the_tokens_that_are_stored(
    params: Params, there: Layout, policy: Policy, url: str
) -> None:
    """As text through /v1/completions, and as turns, by the template in the file, through the chat protocol."""
    todo = attempts(params, there, questions_of(there, "train"), 1)
    clients = [Endpoint(url, "smollm2", api) for api in ("completions", "chat")]
    with Client(clients[0]) as completions, Client(clients[1]) as chat:
        for attempt, made in zip(todo, load(Trajectory, there.trajectories), strict=True):
            turns = [Message("user", attempt.prompt)]
            for k, step in enumerate(made.steps):
                text = policy.chat.markup([(turn.role, turn.content) for turn in turns])
                ids = made.state_ids(k)
                assert tokenized(url, text) == list(ids)
                if k < 2:
                    ask = Ask(tuple(turns), 1, text, ids, temperature=0.0)
                    assert completions.complete(ask).prompt_tokens == len(ids)
                    assert chat.complete(ask).prompt_tokens == len(ids)
                turns += [Message("assistant", step.action.text), Message("user", step.observation)]


def tokenized(url: str, text: str) -> list[int]:
    """The server's own token ids of a text."""
    data = json.dumps({"input": text}).encode()
    address = f"{url.removesuffix('/v1')}/extras/tokenize"
    with urllib.request.urlopen(
        urllib.request.Request(address, data, {"Content-Type": "application/json"}), timeout=60
    ) as reply:
        return list(json.load(reply)["tokens"])


def test_greedy_trajectories_are_the_local_engine_s_but_for_near_ties(
    here: Layout, there: Layout, policy: Policy, capsys: pytest.CaptureFixture[str]
) -> None:
    """llama.cpp computes with quantised weights and activations, the local engine with the weights dequantised."""
    ours, theirs = load(Trajectory, here.trajectories), load(Trajectory, there.trajectories)
    found: Counter[str] = Counter()
    gaps: list[float] = []
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.id, mine.prompt_ids) == (other.id, other.prompt_ids)
        assert not other.error and other.retokenised
        why = first_difference(mine, other, policy, found, gaps)
        found[why or "equal"] += 1
        found["trajectories"] += 1
    with capsys.disabled():
        print(f"\n{dict(found)}; nats between the tokens where they part: {[round(gap, 3) for gap in sorted(gaps)]}")
    assert found["equal actions"] >= found["actions in equal states"] / 2
    assert found["calls"] >= 5  # so that stop strings, results and second states are among what is compared
    assert all(gap < TIE for gap in gaps)


def first_difference(
    mine: Trajectory, other: Trajectory, policy: Policy, found: Counter[str], gaps: list[float]
) -> str:
    """Why two trajectories part, "" if they do not; counts the actions up to there, and what the tokens differ by."""
    for k, (step, far) in enumerate(zip_longest(mine.steps, other.steps)):
        found["actions in equal states"] += 1
        ids, said = (without_end(one.token_ids, policy) for one in (step, far))
        if ids == said:
            found["equal actions"] += 1
            found["calls"] += step.action.kind in (ActionKind.SEARCH, ActionKind.CALCULATE)
            assert (step.action, step.observations) == (far.action, far.observations)
            continue
        if policy.chat.text(ids) == policy.chat.text(said):
            return "the same text, sampled in other tokens"
        if (stray := policy.chat.text(ids).removeprefix(policy.chat.text(said)).strip()).startswith("</"):
            return f"the server stopped at a tag that closes nothing: {stray[:20]!r}"
        gaps.append(gap(list(mine.state_ids(k)), ids, said, policy))
        return "a near tie" if gaps[-1] < TIE else f"not a tie: {policy.chat.text(ids)!r}, {policy.chat.text(said)!r}"
    return ""


def without_end(ids: Sequence[int], policy: Policy) -> list[int]:
    return list(ids[: len(ids) - (ids[-1] in policy.chat.end_ids)])


def gap(state: list[int], mine: list[int], other: list[int], policy: Policy) -> float:
    """How much likelier the local model finds its own token than the server's, in nats, where two actions part."""
    end = policy.chat.end_id
    first = next(i for i, (a, b) in enumerate(zip_longest(mine, other, fillvalue=end)) if a != b)
    ids = torch.tensor([state + mine[:first]])
    with torch.no_grad():
        last = torch.log_softmax(policy.model(input_ids=ids).logits[0, -1].float(), -1)
    chosen, others = ((one[first] if first < len(one) else end) for one in (mine, other))
    return float(last[chosen] - last[others])


def test_the_server_judges_every_step_in_writing(there: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = [v for v in load(Verdict, there.verdicts) if v.step != OUTCOME]
    assert len(verdicts) == sum(len(made.steps) for made in load(Trajectory, there.trajectories))
    written = [v for v in verdicts if v.rationale != NOT_JUDGED]
    assert len(written) >= 5
    assert all(len(v.rationale.split()) > 1 for v in written)
    assert any(v.good is not None for v in written)
    assert {v.judge for v in verdicts} == {"endpoint:smollm2"}
    with capsys.disabled():
        print(f"\nverdicts of {len(written)} steps: {dict(Counter(str(v.good) for v in written))}")


def test_its_trajectories_become_states_and_the_report_is_written(
    params: Params, there: Layout, tmp_path: Path
) -> None:
    """The rest of a pipeline without training; nothing that a model of this size writes untaught is filtered."""
    layout = clone(there, tmp_path / "root")
    run_stages(changed(params, check_steps={"max_null_rate": 1.0}), layout, "filter", "check_steps")
    made = {one.id: one for one in load(Trajectory, layout.trajectories)}
    states = load(SubTrajectory, layout.steps)
    assert {one.trajectory_id for one in states} == {name for name, one in made.items() if one.steps}
    for one in states:
        step = made[one.trajectory_id].steps[one.step]
        assert tuple(one.action_ids) == tuple(step.token_ids)
        assert tuple(one.state_ids) == tuple(made[one.trajectory_id].state_ids(one.step))
    for method in ("sft", "swirl"):
        train.run(params, layout, method)
    for model in MODELS:
        evaluate.run(params, layout, model)
    run_stages(params, layout, "report")
    assert [score["model"] for score in load_json(layout.results)["scores"]] == ["base"] * 2


def test_a_base_that_is_nowhere_but_behind_the_server_is_evaluated(
    params: Params, here: Layout, url: str, tmp_path: Path
) -> None:
    layout = clone(here, tmp_path / "root")
    shutil.rmtree(layout.model("base"))
    base = {"source": "endpoint", "tokenizer": str(GGUF), "revision": "", "context": 2000}
    far = changed(params, base_model={**base, "server": served(url, "chat")})
    run_stages(far, layout, "base_model")
    assert not list(layout.model("base").glob("*.safetensors"))
    evaluate.run(far, layout, "base")
    rows = load(Prediction, layout.predictions("base"))
    assert Counter(row.benchmark for row in rows) == {"hotpotqa": 4, "gsm8k": 2}
    assert all(row.steps for row in rows)
    assert load_json(layout.evaluation("base"))
