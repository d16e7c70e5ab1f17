"""The judge of an evaluation: what a second one from the hub is called, and how its commit is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swirl.config.reward_model import PretrainedReward
from swirl.core.layout import Layout
from swirl.models import pointers
from swirl.wiring.label_judges import _point

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_judge_of_the_hub_is_called_by_its_locked_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, asked = Layout(tmp_path / "project"), list[str]()
    (tmp_path / COMMIT).mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / COMMIT / name).write_text("{}", encoding="utf-8")

    def downloaded(model: str, revision: str, code: bool) -> Path:
        asked.append(revision)
        return tmp_path / COMMIT

    monkeypatch.setattr(pointers, "_snapshot", downloaded)
    layout.hub_lock.parent.mkdir(parents=True)
    settings = PretrainedReward(
        source="pretrained", model="org/wise", revision="", trust_remote_code=False,
        verdict="rationale", max_tokens=8, votes=1, temperature=0.0,
    )  # fmt: skip
    names = [_point(settings, tmp_path / folder, layout) for folder in ("sft", "swirl")]
    assert names == ["org/wise@0123456789ab"] * 2
    assert asked == ["main", COMMIT]
    assert json.loads(layout.hub_lock.read_text(encoding="utf-8")) == {"org/wise": COMMIT}
