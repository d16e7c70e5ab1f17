"""examples/smollm2-135m: adapters that stand on the file of `make weights`, with their settings, and are small."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swirl.config.own_settings import with_own
from swirl.config.presets import settings
from swirl.core.layout import Layout
from swirl.models.loading import load_chat
from swirl.models.pointers import read_pointer
from swirl.wiring.prompts import read_prompts
from tests import made_up
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples/smollm2-135m"
GGUF = "data/weights/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(params=["base", "swirl"])
def folder(request: pytest.FixtureRequest) -> Path:
    place = EXAMPLE / str(request.param)
    if not place.exists():
        pytest.skip(f"{place.relative_to(ROOT)} is not there: `swirl export` writes it after the preset's run")
    return place


def test_it_stands_on_the_file_of_make_weights(folder: Path) -> None:
    pointer = read_pointer(folder)
    known = re.search(r'SHA256 = "(\w{64})"', (ROOT / ".ci/weights.py").read_text())
    assert pointer is not None and known is not None
    assert pointer.model == f"../../../{GGUF}"
    assert pointer.files == {Path(GGUF).name: known[1]}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"./{GGUF}"


def test_its_settings_and_prompts_are_valid(folder: Path) -> None:
    own = with_own(settings(ROOT, "mini"), folder)
    assert {"search", "calculate"} <= read_prompts(own, Layout(ROOT)).tasks.keys()
    assert own.rollout.max_action_tokens > settings(ROOT, "mini").rollout.max_action_tokens


def test_both_together_are_small(folder: Path) -> None:
    both = (folder.parent / name for name in ("base", "swirl"))
    sizes = [path.stat().st_size for place in both for path in place.rglob("*") if path.is_file()]
    assert sum(sizes) <= 16_000_000


@pytest.mark.rare
@pytest.mark.skipif(not (ROOT / GGUF).exists(), reason=f"{GGUF} is not there: make weights")
def test_both_answer_with_the_tools(tmp_path: Path) -> None:
    """Untaught, the model's first action is malformed, always."""
    made_up.write(tmp_path / "rows.jsonl", [made_up.hotpotqa(n) for n in range(8)])
    models = [f"examples/smollm2-135m/{name}" for name in ("base", "swirl")]
    command = [sys.executable, "-m", "swirl", "evaluate", *models, "--benchmark", "hotpotqa", "--json"]
    done = subprocess.run([*command, "--file", str(tmp_path / "rows.jsonl")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["models"]
    assert [row["model"] for row in rows] == models
    for row in rows:
        assert row["answered"] >= 0.75 and row["malformed"] <= 0.1, row


@pytest.mark.skipif(not (ROOT / GGUF).exists(), reason=f"{GGUF} is not there: make weights")
def test_its_tokenizer_is_that_of_the_file(folder: Path) -> None:
    assert load_chat(folder).tokenizer.tokenize("a\n\n1 x  23") == ["a", "ĊĊ", "1", "Ġx", "ĠĠ", "2", "3"]
