"""synthesize: what it writes, and that a kill loses nothing, repeats nothing and changes no byte."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Question, Stop, Trajectory
from swirl.stages import synthesize
from swirl.wiring.policies import load_policy


def test_every_training_question_is_tried_as_often_as_params_say(params: Params, project: Layout) -> None:
    made = load(Trajectory, project.trajectories)
    training = [q.id for q in load(Question, project.questions) if q.split == "train"]
    assert len(training) == 24
    assert [(t.question_id, t.sample) for t in made] == [(q, sample) for q in training for sample in range(3)]
    assert len({t.id for t in made}) == 72
    assert {t.model for t in made} == {"base"}


def test_trajectories_are_of_all_kinds_and_token_exact(params: Params, project: Layout) -> None:
    made = load(Trajectory, project.trajectories)
    assert Stop.ANSWERED in {t.stop for t in made}
    assert {"search", "calculate", "answer", "malformed"} <= {step.action.kind for t in made for step in t.steps}
    chat = load_policy(params, project.model("base"), "base").chat
    for trajectory in made:
        for step in trajectory.steps:
            assert chat.text(step.token_ids) == step.action.text


def test_metrics_are_of_the_trajectories(project: Layout) -> None:
    made = load(Trajectory, project.trajectories)
    steps = sum(len(t.steps) for t in made)
    metrics = load_json(project.metrics("synthesize"))
    assert metrics["trajectories"] == 72
    assert metrics["steps"] == steps
    assert metrics["steps_per_trajectory"] == pytest.approx(steps / 72)
    cut = [step.action.kind == "cut" for t in made for step in t.steps]
    assert metrics["cut_rate"] == pytest.approx(sum(cut) / steps)
    answers = [seen for t in made for step in t.steps for seen in step.observations if seen.kind]
    assert metrics["tool_error_rate"] == sum(seen.error for seen in answers) / len(answers)
    assert metrics["stop.answered"] == pytest.approx(sum(t.stop is Stop.ANSWERED for t in made) / 72)
    assert sum(value for name, value in metrics.items() if name.startswith("stop.")) == pytest.approx(1.0)


@pytest.mark.rare
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    params: Params, copy: Layout, project: Layout, kill_stage: Callable[..., None]
) -> None:
    copy.trajectories.unlink()
    copy.metrics("synthesize").unlink()
    shutil.rmtree(copy.trajectories_journal)
    seed = random.randrange(2**32)  # a different moment in every run: what must hold, holds at any
    print(f"random.Random({seed})")  # shown if the test fails, to be put here and tried again
    rng = random.Random(seed)
    blocks = rng.randint(1, 12)

    def some() -> bool:
        return len(committed(copy)) >= blocks and not copy.trajectories.exists()

    kill_stage(copy, "synthesize", when=some, then_s=rng.uniform(0, 0.05))
    kept = {path.name: path.stat().st_mtime_ns for path in committed(copy)}
    assert len(kept) < 36

    seen: dict[str, int] = {}
    kill_stage(
        copy,
        "synthesize",
        when=lambda: len(committed(copy)) > len(kept) and (seen.update(times(copy)) or True),
    )
    assert {name: seen[name] for name in kept} == kept, "a committed block was made again"

    synthesize.run(params, copy)
    assert copy.trajectories.read_bytes() == project.trajectories.read_bytes()
    assert copy.metrics("synthesize").read_bytes() == project.metrics("synthesize").read_bytes()
    assert not [path for path in committed(copy) if ".finished" not in path.parent.name]


def committed(layout: Layout) -> list[Path]:
    return list(layout.trajectories_journal.glob("*/block-*.parquet"))


def times(layout: Layout) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in committed(layout)}


@pytest.mark.slow
@pytest.mark.parametrize("change", ["params", "prompt"])
def test_the_blocks_of_another_run_are_not_used(
    change: str, params: Params, copy: Layout, project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run dies after its first blocks; the next has other params, or another text in the same prompt file."""
    params = validate(laid_over(params.model_dump(), {"runtime": {"workers": 1}}), "tests")  # blocks come in order
    shutil.rmtree(copy.trajectories_journal)
    stop_after(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        synthesize.run(params, copy)
    assert len(committed(copy)) == 8
    monkeypatch.undo()

    if change == "params":
        params = validate(laid_over(params.model_dump(), {"synthesize": {"temperature": 3.0}}), "tests")
    else:
        path = copy.root / params.prompts.policy / "search.txt"
        path.write_text("answer {question}", encoding="utf-8")
    synthesize.run(params, copy)
    theirs, ours = load(Trajectory, project.trajectories), load(Trajectory, copy.trajectories)
    assert [t.id for t in ours] == [t.id for t in theirs]
    first = range(16)  # the trajectories of the eight blocks
    if change == "params":
        assert sum(ours[i].steps != theirs[i].steps for i in first) > 3
    else:
        searches = [i for i in first if ours[i].benchmark == "mini-hotpotqa"]
        assert len(searches) == 16
        assert all(ours[i].prompt_ids != theirs[i].prompt_ids for i in searches)


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Interrupts the stage when it has `count` blocks and asks for one more."""
    commit = Journal.commit

    def counted(self: Journal, number: int, *rest: object) -> object:
        if number == count:
            raise KeyboardInterrupt
        return commit(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "commit", counted)
