"""A small project with a taught policy, an index and predictions, for tests of `swirl ask` and the model registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from swirl.config.params import Params, load
from swirl.config.presets import laid_over
from swirl.core import records
from swirl.core.layout import Layout
from swirl.core.types import Passage, Prediction, Question, Stop
from swirl.tools.search import build
from tests import taught

ROOT = Path(__file__).parents[1]
PASSAGES = [Passage("p1", "Ada", "Ada was born in Oslo."), Passage("p2", "Bo", "Bo was born in Rome.")]
SETTINGS: dict[str, Any] = {
    "runtime": {"workers": 1},
    "tasks": {
        "search": {"tools": ["search", "calculator"], "max_steps": 5},
        "calculate": {"tools": ["calculator"], "max_steps": 5},
    },
    "rollout": {"max_action_tokens": 16, "max_malformed": 2},
    "prompts": {"policy": "words"},
    "index": {"retriever": "bm25"},
}
QUESTION, ANSWER = "what is born", "Oslo"
"""A question that the policy answers after one search, and its answer."""


def project(root: Path, **settings: Any) -> Layout:
    """A project with two benchmarks that search the same two passages; `settings` are laid over its params."""
    layout = Layout(root)
    root.mkdir(parents=True, exist_ok=True)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree = laid_over(laid_over(tree, SETTINGS), settings)
    (root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (root / "words").mkdir()
    for name in ("search", "calculate", "closed_book"):
        (root / f"words/{name}.txt").write_text("{question}\n", encoding="utf-8")
    write_questions(layout)
    for benchmark in ("mini", "other"):
        build(PASSAGES, layout.index(benchmark, "evaluation"))
    taught.saved(layout.model("swirl"))
    return layout


def write_questions(layout: Layout, count: int = 40, asked: str = QUESTION) -> None:
    """Writes `count` evaluation questions for each of the two benchmarks, and one training question."""
    tools = ("search", "calculator")
    rows = [Question("train/0", "mini", "train", asked, (ANSWER,), 2, tools)]
    for benchmark in ("mini", "other"):
        rows += [
            Question(f"{benchmark}/{i}", benchmark, "evaluation", asked, (ANSWER,), 2, tools) for i in range(count)
        ]
    records.save(rows, Question, layout.questions)


def predict(layout: Layout, model: str, right: int, count: int = 40) -> None:
    """Writes predictions of a model: right on the first `right` questions of each benchmark, and only with tools."""
    rows = [
        Prediction(
            f"{benchmark}/{i}", benchmark, model, with_tools, "", with_tools and i < right, 0.0, 0.0, 0.0, 0.0, None,
            None, 1, 0, Stop.ANSWERED, f"{benchmark}/{i}/0",
        )
        for with_tools in (True, False)
        for benchmark in ("mini", "other")
        for i in range(count)
    ]  # fmt: skip
    records.save(rows, Prediction, layout.predictions(model))


def nudge(layout: Layout) -> None:
    """Changes the policy's weights on disk, by too little to change what it says."""
    from safetensors.torch import load_file, save_file

    path = layout.model("swirl") / "model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name] = weights[name] * (1 + 1e-6)
    save_file(weights, path, {"format": "pt"})


def params_of(layout: Layout) -> Params:
    """The project's params."""
    return load(layout.root / "params.yaml")


def copy(layout: Layout, target: Path) -> Layout:
    """The same project in another folder."""
    shutil.copytree(layout.root, target)
    return Layout(target)
