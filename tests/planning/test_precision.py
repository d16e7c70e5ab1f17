"""A word where bfloat16 makes a processor slower: of the settings that ask for it, and of no others."""

from __future__ import annotations

from typing import Any

import pytest

from swirl.config.params import load, validate
from swirl.config.presets import laid_over, tree
from swirl.planning import precision
from tests.conftest import ROOT


def _params(preset: str, **changes: Any) -> Any:
    return validate(laid_over(tree(ROOT, preset), changes), "tests")


def test_settings_that_ask_for_what_is_slower_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bfloat16_takes", lambda: 1.96)
    said = precision.warning(_params("smollm2-135m"))
    assert said.startswith(
        "bfloat16 takes 2.0 times as long as float32 on this processor, and runtime.dtype, base_model."
    )
    assert "base_model.mixed_precision, reward_model.mixed_precision ask for it: dtype: float32" in said
    taught = {"base_model": {"mixed_precision": "no"}, "reward_model": {"mixed_precision": "no"}}
    assert "runtime.dtype asks for it" in precision.warning(_params("smollm2-135m", **taught))
    monkeypatch.setattr(precision, "bfloat16_takes", lambda: 0.4)  # a processor that has instructions for it
    assert precision.warning(_params("smollm2-135m")) == ""


def test_where_nothing_asks_for_it_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> float:
        raise AssertionError

    monkeypatch.setattr(precision, "bfloat16_takes", measured)
    assert precision.warning(load(ROOT / "params.yaml")) == ""
    assert load(ROOT / "params.yaml").base_model.mixed_precision == "bf16", "whose training alone is in it"
    assert precision.warning(_params("smollm2-135m", runtime={"device": "cuda"})) == ""


def test_it_is_measured() -> None:
    assert 0.01 < precision.bfloat16_takes() < 100
