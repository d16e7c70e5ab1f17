"""Stages on a device with too little memory: smaller flights, planned or after memory ran out, and the record.

The device's free bytes and its errors are scripted; models, rollouts and training are real.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.cli.run_stage import _run, _timed
from swirl.comb.slots import Slots
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core import flights
from swirl.core.checkpoints import Checkpoints
from swirl.core.distributed import ALONE
from swirl.core.flights import OutOfMemoryError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json, save_json
from swirl.core.types import LOGGED, Question, Trajectory
from swirl.endpoints.request_pace import Pace
from swirl.execution.blocks import Sharing
from swirl.judging.reward import RewardModel
from swirl.models import room
from swirl.models.room import conversations, flight_bytes, samples_bytes, shape_of_model
from swirl.rl import trainer
from swirl.stages import evaluate, synthesize, train
from swirl.wiring import servers
from swirl.wiring.development import Development
from swirl.wiring.graders import load_reward_judges
from swirl.wiring.logged_states import LoggedStates
from swirl.wiring.policies import load_local_policy
from swirl.wiring.prompts import read_prompts
from swirl.wiring.rewards import fitted, judge_of
from swirl.wiring.rollout_blocks import Rollouts
from swirl.wiring.verdict_blocks import Verdicts


@pytest.fixture(autouse=True)
def none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "_smaller", [])


@pytest.fixture
def fresh(copy: Layout) -> Layout:
    """A project whose trajectories are still to be made."""
    copy.trajectories.unlink()
    copy.metrics("synthesize").unlink()
    return copy


def run_out(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let memory run out whenever two conversations are in flight, and `times` times when there is one."""
    left, read, seen = [times], Slots.read, list[int]()

    def reading(self: Slots, new: Any) -> Any:
        seen.append(len(self._lengths))
        if len(self._lengths) > 1 or left[0] > 0:
            left[0] -= len(self._lengths) == 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return read(self, new)

    monkeypatch.setattr(Slots, "read", reading)
    return seen


def record(layout: Layout, stage: str, run: Callable[[], None]) -> dict[str, float]:
    """What the tracking keeps of the flights of a stage's run."""
    with _timed(layout.timing(stage)):
        run()
    return {name: value for name, value in load_json(layout.timing(stage)).items() if "." in name}


def same_but_for_rounding(one: list[Trajectory], other: list[Trajectory]) -> None:
    assert [t.id for t in one] == [t.id for t in other]
    for mine, theirs in zip(one, other, strict=True):
        assert [step.token_ids for step in mine.steps] == [step.token_ids for step in theirs.steps]
        for ours, its in zip(mine.steps, theirs.steps, strict=True):
            assert ours.logprobs == pytest.approx(its.logprobs, abs=1e-5)


