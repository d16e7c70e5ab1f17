"""examples/own-task: a user's own questions, passages, prompts and tools, through the stages to the report.

A tiny model that is taught to answer a few of the questions with both tools stands in for a capable one.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.comb.combs import Comb
from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import ToolError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Question, Score, Trajectory
from swirl.judging.reward import RewardModel
from swirl.models.chat import Chat
from swirl.models.loading import load_chat, save
from swirl.pretraining.architectures import random_qwen3
from swirl.pretraining.cold_start_base import demonstrations
from swirl.pretraining.word_tokenizer import build_tokenizer
from swirl.rollout.engine import Attempt, observe
from swirl.wiring.attempts import attempts
from swirl.wiring.calibration import measure
from swirl.wiring.judge_prompts import judge_question
from swirl.wiring.judges import read_judge_prompts
from swirl.wiring.questions import questions_of
from swirl.wiring.tools import Toolbox
from tests import made_up
from tests.stages.conftest import run_stages

ROOT = Path(__file__).parents[2]
EXAMPLE = "examples/own-task"
SERVER = {"source": "pretrained", "model": "taught", "revision": "", "trust_remote_code": False}
SMALL: dict[str, Any] = {
    "base_model": SERVER,
    "reward_model": {**SERVER, "verdict": "token", "max_tokens": 8, "votes": 1, "temperature": 0.0},
    "runtime": {"workers": 1, "context": 0},
    "download": {
        "benchmarks": {
            "staff": {
                "source": "own",
                "files": {"train": "train.jsonl", "evaluation": "evaluation.jsonl"},
                "corpus": "corpus",
                "task": "staff",
                "train": 3,
                "evaluation": 2,
            }
        }
    },
    "check_questions": {"min_evaluation": 2},
    "synthesize": {"samples": 2, "temperature": 0.2},
    "filter": {"strategy": "outcome"},
    "check_steps": {"min_rows": 3, "min_good_share": 0.0, "max_good_share": 1.0},
    "train": {
        "swirl": {"updates": 2, "states": 4, "samples": 2, "check_every": 2, "lr": 1e-6},
        "sft": {"epochs": 1, "batch_size": 4, "lr": 1e-6},
    },
    "report": {"samples": 0},
}


@pytest.fixture(scope="module")
def params() -> Params:
    """The example's own preset, with a small model and few questions."""
    return validate(laid_over(presets.tree(ROOT, str(ROOT / EXAMPLE / "preset.yaml")), SMALL), "own task")


@pytest.fixture(scope="module")
def done(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The example's project after every stage."""
    layout = Layout(tmp_path_factory.mktemp("own"))
    shutil.copytree(ROOT / EXAMPLE, layout.root / EXAMPLE)
    run_stages(params, layout, "download", "check_questions", "index")
    teach(params, layout)
    run_stages(params, layout, "base_model", "reward_model", "synthesize", "check_trajectories")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardModel, "read", listening(layout.root / "judged.txt"))
        run_stages(params, layout, "judge")
    run_stages(params, layout, "filter", "check_steps")
    for stage, items in (("train", ("sft", "swirl")), ("evaluate", ("ceiling", "base", "sft", "swirl"))):
        module = __import__(f"swirl.stages.{stage}", fromlist=["run"])
        for item in items:
            module.run(params, layout, item)
    run_stages(params, layout, "report")
    return layout


def listening(path: Path) -> Callable[[RewardModel, Sequence[Comb]], list[list[float]]]:
    """A `RewardModel.read` that also writes each text that the judge is sent to `path`, one per line."""
    read = RewardModel.read

    def wrote(judge: RewardModel, combs: Sequence[Comb]) -> list[list[float]]:
        with path.open("a", encoding="utf-8") as file:
            for comb in combs:
                for tooth in comb.teeth:
                    print(judge.chat.text([*comb.trunk[: tooth.sees], *tooth.ids]), file=file)
        return read(judge, combs)

    return wrote


