"""Presets: valid, complete where they must be, and written without losing what was there."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from swirl.config import presets
from swirl.config.params import validate
from swirl.core.errors import ParamsError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_preset_is_valid(name: str) -> None:
    validate(presets.tree(ROOT, name), name)


@pytest.mark.parametrize("path", [*(ROOT / "presets").glob("*.yaml"), ROOT / "examples/own-task/preset.yaml"], ids=str)
def test_a_preset_that_sets_the_length_of_rl_says_both_keys(path: Path) -> None:
    """So that it fits whichever of the two the complete preset is given in."""
    swirl = yaml.safe_load(path.read_text())["train"]["swirl"]
    assert [swirl["updates"], swirl["passes"]].count(None) == 1


def test_the_committed_params_are_the_preset_mini() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets/mini.yaml").read_text()
    assert presets.names(ROOT)[0] == "mini"


def test_sections_are_merged_and_what_you_name_yourself_is_replaced() -> None:
    base = presets.tree(ROOT, "mini")
    over = {
        "tasks": {"staff": {"tools": ["search"], "max_steps": 2}},
        "train": {"swirl": {"lr": 0.5}},
        "base_model": {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False},
        "reward_model": {"source": "embedded", "steps": 7},
    }
    made = presets.laid_over(base, over)
    assert made["tasks"] == over["tasks"]
    assert made["train"] == {**base["train"], "swirl": {**base["train"]["swirl"], "lr": 0.5}}
    assert made["base_model"] == over["base_model"]
    assert made["reward_model"] == {**base["reward_model"], "steps": 7}
    assert base == presets.tree(ROOT, "mini")


def test_differences_are_by_dotted_key() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1], "e": 4}
    assert list(presets.differences(old, new)) == [("a.c", 2, 3), ("e", None, 4)]


def test_writing_a_preset_keeps_what_was_there(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    kept = presets.write(tmp_path, presets.tree(tmp_path, "smoke"), "smoke")
    assert kept is not None
    assert kept.read_text() == "mine: 1\n"
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == presets.tree(ROOT, "smoke")
    assert presets.write(tmp_path, presets.tree(tmp_path, "smoke"), "smoke") is None  # no change, no kept file
    assert kept.read_text() == "mine: 1\n"


def test_a_linked_params_yaml_stays_a_link(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/mine.yaml").write_text("mine: 1\n")
    (tmp_path / "params.yaml").symlink_to("kept/mine.yaml")
    kept = presets.write(tmp_path, presets.tree(tmp_path, "smoke"), "smoke")
    assert kept == tmp_path / "params.yaml.before"
    assert (tmp_path / "params.yaml").is_symlink()
    assert yaml.safe_load((tmp_path / "kept/mine.yaml").read_text()) == presets.tree(ROOT, "smoke")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["mine.yaml"]


def test_no_kept_file_is_written_over(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    path = tmp_path / "params.yaml"
    names = []
    for text, name in (("mine: 1\n", "smoke"), ("mine: 2\n", "mini"), ("mine: 3\n", "smoke"), ("mine: 2\n", "mini")):
        path.write_text(text)
        kept = presets.write(tmp_path, presets.tree(tmp_path, name), name)
        assert kept is not None
        assert kept.read_text() == text
        names.append(kept.name)
    assert names == ["params.yaml.before", "params.yaml.before.2", "params.yaml.before.3", "params.yaml.before.2"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(any(fnmatch(name, pattern) for pattern in ignored) for name in names)


def test_a_preset_of_your_own_is_read_as_params_are(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("train: {swirl: {lr: 1e-5}}\n")
    assert presets.tree(ROOT, str(own))["train"]["swirl"]["lr"] == 1e-5


def test_a_preset_that_is_not_there_or_not_valid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"there is no preset 'maxi'; there are mini, .*smoke"):
        presets.tree(ROOT, "maxi")
    own = tmp_path / "own.yaml"
    own.write_text("train: {swirl: {lr: fast}}\n")
    with pytest.raises(ParamsError, match=r"train.swirl.lr = 'fast'"):
        presets.tree(ROOT, str(own))
    own.write_text("- 1\n")
    with pytest.raises(ParamsError, match="holds no settings"):
        presets.tree(ROOT, str(own))
