"""Blocks of verdicts: what a worker of a cluster reserves for a judge, and a judge that cannot be read packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from swirl.config.params import validate
from swirl.config.presets import laid_over
from swirl.core.errors import ModelError
from swirl.core.layout import Layout
from swirl.core.types import Question
from swirl.judging.reward import RewardModel
from swirl.wiring.graders import load_reward_judges
from swirl.wiring.verdict_blocks import Verdicts
from tests.judging.test_reward import TRAJECTORIES, reward_model

ROOT = Path(__file__).parents[2]
SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
SERVED = {"source": "endpoint", "max_tokens": 8, "votes": 1, "temperature": 0.0, "server": SERVER}


@pytest.mark.parametrize(("changes", "cpus"), [({}, 8), ({"reward_model": SERVED}, 2)])
def test_a_judge_that_runs_here_keeps_all_its_threads_busy(changes: dict[str, Any], cpus: int, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    tree = laid_over(tree, {"runtime": {"workers": 4, "threads": 2}})
    recipe = Verdicts(validate({**tree, **changes}, "tests"), Layout(tmp_path), "judge", load_reward_judges)
    assert (recipe.threads, recipe.cpus) == (2, cpus)


def told_by_place() -> RewardModel:
    """A judge whose model takes a token's position from its place in the row, which packing changes."""

    def shifted(embedding: object, given: object, found: torch.Tensor) -> torch.Tensor:
        return found + torch.arange(found.shape[-2], dtype=found.dtype)[:, None] / 8

    judge = reward_model()
    judge.model.model.embed_tokens.register_forward_hook(shifted)
    return judge


def test_a_judge_that_cannot_be_read_packed_is_not_mended_by_a_setting_of_training(tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params = validate(tree, "tests")
    judging = Verdicts(params, Layout(tmp_path), "judge", lambda params, layout: (told_by_place(), None)).open(None)
    cases = [(one, Question(one.question_id, "b", "train", "what", ("Oslo",), 2, ("search",))) for one in TRAJECTORIES]
    with pytest.raises(ModelError, match=r"the judge reward cannot be read here: .*; take another one") as error:
        judging.make(cases, lambda number: None)
    assert "train.packed" not in str(error.value)
