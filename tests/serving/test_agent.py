"""The agent, which gives the trajectory of an evaluation step by step, and the bundle that holds all it needs."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml

from swirl.cli.ask import ask, show
from swirl.config.params import load, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, ModelError, SwirlError
from swirl.core.layout import Layout
from swirl.core.records import load_json
from swirl.core.seeds import derive
from swirl.core.types import Action, Observation, Question, Step, Stop, Trajectory
from swirl.models.adapters import add
from swirl.models.loading import load_model, load_tokenizer, save
from swirl.models.pointers import NAME as POINTER
from swirl.models.pointers import point_to_same, write_pointer
from swirl.rollout.engine import Policy
from swirl.serving.agent import MAX_QUESTION, Acted, Agent, Ended, Observed, as_dict, result, thought
from swirl.serving.bundle import benchmarks_of, open_bundle, project_agent, weights_digest, write_bundle
from swirl.serving.endpoint import TextChat
from swirl.wiring.attempts import attempts, roll_out_all
from tests import asked, gguf_writer, taught
from tests.families import smollm2
from tests.servers import THE_KEY, said, scripted

SLOW_TOOL = """
import pathlib, time

class Gate:
    '''A calculator that answers when a file is there.'''

    name, kind, tag, description, time_limit_s, output_limit = "gate", "calculate", "math_exp", "waits", 300.0, 100

    def __init__(self, file):
        self.file = pathlib.Path(file)

    def run(self, payload):
        while not self.file.exists():
            time.sleep(0.01)
        return "6"
"""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project that no test changes."""
    return asked.project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def agent(layout: Layout) -> Agent:
    return project_agent(layout.model("swirl"), asked.params_of(layout), layout, benchmarks_of(layout))


def told(agent: Agent, text: str, benchmark: str = "mini") -> list[Acted | Observed | Ended]:
    return list(agent.stream(text, benchmark))


def without_logprobs(made: Trajectory) -> Trajectory:
    return dataclasses.replace(made, steps=tuple(dataclasses.replace(step, logprobs=()) for step in made.steps))


def test_a_question_is_told_step_by_step(agent: Agent) -> None:
    *steps, last = told(agent, asked.QUESTION)
    assert steps == [
        Acted(0, "", "search", "Ada born", "search"),
        Observed(0, "Ada was born in Oslo.", False),
        Acted(1, "", "", "Oslo", "answer"),
    ]
    assert isinstance(last, Ended)
    assert (last.trajectory.answer, last.trajectory.stop) == ("Oslo", Stop.ANSWERED)
    read = len(last.trajectory.prompt_ids) + len(last.trajectory.steps[0].observation_ids)
    assert (last.input_tokens, last.output_tokens) == (read, sum(len(step.token_ids) for step in last.trajectory.steps))


def test_it_is_the_trajectory_that_the_evaluation_makes(agent: Agent, layout: Layout) -> None:
    """Byte for byte when alone; in a batch with others, only the last bits of log-probabilities may differ."""
    params, tools = asked.params_of(layout), ("search", "calculator")
    questions = [Question(f"q/{text}", "mini", "evaluation", text, ("x",), 0, tools) for text in taught.SCRIPT]
    seed = derive(params.seed, "evaluate", "True")
    together = roll_out_all(params, agent.policy, attempts(params, layout, questions, 1), 0.0, seed)
    assert {made.stop for made in together} == {Stop.ANSWERED, Stop.MALFORMED}
    for question, beside in zip(questions, together, strict=True):
        *_, last = agent.stream_of(question)
        assert isinstance(last, Ended)
        [alone] = roll_out_all(params, agent.policy, attempts(params, layout, [question], 1), 0.0, seed)
        assert last.trajectory == alone
        assert without_logprobs(alone) == without_logprobs(beside)


def test_the_agent_is_told_of_its_tools_as_in_training(tmp_path: Path) -> None:
    """Its prompt is the one that `attempts` makes, whether it comes from the project or from a bundle."""
    base = {"source": "pretrained", "model": "taught", "revision": "", "trust_remote_code": False}
    judge = {**base, "verdict": "token", "max_tokens": 8, "votes": 1, "temperature": 0.0}
    layout = asked.project(tmp_path / "project", base_model=base, reward_model=judge)
    (layout.root / "words/search.txt").write_text("{tools} {question}", encoding="utf-8")
    params = asked.params_of(layout)
    write_bundle(tmp_path / "bundle", params, layout, 0)
    project = project_agent(layout.model("swirl"), params, layout, benchmarks_of(layout))
    for agent in (project, open_bundle(tmp_path / "bundle")):
        question = agent.question("Ada", "mini")
        [attempt] = attempts(params, layout, [question], 1)
        assert attempt.prompt == (
            "<search_query> ... </search_query>: finds the passages that match a query\n"
            "<math_exp> ... </math_exp>: evaluates an arithmetic expression Ada"
        )
        *_, last = agent.stream_of(question)
        assert isinstance(last, Ended)
        assert last.trajectory.prompt_ids == taught.CHAT.prompt(attempt.prompt)