def teach(params: Params, layout: Layout) -> None:
    """Saves a model in `taught/` that knows by heart how to answer the project's questions, one call per turn."""
    toolbox = Toolbox(params, layout)
    asked = [question for split in ("train", "evaluation") for question in questions_of(layout, split)]
    todo = attempts(params, layout, asked, 1)
    talks = {attempt.question.id: talk(attempt, toolbox) for attempt in todo}
    texts = [attempt.prompt for attempt in todo] + [text for turns in talks.values() for turn in turns for text in turn]
    tokenizer = build_tokenizer([*texts, judge_question(params, layout), "GOOD BAD"], [], 1024)
    chat, skip = Chat(tokenizer), -100
    rows = []
    for attempt in todo:
        ids = list(chat.prompt(attempt.prompt))
        labels = [skip] * len(ids)
        for action, observation in talks[attempt.question.id]:
            reply = chat.reply(action)
            between = chat.turn(observation, closed=True) if observation else ()
            ids += [*reply, *between]
            labels += [*reply, *[skip] * len(between)]
        rows.append((ids, labels))
    model = random_qwen3(tokenizer, 64, 2, 4, 128, 1024, "eager", 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows])
    labels = torch.tensor([[*row, *[skip] * (width - len(row))] for _, row in rows])
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
    save(model, tokenizer, layout.root / "taught")


def talk(attempt: Attempt, toolbox: Toolbox) -> list[tuple[str, str]]:
    """(action, observation) of each turn: find the project's leader, look the leader up, answer."""
    tools = toolbox.tools(attempt.question)
    project = attempt.question.text.rpartition("project ")[2].split()[0].rstrip("?")
    found = observe(tools["search"], f"project {project} leader").text
    leader = re.search(rf"Project {project} [^|]*?led by (\w+ \w+)\.", found)
    assert leader, found
    wanted = {"office": "office", "year": "started", "manage": "COUNT(*)"}
    column = next(column for word, column in wanted.items() if word in attempt.question.text)
    where = "manager" if column == "COUNT(*)" else "name"
    query = f"SELECT {column} FROM staff WHERE {where} = '{leader[1]}'"
    said = observe(tools["sql"], query).text
    return [
        (f"<search_query> project {project} leader </search_query>", found),
        (f"<sql_query> {query} </sql_query>", said),
        (f"<answer> {said.rpartition(' -> ')[2]} </answer>", ""),
    ]


@pytest.mark.slow
def test_one_trajectory_needs_both_tools_and_answers_right(done: Layout) -> None:
    made = load(Trajectory, done.trajectories)
    questions = {question.id: question for question in load(Question, done.questions)}
    assert len(made) == 6
    assert {question.task for question in questions.values()} == {"staff"}
    both = [t for t in made if [step.action.kind for step in t.steps] == ["search", "sql", "answer"]]
    assert both, "no trajectory searched, asked the database, and answered"
    right = [t for t in both if t.answer in questions[t.question_id].answers]
    assert len(right) >= 3
    step = right[0].steps[1]
    assert step.observation.startswith(f"{step.action.payload} -> ")
    assert not step.tool_error


@pytest.mark.slow
def test_policy_and_judge_are_told_of_the_tools_by_the_example(params: Params, done: Layout) -> None:
    """What reaches the judge's model: the policy's prompt with its tools, the steps, and the example's own question."""
    steps = [step for trajectory in load(Trajectory, done.trajectories) for step in trajectory.steps]
    sent = (done.root / "judged.txt").read_text(encoding="utf-8").splitlines()
    question = judge_question(params, done).strip()
    assert "An SQL query is GOOD if it is one SELECT over the table staff" in question
    assert len(sent) >= len(steps) >= 6
    for text in sent:
        assert f"{question} GOOD" in text
        assert "<search_query> ... </search_query>: finds the passages that match a query <sql_query> ..." in text
        assert "</sql_query>: answers one SELECT over table staff: name, office, department, started (a year)" in text


