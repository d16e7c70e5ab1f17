"""A tiny project, made by the real stages once a test session."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.models.loading import save
from swirl.pretraining import training
from swirl.wiring.attempts import attempts
from swirl.wiring.policies import load_policy
from swirl.wiring.questions import questions_of

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "runtime": {"threads": 1},
    "tasks": {
        "search": {"tools": ["search"], "max_steps": 3},
        "calculate": {"tools": ["calculator"], "max_steps": 4},
    },
    "rollout": {"block_size": 2, "in_flight": 2},
    "base_model": {
        "shape": {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 64, "context": 512},
        "flawed_phase": {"steps": 3, "batch_size": 4},
    },
    "synthesize": {"samples": 3},
    "reward_model": {"steps": 3},
    "train": {"swirl": {"updates": 6, "passes": None}},
}
HABITS = {
    "search": ("<search_query> where was Oslo </search_query>", "<answer> 7 </answer>"),
    "calculate": ("<math_exp> 3 + 4 </math_exp>", "<answer> 7 </answer>"),
}
"""What the taught base does whatever it is asked: a call, then an answer."""


@pytest.fixture(scope="session")
def params() -> Params:
    """params.yaml with the smoke test's changes and still smaller models, on one thread."""
    tree = presets.tree(ROOT, "smoke")
    phases = [{**phase, "steps": 4, "batch_size": 4} for phase in tree["base_model"]["sound_phases"]]
    return validate(laid_over(laid_over(tree, TINY), {"base_model": {"sound_phases": phases}}), "tests")


@pytest.fixture(scope="session")
def made(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project after download, index and base_model, as these stages left it. Not to be changed."""
    layout = Layout(tmp_path_factory.mktemp("made"))
    for folder in ("src/swirl/prompts", "data/tools"):
        shutil.copytree(ROOT / folder, layout.root / folder)
    (layout.root / "params.yaml").write_text(yaml.safe_dump(params.model_dump()), encoding="utf-8")
    (layout.root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    run_stages(params, layout, "download", "index", "base_model")
    return layout


@pytest.fixture(scope="session")
def project(params: Params, made: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project up to the filter, with a base that calls tools and answers more often than not. Not to be changed."""
    layout = clone(made, tmp_path_factory.mktemp("project") / "root")
    _teach(params, layout)
    run_stages(params, layout, "reward_model", "synthesize", "judge", "filter")
    return layout


@pytest.fixture(scope="session")
def trained(params: Params, project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The project after train@swirl. Not to be changed."""
    layout = clone(project, tmp_path_factory.mktemp("trained") / "root")
    import_module("swirl.stages.train").run(params, layout, "swirl")
    return layout


@pytest.fixture
def copy(project: Layout, tmp_path: Path) -> Layout:
    """The project's copy for one test to change."""
    return clone(project, tmp_path / "root")


@pytest.fixture
def kill_stage() -> Callable[..., None]:
    """Starts `swirl stage ...` in a project and kills it with SIGKILL once a moment has come."""
    return _kill_stage


def run_stages(params: Params, layout: Layout, *names: str) -> None:
    for name in names:
        import_module(f"swirl.stages.{name}").run(params, layout)


@contextlib.contextmanager
def interrupted_after(steps: int) -> Iterator[Callable[[], int]]:
    """Interrupts training of a model made here when it has taken so many steps; counts those that it takes."""
    taken, rate = 0, training.cosine

    def counted(*arguments: int) -> float:
        nonlocal taken
        if taken == steps:
            raise KeyboardInterrupt
        taken += 1
        return rate(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "cosine", counted)
        yield lambda: taken


def clone(layout: Layout, root: Path) -> Layout:
    shutil.copytree(layout.root, root)
    return Layout(root)


def _kill_stage(layout: Layout, *arguments: str, when: Callable[[], bool], then_s: float = 0.0) -> None:
    """Fails when the stage fails before that moment; `then_s` seconds pass between it and the kill.

    A kill that the machine was too busy to send before the stage was over shows nothing: it is tried again on the
    project as it was.
    """
    before = layout.root.with_name(f"{layout.root.name}.before")
    tracked = shutil.ignore_patterns("tracking", "mlflow.db*", "mlartifacts")  # may still be written to
    shutil.copytree(layout.root, before, ignore=tracked)
    late = 0
    while not _killed(layout, *arguments, when=when, then_s=then_s):
        late += 1
        assert late < 5, "it was over before each of five kills"
        layout.root.rename(layout.root.with_name(f"{layout.root.name}.late-{late}-{time.monotonic_ns()}"))
        shutil.copytree(before, layout.root, dirs_exist_ok=True)  # its worker makes folders until it is done
    shutil.rmtree(before)


def _killed(layout: Layout, *arguments: str, when: Callable[[], bool], then_s: float) -> bool:
    """Whether the kill came while it was that moment."""

    def come() -> bool:
        with contextlib.suppress(FileNotFoundError):  # the stage, which is over, has just removed what is looked at
            return when()
        return False

    said = layout.root / "killed.log"
    with said.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "swirl", "stage", *arguments],
            cwd=layout.root,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 300
    while process.poll() is None and not come():
        assert time.monotonic() < deadline, f"it did not get so far:\n{said.read_text()}"
        time.sleep(0.002)
    time.sleep(then_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    assert status in (0, -signal.SIGKILL), f"it ended with {status} before it could be killed:\n{said.read_text()}"
    return status == -signal.SIGKILL and come()


def _teach(params: Params, layout: Layout) -> None:
    """Give the base its habits, by a few seconds of maximum likelihood."""
    policy = load_policy(params, layout.model("base"), "base")
    todo = attempts(params, layout, [q for split in ("train", "development") for q in questions_of(layout, split)], 1)
    examples = []
    for attempt in todo:
        call, answer = (policy.chat.reply(text) for text in HABITS[attempt.question.task])
        prompt, between = policy.chat.prompt(attempt.prompt), policy.chat.turn("7", closed=True)
        ids = [*prompt, *call, *between, *answer]
        skip = [-100]
        examples.append((ids, [*skip * len(prompt), *call, *skip * len(between), *answer]))
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=1e-2)
    for step in range(120):
        ids, labels = examples[step * 7 % len(examples)]
        loss = policy.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save(policy.model, policy.chat.tokenizer, layout.model("base"))
