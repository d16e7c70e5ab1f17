"""The calibration of a judge, as `swirl judge calibrate` calls it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from swirl.config.params import load
from swirl.core.layout import Layout
from swirl.wiring.calibration import measure

ROOT = Path(__file__).parents[2]


def test_a_calibration_that_takes_long_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "where", "conversation": "", "action": "<answer> Oslo </answer>", "label": "GOOD"}
    path = tmp_path / "labels.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 70, encoding="utf-8")
    prompts = SimpleNamespace(process="{question} {conversation} {action}", outcome="")
    judge = SimpleNamespace(prompts=prompts, judge=lambda asked, words: [SimpleNamespace(good=True)] * len(asked))
    monkeypatch.setattr("swirl.wiring.calibration.load_text_judge", lambda params, layout, grader: judge)
    params = load(ROOT / "params.yaml")
    assert measure(path, False, params, Layout(tmp_path)).accuracy.value == 1.0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("swirl.wiring.calibration.SHORT", 0.0)
    measure(path, False, params, Layout(tmp_path))
    assert capsys.readouterr().err.startswith("rows judged: 70/70 (100%), ")