@pytest.mark.slow
def test_the_judge_is_calibrated_behind_the_same_prompt(
    done: Layout, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"question": "Who?", "conversation": "", "action": "<answer> Ann </answer>", "label": "GOOD"}
    (tmp_path / "labelled.jsonl").write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setattr(RewardModel, "read", listening(tmp_path / "judged.txt"))
    assert measure(tmp_path / "labelled.jsonl", False, params, done).n == 1
    [shown] = (tmp_path / "judged.txt").read_text(encoding="utf-8").splitlines()
    assert "<search_query> ... </search_query>: finds the passages that match a query <sql_query> ..." in shown
    assert "</sql_query>: answers one SELECT over table staff: name, office, department, started (a year)" in shown


def test_judges_that_write_reasons_have_a_rule_for_sql_too(params: Params) -> None:
    prompts = read_judge_prompts(params, Layout(ROOT))
    for prompt in (prompts.process, prompts.reward):
        assert "An SQL query is GOOD if it is one SELECT over the table staff" in prompt
        assert "name, office, department, started (a year) and manager" in prompt


@pytest.mark.slow
def test_the_report_has_the_own_benchmark(done: Layout) -> None:
    scores = load_json(done.results)["scores"]
    assert [(row["benchmark"], row["model"], row["n"]) for row in scores] == [
        ("staff", "base", 2),
        ("staff", "sft", 2),
        ("staff", "swirl", 2),
    ]
    assert all(row["accuracy"] == 1.0 for row in scores), scores
    assert {field for field in Score.__dataclass_fields__ if field not in scores[0]} == set()


def database(**options: Any) -> Any:
    """The example's tool."""
    spec = importlib.util.spec_from_file_location("staff_db", ROOT / EXAMPLE / "tools/staff_db.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StaffDatabase(**options)


def test_the_database_answers_and_is_bounded() -> None:
    tool = database(rows=2)
    assert tool.run("SELECT COUNT(*) FROM staff") == "36"
    assert re.fullmatch(r"\w+ \w+; \w+ \w+; \.\.\.", tool.run("SELECT name FROM staff ORDER BY name"))
    assert tool.run("SELECT name FROM staff WHERE office = 'Nowhere'") == "no rows"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM staff", "not authorized"),
        ("UPDATE staff SET office = 'x'", "not authorized"),
        ("ATTACH DATABASE '/tmp/x.db' AS x", "not authorized"),
        ("PRAGMA table_info(staff)", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT salary FROM staff", "no such column: salary"),
        ("SELECT length(zeroblob(100000000))", "too big"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n", "longer than 0.2 s"),
    ],
)
def test_the_database_refuses_what_is_no_bounded_reading(query: str, message: str) -> None:
    seconds = 0.2 if "longer than" in message else 600.0  # on a busy machine the others may be slow
    with pytest.raises(ToolError, match=message):
        database(seconds=seconds).run(query)


def test_the_demonstrations_are_played_with_both_tools(tmp_path: Path) -> None:
    """The preset's project with a cold start's split: the shown results hold what each answer says."""
    preset = presets.tree(ROOT, str(ROOT / EXAMPLE / "preset.yaml"))
    staff = preset["download"]["benchmarks"]["staff"]
    staff |= {"files": {**staff["files"], "pretrain": "demonstrations.jsonl"}, "pretrain": "all"}
    params, layout = validate(preset, "demonstrations"), Layout(tmp_path)
    shutil.copytree(ROOT / EXAMPLE, tmp_path / EXAMPLE)
    run_stages(params, layout, "download", "check_questions", "index")
    rows = (tmp_path / EXAMPLE / "data/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    made_up.pretrained(tmp_path / "tiny", rows)
    played, counts = demonstrations(params, layout, load_chat(tmp_path / "tiny"), 4096)
    assert counts == {"demonstrations.staff": 12.0}
    assert len(rows) == 12
    for trajectory in played:
        *calls, answer = trajectory.steps
        assert {step.action.kind for step in calls} in ({"search"}, {"search", "sql"})
        assert answer.action.payload in calls[-1].observation
        assert not any(step.tool_error for step in trajectory.steps)
