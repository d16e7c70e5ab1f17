"""`swirl plan`: numbers that can be worked out by hand, and every preset planned without a model or a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl import planning, presets
from swirl.params import Params, validate
from swirl.presets import laid_over

ROOT = Path(__file__).parents[1]


def params(name: str = "mini", **changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


def planned(chosen: Params) -> dict[str, planning.Planned]:
    return {one.stage: one for one in planning.plan(chosen, ROOT)}


def test_the_default_by_hand() -> None:
    stages = planned(params())
    # 400 search questions of 5 steps and 400 problems of 10, two trajectories each
    assert stages["synthesize"].calls == 400 * 2 * 5 + 400 * 2 * 10 == 12_000
    # a prompt of 150 tokens; each step an action of 32 and a result of 1000 characters
    assert stages["synthesize"].tokens == 800 * (150 + 5 * (32 + 250)) + 800 * (150 + 10 * (32 + 250))
    assert stages["judge"].verdicts == 12_000
    # 24 states, and what a last trajectory of ten brings over that; seven looks at 100 + 100 development questions
    assert stages["train@swirl"].calls == 60 * 33 * 8
    assert stages["train@swirl"].verdicts == 60 * 33 * 8 + 7 * (100 * 5 + 100 * 10)
    # with tools, and the four search benchmarks without
    assert stages["evaluate@base"].calls == 400 * 10 + 4 * 400 * 5 + 4 * 400
    assert list(stages) == [
        "download", "check_questions", "index", "base_model", "reward_model", "synthesize", "check_trajectories",
        "judge", "filter", "check_steps", "train@sft", "train@swirl", "evaluate@ceiling", "evaluate@base",
        "evaluate@sft", "evaluate@swirl", "report",
    ]  # fmt: skip


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_preset_can_be_planned(name: str) -> None:
    text = planning.text(planning.plan(params(name), ROOT))
    assert text.splitlines()[0].split()[:3] == ["stage", "actions", "tokens"]
    assert "Upper bounds" in text


def test_the_papers_run() -> None:
    stages = planned(params("gemma-2-27b"))
    assert stages["synthesize"].calls == 10_000 * 5 * 5 + 7_473 * 5 * 10
    assert "by http://127.0.0.1:8000/v1" in stages["synthesize"].does
    assert stages["synthesize"].memory_gb is None  # the server's, not ours
    assert stages["evaluate@base"].memory_gb == pytest.approx(54.0)  # 27 billion weights of two bytes
    assert stages["evaluate@ceiling"].calls is None


def test_a_judge_that_is_paid_has_a_price() -> None:
    reward = presets.tree(ROOT, "gemma-2-27b")["reward_model"]
    priced = {**reward["server"], "cost_per_million_input": 2.0, "cost_per_million_output": 8.0}
    stages = planned(params("gemma-2-27b", reward_model={**reward, "server": priced}))
    asked = 2 * (10_000 * 5 * 5 + 7_473 * 5 * 10)  # every step, and once more where there is no verdict
    tokens = stages["synthesize"].tokens
    assert tokens is not None
    read = asked * 300 + 2 * tokens * 11 // 2
    price = (read * 2.0 + asked * reward["max_tokens"] * 8.0) / 1e6
    assert stages["judge"].verdicts == asked + (10_000 + 7_473) * 5  # and a grade for every answer
    assert f"{read:,} prompt tokens, at most {price:,.2f} by its prices" in stages["judge"].does


def test_a_file_of_unknown_size_is_blank_not_wrong() -> None:
    own = {"source": "own", "files": {"train": "a.jsonl"}, "corpus": "c", "task": "search", "train": "all"}
    stages = planned(params(download={"benchmarks": {"staff": own}}))
    assert stages["synthesize"].calls is None
    assert stages["judge"].verdicts is None


def test_what_is_off_is_said_to_be_off() -> None:
    stages = planned(params(train={"methods": ["swirl"]}))
    assert stages["train@sft"].does == "off (train.methods)"
    assert stages["evaluate@sft"].calls is None
    assert stages["train@swirl"].calls == 60 * 33 * 8
