"""Scores in logged states: conversations count once, differences are paired, what is not known is left out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from swirl.core.errors import DataError
from swirl.core.types import JudgeRole, StateAction
from swirl.evaluation.state_scores import by_conversation, state_measures


def action(question: str, model: str, reward: float | None, **more: Any) -> StateAction:
    given = {"step": 0, "sample": 0, "text": "", "kind": "find", "same_tools": True, "same_calls": None, **more}
    return StateAction(
        trajectory_id=f"{question}/0",
        question_id=question,
        benchmark="desk",
        model=model,
        reward=reward,
        judge="second",
        judge_role=JudgeRole.SECOND,
        **given,
    )


BASE = [action("a", "base", 0.0), action("a", "base", 0.5, step=1), action("b", "base", 1.0, kind="malformed")]
TUNED = [action("a", "swirl", 1.0), action("a", "swirl", 0.5, step=1), action("b", "swirl", 1.0, kind="cut")]


def test_a_conversation_counts_once() -> None:
    assert by_conversation(BASE, "reward") == {"a": 0.25, "b": 1.0}
    assert by_conversation(BASE, "malformed") == {"a": 0.0, "b": 1.0}
    assert by_conversation(TUNED, "cut") == {"a": 0.0, "b": 1.0}
    assert by_conversation(BASE, "same_calls") == {}


def test_differences_to_the_base_are_paired_over_conversations() -> None:
    found = {(one.model, one.measure): one for one in state_measures({"base": BASE, "swirl": TUNED})}
    base, tuned = found["base", "reward"], found["swirl", "reward"]
    assert (base.n, base.mean, base.over_base, base.judge_role) == (2, 0.625, None, JudgeRole.SECOND)
    assert (tuned.mean, tuned.over_base) == (0.875, 0.25)
    assert (tuned.over_base_low, tuned.over_base_high) == (0.0, 0.5)
    assert (base.ci_low, base.ci_high) == (0.25, 1.0)
    assert found["base", "same_tools"].mean == 1.0 and found["base", "same_tools"].judge == ""
    assert ("base", "same_calls") not in found


def test_without_a_verdict_there_is_no_reward_and_a_difference_needs_both() -> None:
    base = [action("a", "base", None), action("b", "base", 0.5)]
    tuned = [action("a", "swirl", 1.0), action("b", "swirl", 1.0)]
    found = {(one.model, one.measure): one for one in state_measures({"base": base, "swirl": tuned})}
    assert (found["base", "reward"].n, found["swirl", "reward"].n) == (1, 2)
    assert found["swirl", "reward"].over_base == pytest.approx(0.5)
    assert all(one.measure != "reward" for one in state_measures({"base": [action("a", "base", None)]}))


def test_rewards_of_two_judges_are_not_compared() -> None:
    other = [dataclasses.replace(one, judge="first") for one in TUNED]
    said = r"states of desk: the judge of swirl is 'first' \(a second.*\), but that of base is 'second' \("
    with pytest.raises(DataError, match=said):
        state_measures({"base": BASE, "swirl": other})
    unjudged = [dataclasses.replace(one, reward=None) for one in other]
    assert {one.measure for one in state_measures({"base": BASE, "swirl": unjudged}) if one.model == "swirl"} == {
        "same_tools", "malformed", "cut",
    }  # fmt: skip
