"""A device that torch cannot use is refused with a sentence, before anything is loaded or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import validate
from swirl.config.presets import laid_over
from swirl.core.devices import check_device
from swirl.core.errors import ParamsError
from swirl.core.layout import Layout
from swirl.models.loading import load_model
from swirl.stages import base_model

ROOT = Path(__file__).parents[2]
ABSENT = "cuda:99"


@pytest.mark.parametrize("device", [ABSENT, "hpu", "gpu", "cuda:x"])
def test_a_device_that_is_not_here_is_named_with_what_to_set(device: str) -> None:
    check_device("cpu")
    with pytest.raises(
        ParamsError, match=rf"^runtime.device is {device}, which torch .* here \(.+\); set it to cpu, or"
    ):
        check_device(device)


def test_it_is_refused_before_a_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=f"runtime.device is {ABSENT}"):
        load_model(tmp_path / "none", ABSENT, "eager")


@pytest.mark.parametrize("preset", ["mini", "gsm8k-tiny"])
def test_it_is_refused_before_a_base_is_made(preset: str, tmp_path: Path) -> None:
    params = validate(laid_over(presets.tree(ROOT, preset), {"runtime": {"device": ABSENT}}), preset)
    with pytest.raises(ParamsError, match=f"runtime.device is {ABSENT}"):
        base_model.run(params, Layout(tmp_path))