def test_an_action_is_told_while_its_tool_is_at_work(tmp_path: Path) -> None:
    gate = tmp_path / "open"
    tasks = {
        "search": {"tools": ["search", "gate:Gate"], "max_steps": 5},
        "calculate": {"tools": ["calculator"], "max_steps": 5},
    }
    tools = {"folder": "own", "options": {"gate:Gate": {"file": str(gate)}}}
    (tmp_path / "project/own").mkdir(parents=True)
    (tmp_path / "project/own/gate.py").write_text(SLOW_TOOL, encoding="utf-8")
    layout = asked.project(tmp_path / "project", tasks=tasks, tools=tools)
    kinds = {
        name: dataclasses.replace(kind, tools=("search", "gate:Gate")) for name, kind in benchmarks_of(layout).items()
    }
    waiting = project_agent(layout.model("swirl"), asked.params_of(layout), layout, kinds)
    events = waiting.stream("Rome Oslo", "mini")
    assert next(events) == Acted(0, "", "gate", "2 * 3", "calculate")
    gate.touch()
    assert next(events) == Observed(0, "6", False)


def test_who_stops_listening_ends_the_work(agent: Agent) -> None:
    events = agent.stream(asked.QUESTION, "mini")
    next(events)
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 300
    while any(thread.name == "agent" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert told(agent, asked.QUESTION)[-1].trajectory.answer == "Oslo"


def test_malformed_actions_are_told_whole(agent: Agent) -> None:
    first, reply, *_, last = told(agent, "Oslo what")
    assert first == Acted(0, taught.LONG, "", "", "cut")
    cut = "error: your turn was cut off after 16 tokens: be brief, and give one call or one answer"
    assert reply == Observed(0, cut, True)
    shown = as_dict(last, "Oslo what")
    assert (shown["answer"], shown["stop"]) == ("", "malformed")
    assert shown["steps"][0]["call"] is None
    assert shown["steps"][0]["thought"] == taught.LONG


def test_every_call_of_a_step_is_shown() -> None:
    seen = (Observation("a -> b", False, "search", "a"), Observation("1/0 -> error: no", True, "calculate", "1/0"))
    step = Step(0, Action("search", "<search_query> a </search_query>", "a"), seen, (1,), (0.0,), ())
    made = Trajectory("t", "q", "b", 0, "m", 0, (1,), (step,), Stop.STEP_LIMIT, "")
    (shown,) = as_dict(Ended(made, {"search": "search"}, 1, 1, 0.0), "a")["steps"]
    assert (shown["result"], shown["tool_error"]) == ("b\nerror: no", True)
    assert [one["payload"] for one in shown["observations"]] == ["a", "1/0"]


@pytest.mark.parametrize(
    ("text", "payload", "expected"),
    [
        ("I look. <search_query> Ada </search_query>", "Ada", "I look."),
        ("One <<search_query>> Ada <</search_query>> two", "Ada", "One two"),
        ("<answer>5</answer>", "5", ""),
        ("Ada, Ada: <answer> Ada </answer>\nso.", "Ada", "Ada, Ada: so."),
        (" neither ", "", "neither"),
    ],
)
def test_a_thought_is_what_stands_beside_the_call(text: str, payload: str, expected: str) -> None:
    assert thought(text, payload) == expected


def test_a_result_is_told_without_its_query() -> None:
    assert result("2 * 3 -> 6", "2 * 3") == "6"
    assert result("error: give one call or one answer", "") == "error: give one call or one answer"


@pytest.mark.parametrize(
    ("text", "benchmark", "message"),
    [
        ("  ", "mini", "the question is empty"),
        ("x" * (MAX_QUESTION + 1), "mini", "the question has 4,001 characters; at most 4,000 are read"),
        ("x", "nope", "there is no benchmark 'nope' here; there are mini, other"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(agent: Agent, text: str, benchmark: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        agent.stream(text, benchmark)
    assert str(caught.value) == message


def test_asking_prints_readable_lines_and_colours_only_on_a_terminal(agent: Agent) -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    show(told(agent, asked.QUESTION), plain, False)
    assert plain.getvalue() == (
        "step 1\n  search     Ada born\n  result     Ada was born in Oslo.\nstep 2\nanswer: Oslo\n"
    )
    show(told(agent, asked.QUESTION), coloured, True)
    assert coloured.getvalue().startswith("\x1b[1mstep 1\x1b[0m\n")
    show([Observed(0, "\x1b]0;title\x07 \u202e", False)], plain, False)
    assert "\x1b" not in plain.getvalue()


@pytest.mark.slow
def test_the_command_answers_from_standard_input_as_json(
    layout: Layout, swirl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = swirl("ask", asked.QUESTION, "--benchmark", "other", "--json", cwd=layout.root)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert {key: answer[key] for key in ("question", "benchmark", "answer", "stop")} == {
        "question": asked.QUESTION,
        "benchmark": "other",
        "answer": "Oslo",
        "stop": "answered",
    }
    assert [(step["call"], step["result"]) for step in answer["steps"]] == [
        ({"tool": "search", "input": "Ada born"}, "Ada was born in Oslo."),
        (None, None),
    ]
    assert set(answer["tokens"]) == {"input", "output"}
    assert answer["seconds"] > 0
    done = swirl("ask", asked.QUESTION, cwd=layout.root)
    assert done.stderr == "swirl: say whose tools to use: --benchmark mini or --benchmark other\n"


def test_standard_input_and_the_only_benchmark_will_do(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    asked.write_questions(copy)
    from swirl.core import records

    mini = [q for q in records.load(Question, copy.questions) if q.benchmark == "mini"]
    records.save(mini, Question, copy.questions)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"  {asked.QUESTION}\n"))
    out = io.StringIO()
    ask("-", None, copy.model("swirl"), asked.params_of(copy), copy, out=out)
    assert out.getvalue().endswith("answer: Oslo\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("models/swirl", "holds no model; run `dvc repro` to make it"),
        ("data/questions", "questions.parquet does not exist; run `dvc repro` to make it"),
        ("data/index/mini.evaluation", "holds no search index; the stage index makes it: run `dvc repro index`"),
    ],
)
def test_what_is_missing_is_said_with_what_makes_it(layout: Layout, tmp_path: Path, spoil: str, message: str) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    shutil.rmtree(copy.root / spoil)
    with pytest.raises(SwirlError) as caught:
        ask(asked.QUESTION, "mini", copy.model("swirl"), asked.params_of(copy), copy, out=io.StringIO())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_answers_without_its_tokenizer(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_SERVERS_KEY", THE_KEY)
    out = io.StringIO()
    replies = [said("I look. <search_query> Ada born </search_query>"), said("<answer> a Oslo \u2013 \u5965 </answer>")]
    with scripted(*replies) as server:
        model = f"{server.url}#llama"
        ask(asked.QUESTION, "mini", model, asked.params_of(layout), layout, True, "THE_SERVERS_KEY", out)
    answer = json.loads(out.getvalue())
    assert answer["answer"] == "a Oslo \u2013 \u5965"
    assert [step["thought"] for step in answer["steps"]] == ["I look.", ""]
    assert answer["tokens"] == {"input": 20, "output": 10}
    assert [turn["content"] for turn in server.bodies[1]["messages"]] == [
        asked.QUESTION,
        "I look. <search_query> Ada born </search_query>",
        "Ada born -> Ada was born in Oslo.",
    ]
    assert {body["temperature"] for body in server.bodies} == {0.0}
    assert server.headers[0]["authorization"] == f"Bearer {THE_KEY}"
    assert THE_KEY not in out.getvalue()


@pytest.mark.parametrize(
    ("text", "finish", "kind", "observation"),
    [
        ("I do not know.", "stop", "malformed", "error: give one call or one answer"),
        (
            "<search_query> Ada",
            "length",
            "cut",
            "error: your turn was cut off after 5 tokens: be brief, and give one call or one answer",
        ),
    ],
)
def test_a_servers_reply_that_is_no_action_is_answered(
    layout: Layout, text: str, finish: str, kind: str, observation: str
) -> None:
    out = io.StringIO()
    with scripted(said(text, finish_reason=finish), said("<answer> Oslo </answer>")) as server:
        ask(asked.QUESTION, "mini", f"{server.url}#m", asked.params_of(layout), layout, True, out=out)
    answer = json.loads(out.getvalue())
    assert answer["answer"] == "Oslo"
    assert [step["action"]["kind"] for step in answer["steps"]] == [kind, "answer"]
    assert server.bodies[1]["messages"][1:] == [
        {"role": "assistant", "content": text},
        {"role": "user", "content": observation},
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("http://127.0.0.1:9/v1", "the model is missing"),
        ("http://me:pw@127.0.0.1:9/v1#m", "no key or query"),
        ("http://127.0.0.1:9/v1#m", "nothing answers at http://127.0.0.1:9/v1"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(layout: Layout, model: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        ask("x", "mini", model, asked.params_of(layout), layout, out=io.StringIO())
    assert message in str(caught.value)
    assert "pw" not in str(caught.value)


def test_two_threads_that_encode_at_the_same_time_get_texts_of_their_own() -> None:
    """The second one comes while the first is between storing its text and numbering it."""
    chat, inner, came, ids = TextChat(), threading.Lock(), threading.Event(), {}

    class Lock:
        def __enter__(self) -> None:
            came.set()
            inner.acquire()

        def __exit__(self, *_: object) -> None:
            inner.release()

    class Texts(list[str]):
        def append(self, text: str) -> None:
            super().append(text)
            if text == "first":
                came.clear()
                second.start()
                assert came.wait(300)

    def encode_second() -> None:
        ids["second"] = chat.encode("second")
        came.set()

    second = threading.Thread(target=encode_second)
    chat._texts, chat._lock = Texts([""]), Lock()  # type: ignore[assignment]
    ids["first"] = chat.encode("first")
    second.join()
    assert {name: chat.text(found) for name, found in ids.items()} == {"first": "first", "second": "second"}


def answers(folder: Path) -> str:
    """The answer of a bundle's agent to `asked.QUESTION`."""
    last = told(open_bundle(folder), asked.QUESTION)[-1]
    assert isinstance(last, Ended)
    return last.trajectory.answer


def test_a_bundle_answers_without_its_project(layout: Layout, tmp_path: Path) -> None:
    copy, folder = asked.copy(layout, tmp_path / "copy"), tmp_path / "bundle"
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
    judge = {"source": "endpoint", "server": server, "max_tokens": 8, "votes": 1, "temperature": 0.0}
    judged = validate(laid_over(asked.params_of(copy).model_dump(), {"evaluate": {"judge": judge}}), "tests")
    assert write_bundle(folder, judged, copy, 100.0)
    shutil.rmtree(copy.root)
    assert answers(folder) == "Oslo"
    assert load(folder / "params.yaml").evaluate.judge == "same"  # no server is registered
    assert list(open_bundle(folder).benchmarks) == ["mini", "other"]


@pytest.mark.parametrize(
    "name", ["models/swirl/config.json", "data/index/mini.evaluation/passages.parquet", "params.yaml"]
)
def test_a_bundle_that_was_changed_is_refused(layout: Layout, tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "bundle", asked.params_of(layout), layout, 100.0)
    path = tmp_path / "bundle" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match="is not what was registered"):
        open_bundle(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_bundle(tmp_path / "bundle")


def test_above_the_limit_a_bundle_points_to_folders_that_must_not_change(layout: Layout, tmp_path: Path) -> None:
    copy, folder = asked.copy(layout, tmp_path / "copy"), tmp_path / "bundle"
    assert not write_bundle(folder, asked.params_of(copy), copy, 1e-6)
    assert not list(folder.rglob("*.safetensors"))
    assert not (folder / "data/index").exists()
    assert answers(folder) == "Oslo"
    passages = copy.index("mini", "evaluation") / "passages.parquet"
    whole = passages.read_bytes()
    passages.write_bytes(whole + b" ")
    with pytest.raises(DataError, match="is not what was registered"):
        open_bundle(folder)
    passages.write_bytes(whole)
    asked.nudge(copy)
    with pytest.raises(ModelError, match="is not what it was"):
        open_bundle(folder)


def test_a_pointer_is_followed_into_the_bundle(layout: Layout, tmp_path: Path) -> None:
    copy, folder = asked.copy(layout, tmp_path / "copy"), tmp_path / "bundle"
    shutil.move(copy.model("swirl"), copy.model("base"))
    point_to_same(copy.model("base"), copy.model("swirl"))
    before = weights_digest(copy.model("swirl"))
    assert write_bundle(folder, asked.params_of(copy), copy, 100.0)
    small = tmp_path / "small"
    assert not write_bundle(small, asked.params_of(copy), copy, 0.001)
    assert Path(load_json(small / f"models/swirl/{POINTER}")["model"]) == copy.model("base").resolve()
    assert answers(small) == "Oslo"
    asked_base = copy.model("base") / "config.json"
    assert asked_base.exists()
    shutil.rmtree(copy.root)
    assert answers(folder) == "Oslo"
    assert weights_digest(folder / "models/swirl") == before


def test_a_gguf_file_is_copied_into_the_bundle_as_it_is(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    copy, folder = asked.copy(layout, tmp_path / "copy"), tmp_path / "bundle"
    file = gguf_writer.write(copy.root / "data/weights/tiny.gguf", gguf_writer.model(len(smollm2())))
    shutil.rmtree(copy.model("swirl"))
    write_pointer(copy.model("swirl"), "data/weights/tiny.gguf", root=copy.root)
    before, content = weights_digest(copy.model("swirl")), file.read_bytes()
    assert write_bundle(folder, asked.params_of(copy), copy, 100.0)
    assert [path.name for path in (folder / "models/weights").iterdir()] == ["tiny.gguf"]
    assert load_json(folder / f"models/swirl/{POINTER}")["model"] == "../weights/tiny.gguf"
    small = tmp_path / "small"
    assert not write_bundle(small, asked.params_of(copy), copy, 0.001)
    assert Path(load_json(small / f"models/swirl/{POINTER}")["model"]) == file.resolve()
    shutil.rmtree(copy.root)
    assert (folder / "models/weights/tiny.gguf").read_bytes() == content
    assert weights_digest(folder / "models/swirl") == before
    agent = open_bundle(folder)
    assert isinstance(agent.policy, Policy)
    assert agent.policy.chat.end_ids == {2}


def test_an_adapter_in_a_bundle_names_the_base_beside_it(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    copy, folder = asked.copy(layout, tmp_path / "copy"), tmp_path / "bundle"
    shutil.move(copy.model("swirl"), copy.model("base"))
    model = load_model(copy.model("base"), "cpu", "eager")
    add(model, 2, 4, ["all-linear"], seed=1)
    save(model, load_tokenizer(copy.model("base")), copy.model("swirl"), copy.model("base"), copy.root)
    assert write_bundle(folder, asked.params_of(copy), copy, 100.0)
    small = tmp_path / "small"
    assert not write_bundle(small, asked.params_of(copy), copy, 0.001)
    config = "models/swirl/adapter_config.json"
    assert load_json(small / config)["base_model_name_or_path"] == str(copy.model("base").resolve())
    shutil.rmtree(copy.root)
    assert load_json(folder / config)["base_model_name_or_path"] == "./models/weights"
    assert answers(folder) == "Oslo"
    monkeypatch.chdir(folder)
    ids = torch.tensor([[1, 2, 3]])
    loaded = AutoModelForCausalLM.from_pretrained("models/swirl", attn_implementation="eager")
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_weights_decide_the_digest(layout: Layout, tmp_path: Path) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    assert weights_digest(copy.model("swirl")) == weights_digest(layout.model("swirl"))
    asked.nudge(copy)
    assert weights_digest(copy.model("swirl")) != weights_digest(layout.model("swirl"))


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"api_key": "sk-1234"}, "api_key"),
        ({"servers": [{"name": "a", "login": {"Password": "sk-1234"}}]}, "servers.login.Password"),
        ({"token": ["sk-1234"]}, "token"),
        ({"headers": {"Authorization": "Bearer sk-1234"}}, "headers.Authorization"),
        ({"api_keys": {"web": "sk-1234"}}, "api_keys.web"),
        ({"command": ["run", "--api-key", "sk-1234"]}, "command"),
        ({"command": ["run", "--api-key=sk-1234"]}, "command"),
        ({"url": "https://me:sk-1234@host/x"}, "url"),
    ],
)
def test_a_secret_in_params_is_not_registered(
    options: dict[str, object], where: str, layout: Layout, tmp_path: Path
) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    tree = yaml.safe_load((copy.root / "params.yaml").read_text())
    next(iter(tree["tasks"].values()))["tools"].append("own:Tool")
    tree["tools"]["options"] = {"own:Tool": options}
    (copy.root / "params.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(DataError) as caught:
        write_bundle(tmp_path / "bundle", asked.params_of(copy), copy, 100.0)
    assert f"tools.options.own:Tool.{where} looks like a secret" in str(caught.value)
    assert "sk-1234" not in str(caught.value)


def test_a_bundle_holds_the_params_that_it_was_given(layout: Layout, tmp_path: Path) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    before = (copy.root / "params.yaml").read_text()
    (copy.root / "params.yaml").write_text(before.replace("embedding_revision: ''", "embedding_revision: '12345e7'"))
    params = asked.params_of(copy)
    write_bundle(tmp_path / "bundle", params, copy, 100.0)
    assert load(tmp_path / "bundle/params.yaml").index == params.index
    assert params.index.embedding_revision == "12345e7"
