"""evaluate: a prediction for every question and arm, and the scores computed from them."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import ModelError
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.seeds import derive
from swirl.core.types import Action, Prediction, Question, Step, Stop, Trajectory, Verdict
from swirl.evaluation.comparison import compare
from swirl.judging.reward import RewardModel
from swirl.serving.bundle import project_agent
from swirl.serving.measuring import Drawing, measure
from swirl.stages.evaluate import cut_rates
from swirl.wiring.attempts import attempts, roll_out_all
from swirl.wiring.given_rows import GivenRows
from swirl.wiring.judges import load_judge
from swirl.wiring.policies import load_policy
from swirl.wiring.questions import questions_of
from tests.stages.conftest import clone

SEARCHED = {"mini-hotpotqa", "mini-musique", "mini-cofca", "mini-beerqa"}
EVERY = SEARCHED | {"mini-gsm8k"}


@pytest.fixture(scope="module")
def evaluated(params: Params, project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = clone(project, tmp_path_factory.mktemp("evaluated") / "root")
    import_module("swirl.stages.evaluate").run(params, layout, "base")
    return layout


def test_every_question_is_predicted_in_each_of_its_arms(evaluated: Layout) -> None:
    rows = load(Prediction, evaluated.predictions("base"))
    questions = [q for q in load(Question, evaluated.questions) if q.split == "evaluation"]
    expected = Counter((q.id, True) for q in questions)
    expected.update((q.id, False) for q in questions if q.benchmark in SEARCHED)
    assert Counter((row.question_id, row.with_tools) for row in rows) == expected
    assert len(rows) == 5 * 12 + 4 * 12
    assert {row.model for row in rows} == {"base"}
    assert {row.benchmark for row in rows} == EVERY


def test_without_tools_there_is_one_step_and_no_call(evaluated: Layout) -> None:
    rows = [row for row in load(Prediction, evaluated.predictions("base")) if not row.with_tools]
    assert all(row.steps <= 1 and row.process_label_oracle is None for row in rows)


def test_trajectories_are_kept_for_the_predictions_with_tools(evaluated: Layout) -> None:
    rows = [row for row in load(Prediction, evaluated.predictions("base")) if row.with_tools]
    made = load(Trajectory, evaluated.prediction_trajectories("base"))
    assert [(t.id, t.answer, t.stop, len(t.steps)) for t in made] == [
        (row.trajectory_id, row.answer, row.stop, row.steps) for row in rows
    ]
    assert "7" in {t.answer for t in made}


def test_scores_are_the_means_of_the_predictions(evaluated: Layout) -> None:
    rows = load(Prediction, evaluated.predictions("base"))
    scores = load_json(evaluated.evaluation("base"))
    assert {(s["benchmark"], s["with_tools"]) for s in scores} == {
        *((name, True) for name in EVERY),
        *((name, False) for name in SEARCHED),
    }
    for score in scores:
        cell = [r for r in rows if (r.benchmark, r.with_tools) == (score["benchmark"], score["with_tools"])]
        assert (score["n"], score["model"], score["p_vs_base"]) == (12, "base", None)
        assert score["accuracy"] == pytest.approx(sum(r.correct for r in cell) / 12)
        assert score["f1"] == pytest.approx(sum(r.f1 for r in cell) / 12)
        assert score["ci_low"] <= score["accuracy"] <= score["ci_high"]


def test_metrics_are_flat_and_named_after_the_benchmark(evaluated: Layout) -> None:
    metrics = load_json(evaluated.metrics("evaluate-base"))
    for name in EVERY:
        assert {f"{name}.{key}" for key in ("accuracy", "ci_low", "ci_high", "f1", "steps")} <= metrics.keys()
    assert {name.split(".without_tools")[0] for name in metrics if ".without_tools." in name} == SEARCHED
    assert sum(value for name, value in metrics.items() if name.startswith("stop.")) == pytest.approx(1.0)


@pytest.mark.slow
def test_without_the_arm_without_tools(params: Params, project: Layout, tmp_path: Path) -> None:
    """The arm without tools is left out when params say so."""
    layout = clone(project, tmp_path / "root")
    tree = laid_over(params.model_dump(), {"evaluate": {"without_tools": False}})
    import_module("swirl.stages.evaluate").run(validate(tree, "tests"), layout, "ceiling")
    rows = load(Prediction, layout.predictions("ceiling"))
    assert (len(rows), {row.with_tools for row in rows}, {row.model for row in rows}) == (60, {True}, {"ceiling"})


@pytest.mark.slow
def test_several_samples_of_a_question_are_one_question(params: Params, project: Layout, tmp_path: Path) -> None:
    layout = clone(project, tmp_path / "root")
    tree = laid_over(params.model_dump(), {"evaluate": {"samples": 3, "temperature": 1.0}})
    import_module("swirl.stages.evaluate").run(validate(tree, "tests"), layout, "base")
    rows = load(Prediction, layout.predictions("base"))
    assert len(rows) == 3 * (5 * 12 + 4 * 12)
    made = load(Trajectory, layout.prediction_trajectories("base"))
    assert Counter(trajectory.sample for trajectory in made) == {0: 60, 1: 60, 2: 60}
    assert len({(t.question_id, tuple(step.token_ids for step in t.steps)) for t in made}) > 60
    for score in load_json(layout.evaluation("base")):
        cell = [r for r in rows if (r.benchmark, r.with_tools) == (score["benchmark"], score["with_tools"])]
        assert score["n"] == 12
        assert score["accuracy"] == pytest.approx(sum(row.correct for row in cell) / 36)


def test_accuracy_by_hops_is_told_apart_and_averaged(evaluated: Layout) -> None:
    questions = {q.id: q for q in load(Question, evaluated.questions)}
    rows = [
        r for r in load(Prediction, evaluated.predictions("base")) if r.with_tools and r.benchmark == "mini-musique"
    ]
    groups: dict[int, list[bool]] = {}
    for row in rows:
        groups.setdefault(questions[row.question_id].hops, []).append(row.correct)
    assert set(groups) == {3, 4}
    metrics = load_json(evaluated.metrics("evaluate-base"))
    means = {hops: sum(right) / len(right) for hops, right in groups.items()}
    assert {h: metrics[f"mini-musique.hops_{h}.accuracy"] for h in groups} == means
    assert metrics["mini-musique.mean_of_hops.accuracy"] == pytest.approx((means[3] + means[4]) / 2)
    assert "mini-hotpotqa.mean_of_hops.accuracy" not in metrics  # all of its questions have two hops


def test_the_share_of_actions_that_are_cut_is_a_metric(evaluated: Layout) -> None:
    made = load(Trajectory, evaluated.prediction_trajectories("base"))
    metrics = load_json(evaluated.metrics("evaluate-base"))
    for name in EVERY:
        cut = [step.action.kind == "cut" for t in made if t.benchmark == name for step in t.steps]
        assert metrics[f"{name}.cut_rate"] == pytest.approx(sum(cut) / len(cut))
    turns = [Step(k, Action(kind, "x", ""), (), (5,), (0.0,), ()) for k, kind in enumerate(("cut", "search"))]
    half = Trajectory("t", "q", "b", 0, "m", 0, (5,), tuple(turns), Stop.STEP_LIMIT, "")
    assert cut_rates([half, dataclasses.replace(half, steps=turns[1:])]) == {"b.cut_rate": pytest.approx(1 / 3)}


SECOND = {
    "source": "pretrained", "model": "models/base/ceiling", "revision": "", "trust_remote_code": False,
    "verdict": "token", "max_tokens": 8, "votes": 1, "temperature": 0.0,
}  # fmt: skip


@pytest.mark.slow
def test_a_second_judge_gives_the_process_labels(
    params: Params, evaluated: Layout, project: Layout, tmp_path: Path
) -> None:
    """The ceiling, whose verdicts differ from the reward model's; everything but the labels stays as it was."""
    layout = clone(project, tmp_path / "root")
    made = load(Trajectory, evaluated.prediction_trajectories("base"))
    second = load_judge("second", params.reward_model, layout.model("ceiling"), params, layout)
    assert isinstance(second, RewardModel)
    flat = [score for row in second.trajectory_scores(made) for score in row]
    middle = sorted(flat)[len(flat) // 2]  # it calls half of the steps GOOD
    tree = laid_over(params.model_dump(), {"evaluate": {"judge": SECOND}, "judge": {"threshold": middle}})
    shutil.rmtree(layout.model("reward"))  # it is not needed
    import_module("swirl.stages.evaluate").run(validate(tree, "tests"), layout, "base")

    assert layout.prediction_trajectories("base").read_bytes() == evaluated.prediction_trajectories("base").read_bytes()
    verdicts = load(Verdict, layout.prediction_verdicts("base"))
    assert {verdict.judge for verdict in verdicts} == {"models/base/ceiling"}
    assert [v.score for v in verdicts] == pytest.approx(flat, abs=1e-6)
    before, after = (load(Prediction, one.predictions("base")) for one in (evaluated, layout))
    assert [dataclasses.replace(row, process_label_judge=None) for row in after] == [
        dataclasses.replace(row, process_label_judge=None) for row in before
    ]
    assert [row.process_label_judge for row in after] != [row.process_label_judge for row in before]
    by = {(row["judge"], row["judge_role"]) for row in load_json(layout.evaluation("base"))}
    assert by == {("models/base/ceiling", "a second judge, not the reward")}
    by = {(row["judge"], row["judge_role"]) for row in load_json(evaluated.evaluation("base"))}
    assert by == {("reward", "the same that was the reward")}


def test_a_second_judge_that_is_not_there_is_named(params: Params, copy: Layout) -> None:
    tree = laid_over(params.model_dump(), {"evaluate": {"judge": {**SECOND, "model": "./nobody"}}})
    with pytest.raises(ModelError, match=r"^evaluate.judge: './nobody' is neither a folder"):
        import_module("swirl.stages.evaluate").run(validate(tree, "tests"), copy, "base")


BY_FIVE = {"evaluate": {"block_size": 5}}


@pytest.mark.rare
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    params: Params, project: Layout, tmp_path: Path, kill_stage: Callable[..., None]
) -> None:
    settings = laid_over(params.model_dump(), BY_FIVE)
    chosen = validate(settings, "tests")
    whole, copy = clone(project, tmp_path / "whole"), clone(project, tmp_path / "killed")
    evaluate = import_module("swirl.stages.evaluate")
    evaluate.run(chosen, whole, "base")
    (copy.root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    seed = random.randrange(2**32)  # a different moment in every run: what must hold, holds at any
    print(f"random.Random({seed})")  # shown if the test fails, to be put here and tried again
    rng = random.Random(seed)
    blocks = rng.randint(1, 16)  # 60 questions with tools make 12 or 13 blocks, 48 without tools 10

    def some() -> bool:
        return len(times(copy)) >= blocks and not copy.predictions("base").exists()

    kill_stage(copy, "evaluate", "--item", "base", when=some, then_s=rng.uniform(0, 0.05))
    kept = times(copy)
    seen: dict[str, int] = {}
    more = lambda: len(times(copy)) > len(kept) and (seen.update(times(copy)) or True)  # noqa: E731
    kill_stage(copy, "evaluate", "--item", "base", when=more)
    assert {name: seen[name] for name in kept} == kept, "a committed block was made again"

    evaluate.run(chosen, copy, "base")
    for path in (Layout.predictions, Layout.prediction_trajectories, Layout.evaluation):
        assert path(copy, "base").read_bytes() == path(whole, "base").read_bytes()
    left = [path.suffix for path in (copy.root / ".swirl/journals").glob("evaluate-base*/*")]
    assert left == [".finished"] * 4  # rollouts and verdicts, with tools and without


def times(layout: Layout) -> dict[str, int]:
    """The time at which each block of both journals was committed."""
    journals = (layout.root / ".swirl/journals").glob("evaluate-base*/*/block-*.parquet")
    return {path.relative_to(layout.root).as_posix(): path.stat().st_mtime_ns for path in journals}


@pytest.mark.slow
def test_without_a_block_size_a_block_is_a_workers_share(
    params: Params, evaluated: Layout, project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the batches, and with them the bytes, are the same as those of `roll_out_all`, which has no journal."""
    made: dict[str, int] = {}
    commit = Journal.commit

    def counted(self: Journal, number: int, record_type: type, records: list[object]) -> None:
        made[f"{self.folder.parent.name}/{number}"] = len(records)
        commit(self, number, record_type, records)

    monkeypatch.setattr(Journal, "commit", counted)
    layout = clone(project, tmp_path / "root")
    import_module("swirl.stages.evaluate").run(params, layout, "base")
    workers = params.runtime.workers
    rollouts = [count for name, count in made.items() if "verdicts" not in name]
    assert rollouts == [60 // workers] * workers + [48 // workers] * workers
    assert [name for name in made if "verdicts" in name] == [
        "evaluate-base-verdicts/0",
        "evaluate-base-without-tools-verdicts/0",
    ]
    policy = load_policy(params, layout.model("base"), "base")
    todo = attempts(params, layout, questions_of(layout, "evaluation"), 1)
    seed = derive(params.seed, "evaluate", "True")
    expected = roll_out_all(params, policy, todo, params.evaluate.temperature, seed)
    assert load(Trajectory, layout.prediction_trajectories("base")) == expected


@pytest.mark.slow
@pytest.mark.parametrize("change", ["params", "prompt", "model", "judge"])
def test_the_blocks_of_other_rollouts_are_not_used(
    change: str, params: Params, project: Layout, tmp_path: Path
) -> None:
    evaluate = import_module("swirl.stages.evaluate")
    layout = clone(project, tmp_path / "root")
    before = evaluate._journals(params, layout, "base")
    before[True].commit(0, Trajectory, [])
    assert evaluate._journals(params, layout, "base")[True].holds(0, Trajectory)
    if change == "params":
        params = validate(laid_over(params.model_dump(), {"evaluate": {"temperature": 3.0}}), "tests")
    elif change == "judge":  # which makes no rollout
        params = validate(laid_over(params.model_dump(), {"evaluate": {"judge": SECOND}}), "tests")
    elif change == "prompt":
        (layout.root / params.prompts.policy / "search.txt").write_text("answer {question}", encoding="utf-8")
    else:
        path = layout.model("base") / "model.safetensors"
        path.write_bytes(path.read_bytes() + b"more")
    assert evaluate._journals(params, layout, "base")[True].holds(0, Trajectory) == (change == "judge")


@pytest.mark.slow
def test_swirl_evaluate_makes_the_trajectories_and_scores_of_this_stage(
    params: Params, project: Layout, tmp_path: Path
) -> None:
    """On the same file of rows, at a temperature: prompts, index, seeds, rollout and grading are the same."""
    layout = clone(project, tmp_path / "root")
    lines = []
    for i in range(8):
        pages = [[f"Place {i}", [f"Oslo was {i} once."]], [f"Ship {i}", [f"It sank in {i}."]]]
        row = {"_id": f"h{i}", "question": f"Where was {i}?", "answer": "7" if i % 2 else "8", "context": pages}
        lines.append(json.dumps({**row, "level": "hard", "supporting_facts": [[f"Place {i}", 0]]}))
    path = layout.root / "data/official/rows.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    file = {"source": "file", "files": {"evaluation": "rows.jsonl"}, "evaluation": "all"}
    tree = params.model_dump()
    tree["download"]["benchmarks"] = {"hotpotqa": file}
    chosen = validate(laid_over(tree, {"evaluate": {"samples": 2, "temperature": 1.0}}), "tests")
    for stage in ("download", "index"):
        import_module(f"swirl.stages.{stage}").run(chosen, layout)
    import_module("swirl.stages.evaluate").run(chosen, layout, "base")

    agent = project_agent(layout.model("base"), chosen, layout, {})
    rows = GivenRows("hotpotqa", path, None, chosen.seed, tmp_path / "indices")
    made, predicted = measure(agent, "base", rows, Drawing(2, 1.0, chosen.seed), None, lambda count: None)

    def said(trajectories: list[Trajectory]) -> dict[str, tuple[object, ...]]:
        return {
            t.id: (t.prompt_ids, t.seed, t.stop, *((s.token_ids, s.observations) for s in t.steps))
            for t in trajectories
        }

    stored = load(Trajectory, layout.prediction_trajectories("base"))
    assert len(set(said(stored).values())) > 8
    assert said(made) == said(stored)
    (scored,) = [one for one in load_json(layout.evaluation("base")) if one["with_tools"]]
    row = compare("base", predicted, made, None, 0)
    assert 0 < row.accuracy.value < 1
    assert [row.accuracy.value, row.accuracy.low, row.accuracy.high, row.em.value, row.f1.value] == pytest.approx(
        [scored[name] for name in ("accuracy", "ci_low", "ci_high", "em", "f1")]
    )
