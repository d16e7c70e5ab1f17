"""train: golden labels influence nothing, a kill changes no byte, and what is written can be loaded."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.distributed import ALONE
from swirl.core.errors import DataError
from swirl.core.journal import fingerprint
from swirl.core.layout import Layout
from swirl.core.records import load, load_json, save
from swirl.core.types import Action, ActionKind, Derivation, Draw, Question, Step, Stop, SubTrajectory, Trajectory
from swirl.models.pointers import follow, write_pointer
from swirl.rl.drawn_actions import Group
from swirl.rl.objective import advantages
from swirl.stages import evaluate, train
from swirl.tools.actions import parse, render
from swirl.wiring.development import Development
from swirl.wiring.policies import load_local_policy, load_policy
from swirl.wiring.tools import Toolbox
from tests.stages.conftest import ROOT, clone


def weights(layout: Layout, name: str = "swirl") -> bytes:
    return (layout.model(name) / "model.safetensors").read_bytes()


def test_it_writes_a_model_its_curves_and_metrics(trained: Layout) -> None:
    from transformers import AutoModelForCausalLM

    tuned = AutoModelForCausalLM.from_pretrained(trained.model("swirl"))
    base = AutoModelForCausalLM.from_pretrained(trained.model("base"))
    pairs = zip(tuned.parameters(), base.parameters(), strict=True)
    assert 1e-4 < max(float((a - b).abs().max().detach()) for a, b in pairs) < 1.0
    series = load_json(trained.series("train-swirl"))
    assert [row["step"] for row in series] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in series if row.get("development.reward") is not None] == [0, 2, 4, 6]
    named = {"reward", "kl", "entropy", "loss", "gradient_norm", "golden.sampled_label"}
    assert all(named <= {key for key, value in row.items() if value is not None} for row in series[1:])
    metrics = load_json(trained.metrics("train-swirl"))
    assert metrics["reward"] == series[-1]["reward"]
    assert metrics["start.development.reward"] == series[0]["development.reward"]
    kept = len(load(SubTrajectory, trained.steps))
    assert metrics["states_kept"] == kept
    assert 6 * 8 <= metrics["passes"] * kept <= 6 * 11  # an update takes 8 states, and its last trajectory whole
    assert 8 <= metrics["states_visited"] <= min(kept, round(metrics["passes"] * kept))
    assert [path.suffix for path in (trained.root / ".swirl/checkpoints/train-swirl").iterdir()] == [".finished"]


def test_the_oracle_s_label_of_sampled_actions(params: Params, project: Layout) -> None:
    policy = load_local_policy(params, project.model("base"), "base")
    development = Development(params, project, policy, ALONE)
    known = next(d for d in load(Derivation, project.derivations) if d.kind == "calculate" and len(d.calls) > 1)
    first, second = (policy.chat.reply(render(ActionKind.CALCULATE, call)) for call in known.calls[:2])
    group = [
        SubTrajectory("t", known.question_id, "mini-gsm8k", step, (1, 2, 3), ids, 0.5)
        for step, ids in enumerate((first, second))
    ]
    drawn = [(first, first, second, first), (second, first, second, second)]  # wrong at first, second is right later
    groups = [
        Group(state, ids, (0.5,) * 4, (False,) * 4, (0.0,) * 4, (0.0,) * 4)
        for state, ids in zip(group, drawn, strict=True)
    ]
    assert development.sampled([groups]) == {"golden.sampled_label": 6 / 8}
    assert development.sampled([groups[1:]]) == {}  # what came before is unknown
    other = [dataclasses.replace(state, question_id="of a benchmark without derivations") for state in group]
    unknown = [dataclasses.replace(one, state=state) for one, state in zip(groups, other, strict=True)]
    assert development.sampled([unknown]) == {}


def test_a_step_of_several_calls_is_good_when_each_of_them_is(
    params: Params, project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_local_policy(params, project.model("base"), "base")
    development = Development(params, project, policy, ALONE)
    known = next(d for d in load(Derivation, project.derivations) if d.kind == "calculate" and len(d.calls) > 2)
    both, last, mixed = (1,), (2,), (3,)
    calls = {both: known.calls[:2], last: known.calls[2:3], mixed: (known.calls[2], known.calls[0])}

    class Several:
        def read(self, ids: tuple[int, ...]) -> Action:
            return Action(known.kind, str(ids), calls[ids][0])

        def calls(self, action: Action) -> tuple[tuple[str, str], ...]:
            return tuple(
                (known.kind, call) for ids, called in calls.items() for call in called if str(ids) == action.text
            )

    monkeypatch.setattr("swirl.wiring.development.reader_for", lambda *_: Several())
    states = [SubTrajectory("t", known.question_id, "b", step, (1,), ids, 0.5) for step, ids in enumerate((both, last))]
    drawn = [(both, mixed), (last, mixed)]
    groups = [
        Group(state, ids, (0.5,) * 2, (False,) * 2, (0.0,) * 2, (0.0,) * 2)
        for state, ids in zip(states, drawn, strict=True)
    ]
    assert development._labels(groups) == [True, False, True, False]


def test_the_judge_s_agreement_is_with_the_oracle_of_the_same_step(params: Params, project: Layout) -> None:
    policy = load_local_policy(params, project.model("base"), "base")
    development = Development(params, project, policy, ALONE)
    known = next(d for d in load(Derivation, project.derivations) if d.question_id in development._questions)
    call = Action(known.kind, "", known.calls[0])
    steps = [Step(k, call, (), (1,), (0.0,), (2,)) for k in range(2)]  # GOOD, but BAD when repeated
    one = Trajectory("a/0", known.question_id, "b", 0, "m", 0, (1,), tuple(steps), Stop.STEP_LIMIT, "")
    empty = dataclasses.replace(one, steps=())
    golden = development._golden([empty, one, one], [[], [0.9, 0.9], [math.nan, 0.1]])
    assert golden["golden.judge_agreement"] == 2 / 3
    assert golden["golden.process_label"] == pytest.approx(1 / 3)
    development.judge = dataclasses.replace(development.judge, threshold=0.05)  # type: ignore[type-var]
    assert development._golden([one], [[math.nan, 0.1]])["golden.judge_agreement"] == 0.0


def shuffle_golden_labels(layout: Layout) -> None:
    """Sets every development answer to what the tiny base always says, and mixes up the derivations."""
    questions = [
        dataclasses.replace(q, answers=("7",)) if q.split == "development" else q
        for q in load(Question, layout.questions)
    ]
    save(questions, Question, layout.questions)
    derivations = load(Derivation, layout.derivations)
    others = random.Random(0).sample(derivations, len(derivations))
    swapped = [
        dataclasses.replace(d, calls=("3 + 4",) * len(o.calls), results=o.results)
        for d, o in zip(derivations, others, strict=True)
    ]
    save(swapped, Derivation, layout.derivations)


@pytest.mark.slow
@pytest.mark.parametrize("item", ["swirl", "sft"])
def test_golden_labels_change_what_is_logged_and_no_weight(
    item: str, params: Params, trained: Layout, copy: Layout, tmp_path: Path
) -> None:
    reference = trained
    if item == "sft":
        reference = clone(copy, tmp_path / "reference")
        train.run(params, reference, item)
    shuffle_golden_labels(copy)
    train.run(params, copy, item)
    assert weights(copy, item) == weights(reference, item)
    ours, theirs = (load_json(layout.series(f"train-{item}")) for layout in (copy, reference))
    assert without_golden(ours) == without_golden(theirs)
    name = "golden.mini-gsm8k.accuracy"
    assert [row.get(name) for row in ours] != [row.get(name) for row in theirs]


def without_golden(series: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("golden.")} for row in series]


@pytest.mark.slow
def test_golden_labels_cannot_move_the_guard(params: Params, copy: Layout, project: Layout, tmp_path: Path) -> None:
    """With limits so tight that the guard stops the run, it stops at the same update whatever the labels."""
    tight = validate(laid_over(params.model_dump(), {"train": {"swirl": {"guard": {"max_kl": 1e-9}}}}), "tests")
    other = clone(project, tmp_path / "other")
    shuffle_golden_labels(other)
    for layout in (copy, other):
        train.run(tight, layout, "swirl")
        series = load_json(layout.series("train-swirl"))
        assert [row["step"] for row in series] == [0, 1, 2]
        assert series[-1]["stopped"] == 1.0
    assert weights(copy) == weights(other)


@pytest.fixture
def saved_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every update, not only after four minutes without one."""
    monkeypatch.setattr("swirl.rl.resuming.BETWEEN_S", 0.0)
    monkeypatch.setattr("swirl.rl.resuming._SHARE", math.inf)


