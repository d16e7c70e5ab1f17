"""`swirl export`, and what the exported folder is to `swirl evaluate`, `swirl ask` and `swirl show`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from swirl.cli import ask as asking
from swirl.config.shared import Task
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.models import adapters
from swirl.models.loading import load_model, load_tokenizer, save
from swirl.models.pointers import write_pointer
from tests import asked
from tests.cli.test_evaluate import SCRIPTED, written

Swirl = Callable[..., subprocess.CompletedProcess[str]]
FOLDER = "examples/tiny/swirl"
SAID = f"swirl: {FOLDER} is asked with its own prompts and settings (swirl.yaml), not params.yaml's\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with models/swirl, an adapter on a policy whose answers are known. Not to be changed."""
    layout = asked.project(tmp_path_factory.mktemp("project"))
    base = layout.model("base")
    shutil.copytree(layout.model("swirl"), layout.root / "data/weights/taught")
    shutil.rmtree(layout.model("swirl"))
    write_pointer(base, "data/weights/taught", root=layout.root)
    model = load_model(base, "cpu", "eager")
    adapters.add(model, 2, 4, ["all-linear"], seed=1)
    save(model, load_tokenizer(base), layout.model("swirl"), base, layout.root)
    return layout


@pytest.fixture
def layout(made: Layout, swirl: Swirl, tmp_path: Path) -> Layout:
    """A copy after `swirl export`, whose params.yaml and prompts have become others since, as in somebody's clone."""
    layout = asked.copy(made, tmp_path / "clone")
    done = swirl("export", "models/swirl", FOLDER, "--no-base", "--dtype", "float32", cwd=layout.root)
    assert done.stderr in ("", f"writing {FOLDER} ...\n")
    said = rf"{FOLDER}: a LoRA adapter of rank 2, [\d,]+ parameters in float32, 0\.\d MB, on data/weights/taught\n"
    assert re.fullmatch(said, done.stdout)
    tree = yaml.safe_load((layout.root / "params.yaml").read_text(encoding="utf-8"))
    tree["prompts"]["policy"], tree["tasks"]["search"]["max_steps"] = "other", 1
    (layout.root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    shutil.move(layout.root / "words", layout.root / "other")
    for file in (layout.root / "other").iterdir():
        file.write_text("Rome Rome {question}\n", encoding="utf-8")
    return layout


@pytest.mark.slow
def test_an_exported_model_is_measured_with_its_own_settings(layout: Layout, tmp_path: Path, swirl: Swirl) -> None:
    path = written(tmp_path, *SCRIPTED)
    arguments = ("--benchmark", "hotpotqa", "--file", str(path), "--json")
    done = swirl("evaluate", "models/swirl", FOLDER, *arguments, cwd=layout.root)
    there, own = json.loads(done.stdout)["models"]
    assert (own["accuracy"], own["malformed"]) == (0.4, pytest.approx(3 / 11)), "what its script earns"
    assert there["malformed"] != own["malformed"], "the project's prompts are others, and there is no step but one"
    assert done.stderr.count(SAID) == done.stderr.count("its own prompts") == 1
    shutil.copytree(asked.ROOT / "presets", layout.root / "presets")
    tasks = {
        "search": {"tools": ["search", "calculator"], "max_steps": 1},
        "calculate": asked.SETTINGS["tasks"]["calculate"],
    }
    other = {"prompts": {"policy": "other"}, "rollout": {"max_action_tokens": 16}, "tasks": tasks}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(other))
    asked_for = swirl("evaluate", FOLDER, *arguments, "--preset", str(tmp_path / "own.yaml"), cwd=layout.root)
    (same,) = json.loads(asked_for.stdout)["models"]
    assert (same["accuracy"], same["malformed"]) == (there["accuracy"], there["malformed"])
    assert "its own prompts" not in asked_for.stderr


@pytest.mark.slow
def test_an_exported_model_answers_and_is_shown(layout: Layout, swirl: Swirl) -> None:
    question = (asked.QUESTION, "--benchmark", "mini", "--json")
    done = swirl("ask", *question, "--model", FOLDER, cwd=layout.root)
    own = json.loads(done.stdout)
    assert (own["answer"], [step["action"]["kind"] for step in own["steps"]]) == (asked.ANSWER, ["search", "answer"])
    assert done.stderr.count(SAID) == 1
    here = swirl("ask", *question, "--model", "models/swirl", cwd=layout.root)
    assert len(json.loads(here.stdout)["steps"]) == 1
    assert "its own prompts" not in here.stderr
    shown = swirl("show", FOLDER, cwd=layout.root)
    assert shown.stdout.startswith(f"model       {FOLDER}\nadapter     LoRA of rank 2, ")
    assert "\nstands on   ./data/weights/taught\n" in shown.stdout
    assert "  max_action_tokens: 16\n" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("models/nowhere", "out"), "there is no model folder models/nowhere"),
        (("words", "out"), "words holds no model"),
        (("data/weights/taught", "out"), "data/weights/taught holds whole weights that were made here, so there is no"),
        (("models/base", "out"), "models/base only points to weights, and nothing was taught here"),
        (("models/swirl", "words"), "words holds something else than an exported model"),
        (
            ("models/swirl", "out", "--as", "merged", "--base"),
            "--base and --no-base are for --as adapter; merged",
        ),
        (("models/swirl", "out", "--converter", "x"), "--converter is for --as gguf, not for adapter"),
        (
            ("models/swirl", "out", "--as", "gguf", "--converter", "x"),
            "x is not llama.cpp's converter; get it with",
        ),
        (("http://127.0.0.1:9/v1#m", "out"), "http://127.0.0.1:9/v1#m is no model's folder"),
    ],
)
def test_a_mistake_gets_one_sentence(arguments: tuple[str, ...], said: str, made: Layout, swirl: Swirl) -> None:
    done = swirl("export", *arguments, cwd=made.root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"swirl: {said}")
    assert done.stderr.count("\n") == 1
    assert not (made.root / "out").exists()


def test_a_model_is_asked_with_the_tools_of_its_own_tasks(made: Layout) -> None:
    """Whatever the project's questions were downloaded with; and not at all where it knows none of their tasks."""
    params, task = asked.params_of(made), Task(tools=["search"], max_steps=5)
    own, strange = (params.model_copy(update={"tasks": {name: task}}) for name in ("search", "films"))
    agent, name = asking._agent(made.model("swirl"), "mini", own, made, "")
    assert agent.question(asked.QUESTION, name).tools == ("search",)
    said = "the model is asked in tasks films; the project's benchmarks are of search"
    with pytest.raises(DataError, match=said):
        asking.ask(asked.QUESTION, None, made.model("swirl"), strange, made)