def test_synthesis_with_room_for_half_flies_with_half(
    params: Params, fresh: Layout, project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = load_local_policy(params, fresh.model("base"), "base")
    shape, workers = shape_of_model(policy.model), params.runtime.workers
    assert shape and (params.rollout.in_flight, params.rollout.block_size, workers) == (2, 2, 2)
    one, two = (workers * flight_bytes(shape, size, policy.context, 4, 16384) for size in (1, 2))
    monkeypatch.setattr(room, "available", lambda device: (one + two) / 2 / 0.9)
    said = record(fresh, "synthesize", lambda: synthesize.run(params, fresh))
    assert said == {"rollout.in_flight.used": 1, "rollout.in_flight.asked": 2, "rollout.in_flight.out_of_memory": 0}
    assert "rollout.in_flight: 1 at once, not 2" in capsys.readouterr().out
    same_but_for_rounding(load(Trajectory, fresh.trajectories), load(Trajectory, project.trajectories))


def test_what_just_fits_has_the_bytes_that_it_always_had(
    params: Params, fresh: Layout, project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_local_policy(params, fresh.model("base"), "base")
    shape = shape_of_model(policy.model)
    assert shape
    need = params.runtime.workers * flight_bytes(shape, 2, policy.context, 4, 16384)
    monkeypatch.setattr(room, "available", lambda device: need / 0.899)
    assert record(fresh, "synthesize", lambda: synthesize.run(params, fresh)) == {}
    assert fresh.trajectories.read_bytes() == project.trajectories.read_bytes()
    assert fresh.metrics("synthesize").read_bytes() == project.metrics("synthesize").read_bytes()


def test_only_as_many_as_there_are_take_memory(
    params: Params, project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_local_policy(params, project.model("base"), "base")
    shape = shape_of_model(policy.model)
    assert shape
    three = flight_bytes(shape, 3, policy.context, 4, 16384)
    monkeypatch.setattr(room, "available", lambda device: three / 0.899)
    assert conversations(policy.model, 200, 3, policy.context, 1, 16384).size == 200
    assert conversations(policy.model, 200, 4, policy.context, 1, 16384).size == 3
    assert conversations(policy.model, 200, 3, policy.context, 1, 16384, ahead=three / 4).size == 1


def test_a_worker_beside_others_plans_for_the_one_block_that_it_makes(
    params: Params, project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_local_policy(params, project.model("base"), "base")
    shape = shape_of_model(policy.model)
    assert shape and params.runtime.workers == 2
    two = flight_bytes(shape, 2, policy.context, 4, 16384)
    monkeypatch.setattr(room, "available", lambda device: two / 0.899)
    monkeypatch.setattr(servers, "_sharing", None)
    recipe = Rollouts(params, project, read_prompts(params, project), "synthesize", "base", None, 1.0, 2)
    recipe.open(Sharing(2, lambda name, rate: Pace(rate))).begin(tmp_path / "worker.json")
    recipe.open(None).begin(tmp_path / "alone.json")
    assert not (tmp_path / "worker.json").exists()
    assert load_json(tmp_path / "alone.json") == {"size": 1, "halved": False}


@pytest.mark.parametrize("stage", ["synthesize", "evaluate"])
@pytest.mark.slow
def test_memory_that_runs_out_halves_the_flight_once(
    stage: str,
    params: Params,
    fresh: Layout,
    project: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = run_out(monkeypatch, times=0)
    if stage == "synthesize":
        said = record(fresh, stage, lambda: synthesize.run(params, fresh))
        same_but_for_rounding(load(Trajectory, fresh.trajectories), load(Trajectory, project.trajectories))
    else:
        said = record(fresh, stage, lambda: evaluate.run(params, fresh, "base"))
        assert len(load(Trajectory, fresh.prediction_trajectories("base"))) == 60
    assert said == {"rollout.in_flight.used": 1, "rollout.in_flight.asked": 2, "rollout.in_flight.out_of_memory": 1}
    assert max(seen) == 2
    assert capsys.readouterr().out.count("out of memory with 2 at once") >= 1


def test_memory_that_runs_out_again_ends_the_stage_and_keeps_its_blocks(
    params: Params, fresh: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out(monkeypatch, times=1)
    with pytest.raises(OutOfMemoryError, match="lower rollout.in_flight or runtime.context"):
        synthesize.run(params, fresh)
    [note] = fresh.trajectories_journal.glob("*/flight.json")
    assert load_json(note) == {"size": 1, "halved": True}


def weights(layout: Layout) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(layout.model("swirl") / "model.safetensors"))


@pytest.mark.slow
def test_training_whose_sampling_runs_out_of_memory_halves_that_once(
    params: Params, copy: Layout, trained: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, failed = trainer.sample_teeth, list[int]()

    def sampling(model: Any, combs: Any, *others: Any) -> Any:
        if not failed:
            failed.append(len(combs))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sample(model, combs, *others)

    monkeypatch.setattr(trainer, "sample_teeth", sampling)
    said = record(copy, "train-swirl", lambda: train.run(params, copy, "swirl"))
    asked = 4 * params.train.token_budget
    assert said == {
        "train.sampled_tokens.used": asked // 2, "train.sampled_tokens.asked": asked,
        "train.sampled_tokens.out_of_memory": 1,
    }  # fmt: skip
    ours, theirs = weights(copy), weights(trained)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


@pytest.mark.slow
def test_training_plans_its_samples_and_its_looks(
    params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_local_policy(params, copy.model("base"), "base")
    shape, workers, longest = shape_of_model(policy.model), params.runtime.workers, params.rollout.max_action_tokens
    assert shape
    trained = sum(parameter.numel() for parameter in policy.model.parameters())
    # gradients and Adam's moments are still to come, and beside the looks the reference
    asked = 4 * params.train.token_budget
    need = workers * samples_bytes(shape, asked // 4, longest, 4) / 0.899 + trained * (4 + 8)
    monkeypatch.setattr(room, "available", lambda device: need)
    said = record(copy, "train-swirl", lambda: train.run(params, copy, "swirl"))
    assert said["train.sampled_tokens.used"] == asked // 4
    assert weights(copy)
    look = workers * flight_bytes(shape, 1, policy.context, 4, 16384) / 0.899 + trained * (4 + 8 + 4)
    monkeypatch.setattr(flights, "_smaller", [])
    monkeypatch.setattr(room, "available", lambda device: look)
    assert record(copy, "train-swirl", lambda: train.run(params, copy, "swirl"))["rollout.in_flight.used"] == 1


def test_looks_go_on_with_the_flights_of_an_interrupted_training(
    params: Params, project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One conversation where params say two; half of the tokens in states of logs."""
    policy = load_local_policy(params, project.model("base"), "base")
    shape, workers, longest = shape_of_model(policy.model), params.runtime.workers, params.rollout.max_action_tokens
    assert shape
    logged = {"q": dataclasses.replace(load(Question, project.questions)[0], id="q", task=LOGGED)}
    kept = Checkpoints(tmp_path / "kept", "print")

    def opened(free: float) -> tuple[Development, LoggedStates]:
        monkeypatch.setattr(room, "available", lambda device: free / 0.899)
        development = Development(params, project, policy, ALONE)
        development._states = LoggedStates(params, project, policy, logged)
        development.resume(kept)
        return development, development._states

    look, half = (
        workers * flight_bytes(shape, 1, policy.context, 4, 16384),
        workers * samples_bytes(shape, 8192, longest, 4),
    )
    assert look < half
    for free in (look, 1e12):
        development, _ = opened(free)
        assert development._flight.size == 1
    (note,) = tmp_path.glob("kept/*/flight-looks-0.json")
    note.unlink()
    next(tmp_path.glob("kept/*/flight-logged-0.json")).unlink()
    for free in (half, 1e12):
        development, states = opened(free)
        assert (development._flight.size, states._flight and states._flight.size) == (2, 8192)


def test_looks_judge_as_many_tokens_at_once_as_updates_do(params: Params, project: Layout) -> None:
    tree = laid_over(params.model_dump(), {"train": {"token_budget": 512}})
    policy = load_local_policy(params, project.model("base"), "base")
    judge = judge_of(Development(validate(tree, "tests"), project, policy, ALONE).judge)
    assert isinstance(judge, RewardModel)
    assert (judge.token_budget, judge.flight.asked, judge.lower) == (512, 512, "train.token_budget")
    assert fitted(judge, judge.packed, 512) is judge


def test_blocks_of_verdicts_go_on_with_the_flight_of_an_interrupted_stage(
    params: Params, project: Layout, tmp_path: Path
) -> None:
    note = tmp_path / "flight.json"
    save_json({"size": 8192, "halved": True}, note)
    judging = Verdicts(params, project, "judge", load_reward_judges).open(None)
    judging.begin(note)
    judge = judging._judge
    assert isinstance(judge, RewardModel)
    assert (judge.flight.size, judge.flight.halved) == (8192, True)


@pytest.mark.slow
def test_a_training_that_is_resumed_looks_as_it_did(
    params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    policy = load_local_policy(params, copy.model("base"), "base")
    shape, workers = shape_of_model(policy.model), params.runtime.workers
    assert shape
    adam = sum(parameter.numel() for parameter in policy.model.parameters()) * (4 + 8 + 4)
    with monkeypatch.context() as patch:
        patch.setattr(room, "available", lambda device: workers * flight_bytes(shape, 1, 512, 4, 16384) / 0.899 + adam)
        patch.setattr(train.Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(params, copy, "swirl")
    monkeypatch.setattr(flights, "_smaller", [])
    assert record(copy, "train-swirl", lambda: train.run(params, copy, "swirl"))["rollout.in_flight.used"] == 1


def test_memory_that_runs_out_elsewhere_names_what_to_lower() -> None:
    def stage(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")

    with pytest.raises(OutOfMemoryError) as error:
        _run("train", stage, ())
    assert str(error.value) == (
        "stage train: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); lower train.token_budget, or "
        "set train.gradient_checkpointing: true"
    )