@pytest.mark.slow
@pytest.mark.usefixtures("saved_always")
def test_a_run_that_the_guard_stops_keeps_the_last_good_weights(params: Params, copy: Layout) -> None:
    tight = validate(laid_over(params.model_dump(), {"train": {"swirl": {"guard": {"max_kl": 1e-9}}}}), "tests")
    train.run(tight, copy, "swirl")
    from safetensors.torch import load_file

    kept, base = (load_file(copy.model(name) / "model.safetensors") for name in ("swirl", "base"))
    assert all(torch.equal(kept[name], base[name]) for name in base)
    metrics = load_json(copy.metrics("train-swirl"))  # of the weights that are kept, which saw nothing
    assert (metrics["kept_step"], metrics["states_visited"], metrics["passes"]) == (0, 0, 0)


def has_come_halfway(layout: Layout) -> bool:
    checkpoints = (layout.root / ".swirl/checkpoints/train-swirl").glob("*/step-000002")
    return any(checkpoints) and not list(layout.model("swirl").glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "torn", [pytest.param("", id="whole", marks=pytest.mark.rare), pytest.param("optimizer.safetensors", id="torn")]
)
def test_killed_and_resumed_it_gives_the_same_bytes(
    torn: str,
    params: Params,
    trained: Layout,
    copy: Layout,
    kill_stage: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kill_stage(copy, "train", "--item", "swirl", when=lambda: has_come_halfway(copy))
    assert not (copy.model("swirl") / "model.safetensors").exists()
    if torn:  # the newest checkpoint, as a machine that lost its power may leave it
        newest = max((copy.root / ".swirl/checkpoints/train-swirl").glob("*/step-*"))
        (newest / torn).write_bytes((newest / torn).read_bytes()[:1000])
    import_module("swirl.stages.train").run(params, copy, "swirl")
    said = capsys.readouterr().out
    assert re.search("resuming after [024]" if torn else "resuming after [246]", said)
    assert ("torn-step-00000" in said) == bool(torn)
    assert weights(copy) == weights(trained)
    assert copy.series("train-swirl").read_bytes() == trained.series("train-swirl").read_bytes()
    assert copy.metrics("train-swirl").read_bytes() == trained.metrics("train-swirl").read_bytes()
    assert copy.draws("swirl").read_bytes() == trained.draws("swirl").read_bytes()


def run_until(params: Params, layout: Layout, updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step-wise RL that is interrupted after so many updates."""
    update = train.Trainer.update

    def interrupted(self: Any, number: int, batch: Any) -> Any:
        if number == updates:
            raise KeyboardInterrupt
        return update(self, number, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, layout, "swirl")


@pytest.mark.slow
@pytest.mark.usefixtures("saved_always")
def test_what_was_saved_between_two_looks_is_gone_on_with(
    params: Params,
    trained: Layout,
    copy: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_until(params, copy, 3, monkeypatch)
    places = {path.parent.parent.name for path in (copy.root / ".swirl/checkpoints").glob("train-swirl*/*/step-000003")}
    assert places == {"train-swirl-between"}, "looks are after 0, 2, 4 and 6"
    train.run(params, copy, "swirl")
    assert "resuming after 3\n" in capsys.readouterr().out
    assert weights(copy) == weights(trained)
    for path in (trained.series("train-swirl"), trained.metrics("train-swirl"), trained.draws("swirl")):
        assert (copy.root / path.relative_to(trained.root)).read_bytes() == path.read_bytes()
    left = (copy.root / ".swirl/checkpoints").glob("train-swirl*/*")
    assert [path.suffix for path in left] == [".finished"] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("saved_always")
@pytest.mark.parametrize(("item", "look", "step"), [("swirl", 3, 4), ("swirl", 4, 6), ("sft", 2, 10)])
def test_what_came_before_a_look_that_is_interrupted_is_kept(
    item: str,
    look: int,
    step: int,
    params: Params,
    copy: Layout,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = validate(laid_over(params.model_dump(), {"train": {"sft": {"epochs": 2}}}), "tests")
    whole, looks, looked = clone(copy, tmp_path / "whole"), 0, Development.look
    train.run(params, whole, item)

    def interrupted(self: Development) -> dict[str, float]:
        nonlocal looks
        looks += 1
        if looks == look:
            raise KeyboardInterrupt
        return looked(self)

    with monkeypatch.context() as patch:
        patch.setattr(Development, "look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, copy, item)
    train.run(params, copy, item)
    assert f"resuming after {step}\n" in capsys.readouterr().out
    assert weights(copy, item) == weights(whole, item)
    for path in (whole.series(f"train-{item}"), whole.metrics(f"train-{item}"), whole.draws(item)):
        assert (copy.root / path.relative_to(whole.root)).read_bytes() == path.read_bytes()


def _without_development(layout: Layout) -> None:
    save(
        [question for question in load(Question, layout.questions) if question.split != "development"],
        Question,
        layout.questions,
    )


def test_without_development_questions_the_guard_still_goes_by_kl(
    params: Params, copy: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_development(copy)
    tight = {"train": {"swirl": {"guard": {"max_kl": 1e-9}}}}
    train.run(validate(laid_over(params.model_dump(), tight), "tests"), copy, "swirl")
    assert "guard: KL to the reference is " in capsys.readouterr().out
    assert load_json(copy.series("train-swirl"))[-1]["step"] == 2


@pytest.mark.parametrize("development", [True, False])
def test_rl_that_diverges_ends_with_the_last_good_weights(
    development: bool, params: Params, copy: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    if not development:
        _without_development(copy)
    fast = {"train": {"swirl": {"lr": 1e30, "warmup": 0, "check_every": 3}}}
    train.run(validate(laid_over(params.model_dump(), fast), "tests"), copy, "swirl")
    said = capsys.readouterr().out
    assert re.search(r"guard: the loss is \S+ and the gradient's norm \S+; lower train.swirl.lr; keeping the ", said)
    assert weights(copy) == weights(copy, "base")


@pytest.mark.usefixtures("saved_always")
def test_rl_that_is_killed_after_it_diverged_goes_back_all_the_same(
    params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its newest checkpoint holds what cannot be kept, after an update that no look follows."""
    fast = {"train": {"swirl": {"lr": 1e30, "warmup": 0, "check_every": 100}}}
    wild = validate(laid_over(params.model_dump(), fast), "tests")

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("swirl.rl.resuming.Resuming.back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(wild, copy, "swirl")
    train.run(wild, copy, "swirl")
    said = capsys.readouterr().out
    resumed = re.search(r"resuming after (\d+)", said)
    assert resumed
    assert [row["step"] for row in load_json(copy.series("train-swirl"))] == list(range(int(resumed[1]) + 1))
    assert "lower train.swirl.lr; keeping the checkpoint after update 0" in said
    assert weights(copy) == weights(copy, "base")


def test_sft_that_diverges_is_stopped(params: Params, copy: Layout) -> None:
    fast = validate(laid_over(params.model_dump(), {"train": {"sft": {"lr": 1e30}}}), "tests")
    with pytest.raises(DataError, match=r"^step 2 of SFT: the loss is .*nan.* lower train.sft.lr \(1e\+30\)$"):
        train.run(fast, copy, "sft")
    assert not (copy.model("sft") / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("saved_always")
def test_without_development_questions_it_goes_on_after_its_last_epoch(
    params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to look at, so that a look leaves no trace in the series."""
    monkeypatch.setattr(Development, "look", lambda _: {})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "finished", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, copy, "sft")
    train.run(params, copy, "sft")
    assert "resuming after 5\n" in capsys.readouterr().out
    assert len(load_json(copy.series("train-sft"))) == 5


def test_a_sample_of_what_was_drawn_is_kept(params: Params, trained: Layout) -> None:
    settings, draws = params.train.swirl, load(Draw, trained.draws("swirl"))
    states = {(step.trajectory_id, step.step): step for step in load(SubTrajectory, trained.steps)}
    chat = load_local_policy(params, trained.model("base"), "base").chat
    groups: dict[tuple[int, str, int], list[Draw]] = {}
    for draw in draws:
        groups.setdefault((draw.update, draw.trajectory_id, draw.step), []).append(draw)
        assert states[draw.trajectory_id, draw.step].question_id == draw.question_id
        assert (draw.text, draw.cut and draw.reward) == (chat.text(draw.action_ids), 0.0 if draw.cut else False)
        assert draw.logprob < 0
    updates = [update for update, *_ in groups]
    assert sorted(updates) == [update for update in range(1, settings.updates + 1) for _ in range(settings.kept_states)]
    for drawn in groups.values():
        assert [draw.sample for draw in drawn] == list(range(settings.samples))
        rewards = torch.tensor([[draw.reward for draw in drawn]], dtype=torch.float64)
        assert advantages(rewards, "rloo")[0].tolist() == pytest.approx([draw.advantage for draw in drawn])
    assert len({draw.advantage for draw in draws}) > 1


def test_actions_are_compared_with_those_of_their_kind(params: Params, copy: Layout) -> None:
    changed = {"compared": "kind", "updates": 2, "kept_states": 40, "temperature": 1.5}
    train.run(validate(laid_over(params.model_dump(), {"train": {"swirl": changed}}), "tests"), copy, "swirl")
    draws = load(Draw, copy.draws("swirl"))
    box, questions = Toolbox(params, copy), {question.id: question for question in load(Question, copy.questions)}
    mixed = 0
    for _, drawn in groupby(draws, key=lambda draw: (draw.update, draw.trajectory_id, draw.step)):
        of_state = list(drawn)
        tags = box.tags(questions[of_state[0].question_id])
        kinds = [ActionKind.MALFORMED if draw.cut else parse(draw.text, tags).kind for draw in of_state]
        mixed += len(set(kinds)) > 1
        for draw, kind in zip(of_state, kinds, strict=True):
            alike = [other for other, its in zip(of_state, kinds, strict=True) if its == kind]
            rivals = of_state if kind == ActionKind.MALFORMED else alike
            rewards = {one.sample: one.reward for one in rivals if one.reward is not None}
            mine = rewards.pop(draw.sample)  # all have one
            wanted = mine - sum(rewards.values()) / len(rewards) if rewards else 0.0
            assert draw.advantage == pytest.approx(wanted, abs=1e-9), kinds
    assert mixed > 3


@pytest.mark.slow
def test_sft_that_is_interrupted_within_an_epoch_gives_the_same_bytes(
    params: Params, copy: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = validate(laid_over(params.model_dump(), {"train": {"sft": {"epochs": 2}}}), "tests")
    whole = clone(copy, tmp_path / "whole")
    train.run(params, whole, "sft")
    batches = len(load_json(whole.series("train-sft")))
    assert batches == 10
    metrics, kept = load_json(whole.metrics("train-sft")), len(load(SubTrajectory, whole.steps))
    assert (metrics["states_kept"], metrics["states_visited"], metrics["passes"]) == (kept, kept, 2)
    step, taken = train._supervise, 0

    def interrupted(*arguments: Any) -> float:
        nonlocal taken
        if taken == batches // 2 + 2:  # in the second epoch
            raise KeyboardInterrupt
        taken += 1
        return step(*arguments)

    monkeypatch.setattr(train, "EVERY", 1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_supervise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, copy, "sft")
    train.run(params, copy, "sft")
    assert f"resuming after {batches // 2 + 2}\n" in capsys.readouterr().out
    assert weights(copy, "sft") == weights(whole, "sft")
    for path in (whole.series("train-sft"), whole.metrics("train-sft")):
        assert (copy.root / path.relative_to(whole.root)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_run_given_in_passes_and_resumed_has_the_length_of_its_data(
    params: Params, copy: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    length = {"updates": None, "passes": 0.5, "samples": 2, "check_every": 1, "states": 20}
    params = validate(laid_over(params.model_dump(), {"train": {"swirl": length}}), "tests")
    whole = clone(copy, tmp_path / "whole")
    train.run(params, whole, "swirl")
    metrics, kept = load_json(whole.metrics("train-swirl")), len(load(SubTrajectory, whole.steps))
    updates = len(load_json(whole.series("train-swirl"))) - 1
    assert updates >= 2
    assert kept / 2 <= metrics["states_visited"] == round(metrics["passes"] * kept) < kept / 2 + 23
    run_until(params, copy, 1, monkeypatch)
    train.run(params, copy, "swirl")
    assert "resuming after 1\n" in capsys.readouterr().out
    assert weights(copy) == weights(whole)
    for path in (whole.series("train-swirl"), whole.metrics("train-swirl")):
        assert (copy.root / path.relative_to(whole.root)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_packed_and_plain_training_agree(params: Params, trained: Layout, copy: Layout) -> None:
    """Rounding could change a sampled token; at these sizes it does not, so six updates end at the same weights."""
    from safetensors.torch import load_file

    plain = validate(laid_over(params.model_dump(), {"train": {"packed": False}}), "tests")
    train.run(plain, copy, "swirl")
    ours, theirs = (load_file(layout.model("swirl") / "model.safetensors") for layout in (copy, trained))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=2e-4)


def test_nothing_to_train_on_is_said(params: Params, copy: Layout) -> None:
    save([], SubTrajectory, copy.steps)
    with pytest.raises(DataError, match="steps.parquet holds no steps: the filter kept nothing"):
        train.run(params, copy, "swirl")


@pytest.mark.slow
def test_fewer_states_than_an_update_asks_for_are_said_once(
    params: Params, copy: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    many = {"train": {"swirl": {"updates": 2, "check_every": 2, "states": 1000, "samples": 2}}}
    kept = len(load(SubTrajectory, copy.steps))
    train.run(validate(laid_over(params.model_dump(), many), "tests"), copy, "swirl")
    warning = (
        f"warning: train.swirl.states is 1000, but the filter kept {kept} states, so each update visits all {kept}"
    )
    assert capsys.readouterr().err.count(warning) == 1


LORA = {"runtime": {"workers": 1}, "train": {"lora": {"rank": 4, "alpha": 8, "targets": ["all-linear"]}}}
IDLE = {"train": {"swirl": {"states": 1, "imitation": 0.1}}}
"""An update has one trajectory, so that one of two processes has none."""


@pytest.mark.slow
@pytest.mark.parametrize(("item", "pointed"), [("swirl", True), ("sft", False)])
def test_an_adapter_is_trained_saved_and_evaluated(item: str, pointed: bool, params: Params, copy: Layout) -> None:
    """The base, in the project or elsewhere behind a pointer, stays as it is; rollouts act with the adapter on it."""
    tuned = validate(laid_over(params.model_dump(), LORA), "tests")
    place = copy.model("base")
    if pointed:
        place = place.rename(copy.root / "elsewhere")
        write_pointer(copy.model("base"), "elsewhere", root=copy.root)
    before = fingerprint("", [], [copy.model("base"), place])
    train.run(tuned, copy, item)
    assert fingerprint("", [], [copy.model("base"), place]) == before
    assert follow(copy.model(item)) == (place, False)
    files = {path.name for path in copy.model(item).iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert files - tokenizer == {"model.json", "adapter_config.json", "adapter_model.safetensors"}
    named = load_json(copy.model(item) / "adapter_config.json")["base_model_name_or_path"]
    assert named == ("./elsewhere" if pointed else "./models/base")
    base, policy = (load_policy(tuned, copy.model(name), name) for name in ("base", item))
    ids = torch.tensor([policy.chat.prompt("What is 3 + 4?")])
    with torch.no_grad():
        moved = float((policy.model(input_ids=ids).logits - base.model(input_ids=ids).logits).abs().max())
    assert 1e-4 < moved < 10
    evaluate.run(tuned, copy, item)
    assert load_json(copy.evaluation(item))


@pytest.mark.rare
def test_a_killed_adapter_resumes_to_the_same_bytes(
    params: Params, copy: Layout, tmp_path: Path, kill_stage: Callable[..., None]
) -> None:
    tuned = validate(laid_over(params.model_dump(), LORA), "tests")
    whole = clone(copy, tmp_path / "whole")
    train.run(tuned, whole, "swirl")
    (copy.root / "params.yaml").write_text(yaml.safe_dump(tuned.model_dump()), encoding="utf-8")
    kill_stage(copy, "train", "--item", "swirl", when=lambda: has_come_halfway(copy))
    train.run(tuned, copy, "swirl")
    for name in ("adapter_model.safetensors", "adapter_config.json", "model.json"):
        assert (copy.model("swirl") / name).read_bytes() == (whole.model("swirl") / name).read_bytes()


@pytest.mark.slow
def test_recomputing_activations_gives_the_same_bytes(params: Params, trained: Layout, copy: Layout) -> None:
    train.run(
        validate(laid_over(params.model_dump(), {"train": {"gradient_checkpointing": True}}), "tests"), copy, "swirl"
    )
    assert weights(copy) == weights(trained)


@pytest.mark.slow
def test_in_bfloat16_it_trains_and_writes_bfloat16(params: Params, copy: Layout) -> None:
    from safetensors.torch import load_file

    narrow = validate(laid_over(params.model_dump(), {"runtime": {"dtype": "bfloat16"}}), "tests")
    train.run(narrow, copy, "swirl")
    ours, base = (load_file(copy.model(name) / "model.safetensors") for name in ("swirl", "base"))
    assert {value.dtype for value in ours.values()} == {torch.bfloat16}
    moved = max(float((value.float() - base[name]).abs().max()) for name, value in ours.items())
    assert 1e-3 < moved < 1.0


def together(params: Params, layout: Layout, item: str, **changes: Any) -> tuple[Params, str]:
    """Runs the stage in two processes by params.yaml alone; returns those params for one process, and the output.

    Of `changes`, the other settings of `runtime` that are for two processes alone are under `shared`.
    """
    shared = changes.pop("shared", {})
    alone = validate(laid_over(laid_over(params.model_dump(), {"runtime": {"workers": 1}}), changes), "tests")
    tree = laid_over(alone.model_dump(), {"runtime": {"processes": 2, **shared}})
    (layout.root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "swirl", "stage", "train", "--item", item],
        cwd=layout.root,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return alone, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("item", "changes", "sharding"),
    [
        pytest.param("swirl", {}, "full", id="swirl-full"),
        pytest.param("swirl", LORA, "none", id="adapter-none"),
        pytest.param("sft", {}, "none", id="sft-none", marks=pytest.mark.rare),
        pytest.param("swirl", IDLE, "full", id="idle-full", marks=pytest.mark.rare),
        pytest.param("swirl", {}, "none", id="swirl-none", marks=pytest.mark.rare),
        pytest.param("sft", {}, "full", id="sft-full", marks=pytest.mark.rare),
        pytest.param("swirl", LORA, "full", id="adapter-full", marks=pytest.mark.rare),
        pytest.param("swirl", IDLE, "none", id="idle-none", marks=pytest.mark.rare),
    ],
)
def test_two_processes_end_at_the_weights_of_one(
    sharding: str, item: str, changes: dict[str, Any], params: Params, copy: Layout, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    one = clone(copy, tmp_path / "one")
    alone, _ = together(params, copy, item, **changes, shared={"sharding": sharding})
    train.run(alone, one, item)
    name = "adapter_model.safetensors" if changes == LORA else "model.safetensors"
    ours, theirs = (load_file(layout.model(item) / name) for layout in (copy, one))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=1e-5)
    rows, wanted = (load_json(layout.series(f"train-{item}")) for layout in (copy, one))
    assert [row.keys() for row in rows] == [row.keys() for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert {k: v for k, v in row.items() if v is not None} == pytest.approx(
            {k: v for k, v in other.items() if v is not None}, rel=1e-3, abs=1e-5
        )
    assert [path.suffix for path in (copy.root / f".swirl/checkpoints/train-{item}").iterdir()] == [".finished"]


@pytest.mark.rare
def test_a_killed_process_is_named_and_another_number_goes_on(
    params: Params, copy: Layout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    one = clone(copy, tmp_path / "one")
    alone = validate(laid_over(params.model_dump(), {"runtime": {"workers": 1}}), "tests")
    tree = laid_over(alone.model_dump(), {"runtime": {"processes": 2, "sharding": "full"}})
    (copy.root / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    said = tmp_path / "said.log"
    with said.open("w", encoding="utf-8") as log:
        running = psutil.Popen(
            [sys.executable, "-m", "swirl", "stage", "train", "--item", "swirl"],
            cwd=copy.root,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""},
            stdout=log,
            stderr=log,
        )
        while not has_come_halfway(copy):
            assert running.poll() is None, said.read_text()
            time.sleep(0.01)
        second = next(child for child in running.children(recursive=True) if child.environ().get("RANK") == "1")
        second.kill()
        assert running.wait(timeout=120) == 1
    last = said.read_text().splitlines()[-1]
    assert last.startswith("swirl: the process of rank 1, of 2 that run together, was killed by SIGKILL, so the others")
    train.run(alone, copy, "swirl")
    assert re.search("resuming after [24]", capfd.readouterr().out)
    train.run(alone, one, "swirl")
    ours, theirs = (load_file(layout.model("swirl") / "model.safetensors") for layout in (copy, one))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0.0, atol=1e-5)


@pytest.mark.rare
def test_the_guard_stops_two_processes_together(params: Params, copy: Layout) -> None:
    _, said = together(params, copy, "swirl", train={"swirl": {"guard": {"max_kl": 1e-9}}})
    assert said.count("guard: KL to the reference") == 1
    series = load_json(copy.series("train-swirl"))
    assert [row["step"] for row in series] == [0, 1, 2] and series[-1]["stopped"] == 1.0
    assert weights(copy) == weights(copy, "base")
